"""The first steps of a run again: the same bits, or what differs is said."""

import json
import shutil

import pytest

from fmjax import config, report, reproduce
from tests import runs

CNN = "configs/cnn/fashion_mnist.py"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run of 6 steps, with a record for every two and an evaluation at step 3."""
    folder = tmp_path_factory.mktemp("runs") / "done"
    given = runs.tiny(CNN, steps=6, log__every=2, evaluate__every=3)
    assert runs.run(folder, given)["status"] == "done"
    return folder


@pytest.fixture
def copy(done, tmp_path):
    return shutil.copytree(done, tmp_path / "copy")


def rewrite(path, change):
    record = json.loads(path.read_text("utf-8"))
    change(record)
    path.write_text(json.dumps(record), "utf-8")


def test_the_same_bits(done, capsys):
    before = sorted(done.rglob("*"))
    assert reproduce.main([str(done)]) == 0
    said = capsys.readouterr().out
    assert f"{done}, steps 1 to 6: " in said
    assert "equal, bit for bit" in said
    assert sorted(done.rglob("*")) == before, "the run is left as it is"


def test_as_far_as_asked(done):
    found = reproduce.reproduce(done, 4)
    steps = [x["step"] for x in report.read(done) if "lr" in x and x["step"] <= 4]
    assert steps == [2, 3, 4]
    assert (found["steps"], found["left_out"]) == (4, 0)
    assert found["records"] == len(steps) + 1, "with the evaluation at step 3"
    assert found["compared"] > 2 * found["records"]
    assert (found["differences"], found["changed"]) == ([], {})


def test_the_last_bit_of_a_loss_is_seen(copy, capsys):
    lines = report.read(copy)
    lines[0]["train/loss"] *= 1 + 2**-52
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (copy / "metrics.jsonl").write_text(text)

    def older(record):
        record["runs"][0]["packages"]["jax"] = "0.1"
        record["runs"][0]["devices"] = [1, "TPU v4"]
        record["rows"]["sha256"] = "0"

    rewrite(copy / "config.json", older)
    (copy / "tokenizer.json").write_text("{}")
    assert reproduce.main([str(copy), "--steps", "2"]) == 1
    said = capsys.readouterr().out
    for text in (
        f"{copy}, steps 1 to 2: 1 of ",
        f"step 2: train/loss was {lines[0]['train/loss']!r}, is ",
        "packages.jax: was '0.1', is ",
        "devices: was [1, 'TPU v4'], is [8, 'cpu']",
        "rows.sha256: was '0', is ",
        "tokenizer.json: was '2 bytes', is None",
    ):
        assert text in said


def test_another_config_is_another_run(copy, capsys):
    rewrite(copy / "config.json", lambda record: record["config"].update(seed=7))
    assert reproduce.main([str(copy), "--steps", "2", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {x["name"] for x in found["differences"]} >= {"train/loss"}
    assert found["changed"] == {}


def test_an_interrupted_run_is_compared_where_its_records_are_over_the_same_steps(
    tmp_path,
):
    given = runs.tiny(CNN, steps=6, log__every=2, evaluate__every=6)
    runs.run(tmp_path, given, stop_at=3)
    runs.run(tmp_path, given)
    windows = [(x["step"], x["window"]) for x in report.read(tmp_path) if "lr" in x]
    assert windows == [(2, 2), (3, 1), (4, 1), (6, 2)]
    found = reproduce.reproduce(tmp_path)
    assert (found["left_out"], found["differences"]) == (2, [])
    assert found["records"] >= 2


def test_where_there_is_nothing_to_compare_it_says_so(copy, tmp_path):
    with pytest.raises(config.ConfigError, match=r"no workdir of a run: no config\.js"):
        reproduce.reproduce(tmp_path)
    with pytest.raises(config.ConfigError, match=r"--steps 1: .* is of step 2"):
        reproduce.reproduce(copy, 1)
    (copy / "metrics.jsonl").write_text("")
    with pytest.raises(config.ConfigError, match="no record of a training step"):
        reproduce.reproduce(copy)
    (copy / "metrics.jsonl").unlink()
    with pytest.raises(config.ConfigError, match="holds no records"):
        reproduce.reproduce(copy)
