"""Where time goes: all of it, of one kind each, also over crashes and rollbacks."""

import gzip
import json
import time

import numpy as np
import pytest

from fmjax import report, train
from fmjax.config import ConfigError
from fmjax.costs import chips, clock, trace
from tests import runs


@pytest.fixture
def hands(monkeypatch):
    """A clock's hands, to be moved."""
    now = [100.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])

    def move(seconds):
        now[0] += seconds

    return move


def step(made, hands, wait=1.0, work=3.0):
    made.mark("steps")
    hands(wait)
    made.mark("input")
    hands(work)
    made.lap()


def test_every_second_is_of_one_kind(tmp_path, hands):
    made = clock.Clock(tmp_path)
    hands(10)
    made.mark("compile")
    hands(2)
    made.open(0, {"model_flops": 24.0, "peak_flops": 12.0})
    for _ in range(3):
        step(made, hands)
    told = made.record(rows=8)
    assert told["examples_per_second"] == pytest.approx(2.0)
    assert told["input_wait"] == pytest.approx(0.25)
    assert told["p50/step_seconds"] == told["p99/step_seconds"] == pytest.approx(4.0)
    assert told["mfu"] == pytest.approx(24 / 4 / 12)
    hands(0.5)
    with made.spending("evaluate", np.ones(())):
        hands(5)
    with made.spending("checkpoint", ()):
        hands(7)
    step(made, hands, wait=0, work=9.5)
    step(made, hands, wait=0, work=20)
    told = made.record(rows=8)
    # What came before an evaluation is of the step; the evaluation is of none.
    assert told["examples_per_second"] == pytest.approx(16 / 30)
    assert told["p50/step_seconds"] == pytest.approx(15)
    assert told["p90/step_seconds"] == pytest.approx(19)
    made.save(5)
    (line,) = clock.read(made.path)
    assert (line["from"], line["to"]) == (0, 5)
    wanted = {"compile": 10, "start": 2, "input": 3, "steps": 39, "evaluate": 5}
    assert line["seconds"] == pytest.approx(wanted | {"checkpoint": 7, "lost": 0})
    rows = {row["kind"]: row for row in clock.shares([line])}
    assert list(rows) == list(clock.KINDS)
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)
    assert rows["steps"]["share"] == pytest.approx(39 / 66)


def test_steps_that_are_done_again_were_lost(tmp_path, hands):
    first = clock.Clock(tmp_path)
    hands(4)
    first.mark("compile")
    first.open(0, {})
    for _ in range(4):
        step(first, hands)
    first.save(4)  # and is killed: its newest checkpoint is of step 3
    again = clock.Clock(tmp_path)
    again.open(3, {})
    for _ in range(2):
        step(again, hands, work=1)
    again.save(5)
    again.open(2, {})  # a rollback past the beginning of this attempt
    step(again, hands)
    again.save(3)
    lines = clock.read(again.path)
    assert [(x["from"], x["to"]) for x in lines] == [(0, 2), (3, 3), (2, 3)]
    assert [x["seconds"]["steps"] for x in lines] == pytest.approx([6, 0, 3])
    assert [x["seconds"]["lost"] for x in lines] == pytest.approx([8, 4, 0])
    assert [x["seconds"]["compile"] for x in lines] == pytest.approx([4, 0, 0])
    rows = {row["kind"]: row["seconds"] for row in clock.shares(lines)}
    assert sum(rows.values()) == pytest.approx(4 + 16 + 4 + 4)


def test_a_run_without_records_has_no_time(tmp_path):
    assert clock.read(tmp_path / "attempts.jsonl") == []
    assert all(row["share"] == 0 for row in clock.shares([]))


@pytest.mark.parametrize("asked", ["10", "5:5", "7:3", "a:b", "3:21", "-1:4", ""])
def test_a_span_that_is_none_is_refused(asked):
    with pytest.raises(ConfigError, match=r"two steps such as 10:15.* this run's 20"):
        trace.span(asked, 20)


def test_a_span_may_end_with_the_run():
    assert trace.span("0:20", 20) == (0, 20)


def test_a_span_that_a_run_goes_on_past_is_said(tmp_path, capsys):
    with trace.tracing(tmp_path, "1:3", 20) as look:
        look(5, ())
        look(6, ())
    said = "fmjax: nothing is traced by --profile 1:3: the run goes on from step 5\n"
    assert capsys.readouterr().err == said
    assert not list(tmp_path.iterdir())


def test_processes_trace_to_folders_of_their_own(tmp_path, monkeypatch):
    """One folder with the traces of two is an error of jax's, and ends the run."""
    for rank in range(2):
        monkeypatch.setattr(trace.jax, "process_count", lambda: 2)
        monkeypatch.setattr(trace.jax, "process_index", lambda rank=rank: rank)
        with trace.tracing(tmp_path, "0:1", 2) as look:
            look(0, ())
            look(1, ())
        (file,) = tmp_path.glob(f"profile/process-{rank}/**/perfetto_trace.json.gz")
        assert file.stat().st_size


def test_a_run_knows_its_time_and_traces_its_steps(tmp_path, monkeypatch):
    cpu = chips.Chip("cpu", 1e12, 0, 0, 0, 0)
    monkeypatch.setitem(chips.CHIPS, "cpu", cpu)
    settings = runs.tiny("configs/gpt/language_model.py", model__depth=1)
    prepare, prepared = train.prepare, []

    def slowly(given):
        time.sleep(1)
        made = prepare(given)
        prepared.append(time.monotonic())
        return made

    monkeypatch.setattr(train, "prepare", slowly)
    began = time.monotonic()
    stopped = runs.run(tmp_path, settings, stop_at=2, profile="1:6")
    wall = time.monotonic() - began
    assert stopped["status"] == "stopped", "a span past the stop is cut short"
    (line,) = clock.read(tmp_path / "attempts.jsonl")
    assert (line["from"], line["to"]) == (0, 2)
    seconds = line["seconds"]
    assert seconds["compile"] >= stopped["compile_seconds"]
    assert sum(seconds.values()) <= wall
    assert seconds["start"] >= prepared[0] - began - 0.1, "data and nets take time too"
    assert min(seconds[kind] for kind in ("steps", "checkpoint", "start")) > 0
    (file,) = tmp_path.glob("profile/plugins/profile/*/perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    names = {event.get("name") for event in events}
    assert "train" in names, "the step is annotated"
    (record,) = [x for x in report.read(tmp_path) if "lr" in x and x["step"] == 2]
    step = record["examples_per_second"] / settings["batch_size"]
    flops = stopped["model_flops"]
    peak = 1e12 * 8  # of the eight devices that tests have
    assert record["mfu"] == pytest.approx(step * flops / peak)
    assert record["p50/step_seconds"] == pytest.approx(1 / step)
