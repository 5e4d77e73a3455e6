"""What a run leaves to read."""

import json
import math

import jax
import jax.numpy as jnp
import pytest

from fmjax import parallel, report
from fmjax.config import ConfigError
from fmjax.train import Log


def make(folder, start=0, evaluated=0, every=2, log=None):
    return report.Report(folder, log or Log(), every, 10, start, evaluated, {"a": 1})


def sums(value):
    pair = (jnp.float32(value), jnp.float32(2.0))
    return {"losses": {"x": pair}, "metrics": {"accuracy": pair}}


def test_records_are_means_over_the_window(tmp_path):
    writer = make(tmp_path)
    for step, value in ((1, 1.0), (2, 3.0), (3, 5.0)):
        writer.train(step, sums(value), rows=4, lr=0.1, flush=step == 3)
    writer.close()
    lines = report.read(tmp_path)
    assert [line["step"] for line in lines] == [2, 3]
    assert [line["train/loss"] for line in lines] == [1.0, 2.5]
    assert lines[0]["examples_per_second"] > 0


def test_lines_that_will_be_written_again_are_taken_back(tmp_path):
    lines = [
        {"step": 2, "lr": 1},
        {"step": 2, "validation/loss": 1},
        {"step": 4, "lr": 1},
        {"step": 4, "validation/loss": 1},
        {"step": 6, "lr": 1},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 7, "l'
    (tmp_path / "metrics.jsonl").write_text(text)
    make(tmp_path, start=4, evaluated=2).close()
    assert report.read(tmp_path) == lines[:3]


def test_nan_is_written_as_null_and_never_hidden(tmp_path):
    writer = make(tmp_path)
    writer.write(1, {"train/loss": math.nan, "b": math.inf, "c": 1.0})
    writer.close()
    assert report.read(tmp_path) == [
        {"step": 1, "train/loss": None, "b": None, "c": 1.0}
    ]


def test_a_tracker_that_fails_does_not_end_the_run(tmp_path, capsys):
    writer = make(tmp_path)

    def broken(step, numbers):
        raise OSError("unreachable")

    writer.trackers.append(broken)
    writer.write(1, {"a": 1.0})
    writer.write(2, {"a": 2.0})
    writer.close()
    assert len(report.read(tmp_path)) == 2
    assert capsys.readouterr().err.count("unreachable") == 1


def test_tensorboard_gets_the_numbers(tmp_path):
    writer = make(tmp_path, log=Log(tensorboard=True))
    writer.write(1, {"a": 1.0})
    writer.close()
    assert [p for p in tmp_path.iterdir() if "tfevents" in p.name]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_tracker_names_the_extra(tmp_path, name, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"fmjax\[tracking\]"):
        make(tmp_path, log=Log(**{name: "project"}))


def test_provenance_keeps_no_secret(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "canary-1234")
    found = report.provenance()
    assert "canary-1234" not in json.dumps(found)
    assert found["packages"]["jax"]
    assert found["devices"][0] == 8


def test_the_parameter_table_adds_up():
    params = {"a": jnp.zeros((16, 4)), "b": jnp.zeros(8)}
    plan = parallel.plan(params="fsdp")
    shapes = parallel.abstract(params, parallel.shardings(params, params, plan))
    text = report.parameter_table(shapes)
    assert "in all 72" in text
    assert "36" in text  # (64 + 8) values of 4 bytes over 8 devices
    assert report.count(params) == 72


def test_json_is_replaced_whole(tmp_path):
    path = tmp_path / "x.json"
    report.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.write_json(path, {"a": math.nan})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_page_of_any_run(tmp_path):
    writer = make(tmp_path)
    writer.train(1, sums(1.0), rows=4, lr=0.1, flush=True)
    writer.evaluation(1, {"validation/loss": 2.0, "validation/count": 3.0})
    writer.close()
    report.write_json(tmp_path / "config.json", {"config": {"seed": 3}})
    html = report.write_page(tmp_path).read_text("utf-8")
    assert "validation/loss" in html
    assert "<svg" in html
    assert jax.device_count() == 8
