"""The speed tables: what README.md says is what was measured; steps are comparable."""

import json
import pathlib

import pytest

from experiments.speed import loop, train_step

ROOT = pathlib.Path(train_step.__file__).parent


def lines(name):
    text = (ROOT / name).read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_the_tables_are_those_of_the_files():
    told = (ROOT / "README.md").read_text("utf-8")
    assert train_step.table(lines("train_step.jsonl")) in told


@pytest.mark.parametrize("name", train_step.CASES)
def test_cases_are_settings(name, monkeypatch):
    monkeypatch.chdir(ROOT.parents[1])
    case = train_step.CASES[name]
    made = train_step.settings(case)
    assert made["batch_size"] == case.changes.get("batch_size", 64)
    assert made["model"].get("dtype", "float32") == "float32"
    assert not made["model"].get("dropout")


def test_ours_and_the_bare_step_compute_the_same(monkeypatch):
    monkeypatch.chdir(ROOT.parents[1])
    step, bare, told = train_step.ours(train_step.CASES["small CNN, 64 x 28 x 28"])
    for _ in range(3):
        assert step() == pytest.approx(bare(), rel=1e-5)
    assert told["parameters"] == 347146


def test_every_loop_has_a_case():
    assert list(loop.LOOPS) == list(loop.CASES)
