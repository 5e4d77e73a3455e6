"""The speed tables: what README.md says is what was measured; steps are comparable."""

import json
import os
import pathlib
import platform
import sys
import time

import jax
import numpy as np
import pytest
from flax import traverse_util

from experiments.speed import generation, loop, start, train_step
from fmjax.models import gpt, t5

ROOT = pathlib.Path(train_step.__file__).parent


def lines(name):
    text = (ROOT / name).read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_the_tables_are_those_of_the_files():
    told = (ROOT / "README.md").read_text("utf-8")
    for processor in ("", "_avx2", "_epyc"):
        assert train_step.table(lines(f"train_step{processor}.jsonl")) in told
    assert generation.table(lines("generation.jsonl")) in told
    assert start.table(lines("start.jsonl")) in told
    loops = [line for line in lines("loop.jsonl") if line["part"] == "loop"]
    assert loop.table(loops) in told


def test_a_processor_is_told_by_its_name_and_vectors(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text(
        "processor\t: 0\nmodel name\t: Some 7\nflags\t\t: fpu avx2 avx512f\n"
    )
    assert generation.processor(file) == "Some 7, avx512f"
    file.write_text("model name\t: Other\nflags\t\t: avx2\n\nprocessor\t: 1\n")
    assert generation.processor(file) == "Other, avx2"
    assert generation.processor(tmp_path / "none") in (
        platform.processor(),
        platform.machine(),
    )


def shapes(net):
    batch = {name: np.zeros((1, 4), np.int32) for name in ("tokens", "decoder_tokens")}
    return jax.eval_shape(net.init, jax.random.key(0), batch)["params"]


def test_a_step_of_gpt_reads_all_but_positions():
    net = gpt.Model(
        vocab_size=50, width=8, depth=2, heads=2, mlp_width=16, max_length=20
    )
    params = shapes(net)
    numbers = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert generation.read_a_step(params) == 4 * (numbers - 20 * 8)


def test_a_step_of_t5_reads_no_encoder_and_no_source_again():
    fields = dict(vocab_size=50, width=8, depth=2, heads=2, mlp_width=16, head_width=4)
    params = shapes(t5.Model(**fields))
    decoder = sum(
        leaf.size
        for name in ("decoder0", "decoder1", "decoder_bias", "decoder_norm", "embed")
        for leaf in jax.tree.leaves(params[name])
    )
    read = 4 * (decoder - 2 * 2 * 8 * 8)
    assert generation.read_a_step(params) == read


@pytest.mark.parity
def test_bandwidth_is_that_of_a_product():
    read = generation.bandwidth(1, time.perf_counter, shape=(4096, 2048), repeats=3)
    assert len(read) == 4
    assert all(1e8 < rate < 1e12 for rate in read.values())


def test_every_line_has_its_bound_where_it_was_measured():
    for line in lines("generation.jsonl"):
        if "bound" in line:
            fastest = max(line["bytes_per_second"].values())
            rows = line["case_fields"]["batch"]
            assert line["bound"] == pytest.approx(
                rows * fastest / line["bytes_a_step"], rel=1e-9
            )


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


@pytest.mark.slow  # five processes, of which three import torch and transformers
def test_arms_take_turns(monkeypatch):
    monkeypatch.chdir(ROOT.parents[1])
    found = train_step.measure("small CNN, 64 x 28 x 28", 2, 1)
    losses = found["first_loss"]
    assert losses["fmjax"] == pytest.approx(losses["by hand"], rel=1e-5)
    assert losses["torch"] == losses[train_step.KEPT]
    assert losses["torch"] == pytest.approx(losses[train_step.COMPILED], rel=1e-5)
    for arm in train_step.ARMS[1:]:
        assert 0.05 < found[f"{arm} / fmjax"] < 20
        assert len(found[f"{arm} / fmjax, by turn"]) == 2


def test_without_a_compiler_a_column_is_empty(monkeypatch):
    lines = (ROOT / "train_step.jsonl").read_text("utf-8").splitlines()
    line = json.loads(lines[0])
    assert " | - | " not in train_step.table([line])
    del line[f"{train_step.COMPILED} / fmjax"]
    assert train_step.table([line]).count(" | - | ") == 1
    monkeypatch.setenv("PATH", "")
    assert not train_step.compiler()
    monkeypatch.setenv("CXX", sys.executable)
    assert train_step.compiler()


def test_a_batch_goes_to_another_process_and_back(tmp_path):
    batch = {"inputs": {"a": np.arange(3), "b": np.ones((2, 1), np.float32)}}
    batch["label"] = np.int32(4)
    np.savez(tmp_path / "batch.npz", **traverse_util.flatten_dict(batch, sep="/"))
    with np.load(tmp_path / "batch.npz") as kept:
        again = train_step.nested(dict(kept))
    assert jax.tree.structure(again) == jax.tree.structure(batch)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(batch), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again["inputs"]["b"].dtype == np.float32


def test_a_process_is_busy_for_as_long_as_it_counts():
    before, began = start.busy(os.getpid()), time.process_time()
    while time.process_time() - began < 0.2:
        pass
    took = start.busy(os.getpid()) - before
    assert took == pytest.approx(time.process_time() - began, abs=0.1)


@pytest.mark.slow
def test_a_start_is_timed_each_way(monkeypatch):
    monkeypatch.chdir(ROOT.parents[1])
    monkeypatch.setattr(start, "WAYS", ("cold", "usual", "warm"))  # torch is an extra
    found = start.measure("small CNN, 64 x 28 x 28", 1)
    losses = found["first_loss"].values()
    assert len(losses) == 3
    assert len(set(losses)) == 1, "the same bits, whatever the compiler's level"
    assert found["cold / cold"] == 1
    assert all(0 < found[f"{way} / cold"] < 5 for way in start.WAYS)
    assert all(found[way]["seconds"] > 0 for way in start.WAYS)


def test_every_loop_has_a_case():
    assert list(loop.LOOPS) == list(loop.CASES)
