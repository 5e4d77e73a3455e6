"""What a run leaves behind, also where it was killed or a tracker broke."""

import json
import math
import os
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import files, parallel, report
from fmjax.config import ConfigError
from fmjax.costs import account, clock
from fmjax.reporting import run_page
from fmjax.train import Log


def open_report(workdir, log=None, **changes):
    fields = (
        dict(every=1, total=9, start=0, evaluated=0, settings={"seed": 0}) | changes
    )
    fields |= {"cost": {}, "clock": clock.Clock(workdir)}
    return report.Report(workdir, log or Log(), **fields)


def sums(total, weight=1.0):
    pair = (jnp.float32(total), jnp.float32(weight))
    return {"losses": {"a": pair}, "metrics": {"right": pair}}


@pytest.fixture
def told(capsys):
    """What was said on the console, in one line."""
    return lambda: " ".join(capsys.readouterr().err.split())


class TestLines:
    def test_of_training_are_means_since_the_last_one(self, tmp_path):
        made = open_report(tmp_path, every=2)
        for step, (total, weight) in enumerate(
            [(1, 1), (5, 3), (7, 2), (9, 2), (4, 1)], 1
        ):
            made.train(
                step, sums(total, weight), rows=8, lr=0.5 / step, flush=step == 5
            )
        made.close()
        lines = report.read(tmp_path)
        assert [x["step"] for x in lines] == [2, 4, 5]
        assert [x["train/loss"] for x in lines] == [6 / 4, 16 / 4, 4.0]
        assert [x["train/right"] for x in lines] == [6 / 4, 16 / 4, 4.0]
        assert [x["lr"] for x in lines] == [0.5 / 2, 0.5 / 4, 0.5 / 5]
        assert all(x["examples_per_second"] > 0 for x in lines)
        assert all(0 <= x["input_wait"] <= 1 for x in lines)
        assert all("mfu" not in x for x in lines), "no CPU's peak is known"

    def test_are_there_at_once(self, tmp_path):
        made = open_report(tmp_path)
        made.write(1, {"a": 1.0})
        assert report.read(tmp_path) == [{"step": 1, "a": 1.0}]
        made.close()

    def test_nan_and_infinity_are_null(self, tmp_path):
        made = open_report(tmp_path)
        made.write(1, {"a": math.nan, "b": math.inf, "c": 0.1})
        made.train(2, sums(math.nan), rows=1, lr=0.1, flush=False)
        made.close()
        text = (tmp_path / "metrics.jsonl").read_text()
        assert text.splitlines()[0] == '{"step": 1, "a": null, "b": null, "c": 0.1}'
        assert "NaN" not in text
        assert report.read(tmp_path)[1]["train/loss"] is None

    def test_the_wait_for_input_is_counted(self, tmp_path):
        made = open_report(tmp_path)
        slow = (time.sleep(0.2) or "batch" for _ in range(1))
        assert made.wait(slow) == "batch"
        made.train(1, sums(1), rows=1, lr=0.1, flush=False)
        made.close()
        (line,) = report.read(tmp_path)
        assert 0.5 < line["input_wait"] <= 1
        assert line["p50/step_seconds"] >= 0.2
        assert made.window == []

    def test_only_process_0_writes(self, tmp_path, monkeypatch, told):
        monkeypatch.setattr(jax, "process_index", lambda: 1)
        made = open_report(tmp_path, Log(tensorboard=True))
        made.train(1, sums(1), rows=1, lr=0.1, flush=False)
        made.evaluation(1, {"validation/loss": 1.0})
        made.say("a word")
        made.close()
        assert os.listdir(tmp_path) == []
        assert told() == ""


def train_line(step):
    return {"step": step, "train/loss": 1.0, "lr": 0.1}


def evaluation_line(step):
    return {"step": step, "validation/loss": 1.0}


class TestResuming:
    LINES = [  # noqa: RUF012
        train_line(1), train_line(2), evaluation_line(2), train_line(3), train_line(4),
        evaluation_line(4), train_line(5),
    ]  # fmt: skip

    def write(self, workdir, tail=""):
        text = "".join(json.dumps(line) + "\n" for line in self.LINES)
        (workdir / "metrics.jsonl").write_text(text + tail)

    @pytest.mark.parametrize(
        ("start", "evaluated", "kept"),
        [
            (0, 0, []),
            (3, 2, [0, 1, 2, 3]),
            (4, 4, [0, 1, 2, 3, 4, 5]),
            (4, 2, [0, 1, 2, 3, 4]),  # saved before the evaluation of that very step
            (5, 4, [0, 1, 2, 3, 4, 5, 6]),
            (9, 9, [0, 1, 2, 3, 4, 5, 6]),
        ],
    )
    def test_lines_that_will_be_written_again_are_taken_back(
        self, tmp_path, start, evaluated, kept
    ):
        self.write(tmp_path)
        open_report(tmp_path, start=start, evaluated=evaluated).close()
        assert report.read(tmp_path) == [self.LINES[i] for i in kept]

    @pytest.mark.parametrize("tail", ['{"step": 6, "tra', "{", '{"step": 6'])
    def test_a_line_that_a_kill_cut_short_is_left_out(self, tmp_path, tail):
        self.write(tmp_path, tail)
        assert report.read(tmp_path) == self.LINES
        made = open_report(tmp_path, start=5, evaluated=4)
        made.write(6, {"lr": 0.1})
        made.close()
        assert report.read(tmp_path) == [*self.LINES, {"step": 6, "lr": 0.1}]

    def test_a_last_line_without_its_end_does_not_swallow_the_next(self, tmp_path):
        self.write(tmp_path, '{"step": 5, "lr": 1.0}')
        made = open_report(tmp_path, start=5, evaluated=4)
        made.write(6, {"lr": 0.1})
        made.close()
        found = report.read(tmp_path)
        assert found[-2:] == [{"step": 5, "lr": 1.0}, {"step": 6, "lr": 0.1}]


class TestConsole:
    def test_evaluation_shows_the_losses(self, tmp_path, told):
        made = open_report(tmp_path)
        made.evaluation(3, {"validation/loss": 0.25, "validation/count": 7.0})
        made.close()
        assert told() == f"{tmp_path} 3/9 validation/loss 0.2500"

    def test_markup_in_a_name_is_text(self, tmp_path, told):
        made = open_report(tmp_path)
        made.say("[red]runs[/red] [/nothing]")
        made.close()
        assert told() == "[red]runs[/red] [/nothing]"

    def test_steps_are_not_a_line_each(self, tmp_path, told):
        made = open_report(tmp_path)
        for step in range(1, 50):
            made.step(step, "loss")
        made.close()
        assert told().count("loss") <= 2


class Broken:
    def __init__(self):
        self.calls = 0

    def __call__(self, step, numbers):
        self.calls += 1
        raise ConnectionError("no route")


class TestTrackers:
    def test_a_failing_one_is_reported_once_and_ends_nothing(self, tmp_path, told):
        made, broken, seen = open_report(tmp_path), Broken(), []
        made.trackers += [
            broken,
            lambda step, numbers: seen.append((step, dict(numbers))),
        ]
        for step in (1, 2, 3):
            made.write(step, {"a": float(step)})
        made.close()
        assert broken.calls == 1
        assert seen == [(1, {"a": 1.0}), (2, {"a": 2.0}), (3, {"a": 3.0})]
        assert len(report.read(tmp_path)) == 3
        assert (
            told().count("tracker left out from here on: ConnectionError('no route')")
            == 1
        )

    def test_tensorboard_writes_events(self, tmp_path):
        pytest.importorskip("tensorboardX")
        made = open_report(tmp_path, Log(tensorboard=True))
        made.write(7, {"train/loss": 0.5, "train/nothing": math.nan})
        made.close()
        (file,) = tmp_path.glob("events.out.tfevents.*")
        assert b"train/loss" in file.read_bytes()
        assert made.trackers, "the tracker failed"

    @pytest.mark.parametrize(
        ("name", "log"),
        [
            ("wandb", Log(wandb="a project")),
            ("mlflow", Log(mlflow="an experiment")),
            ("tensorboardX", Log(tensorboard=True)),
        ],
    )
    def test_a_package_that_is_absent_is_named_with_its_extra(
        self, tmp_path, monkeypatch, name, log
    ):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ConfigError) as error:
            open_report(tmp_path, log)
        assert f"needs {name}: pip install 'fmjax[tracking]'" in str(error.value)

    def test_each_run_has_one_of_its_own_and_ends_it(self, tmp_path, monkeypatch):
        # wandb.init and mlflow's calls go on with an open run: the seeds of an
        # experiment, run in one process, would all be written into the first.
        said = []

        def init(**fields):
            name = fields["dir"]
            return types.SimpleNamespace(
                log=lambda numbers, step: said.append((name, step)),
                finish=lambda: said.append((name, "end")),
            )

        mlflow = types.SimpleNamespace(
            set_experiment=lambda name: None,
            log_params=lambda params: said.append(("mlflow", params["seed"])),
            log_metrics=lambda numbers, step: said.append(("mlflow", [*numbers])),
            end_run=lambda: said.append(("mlflow", "end")),
        )
        monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
        monkeypatch.setitem(sys.modules, "mlflow", mlflow)
        for name in ("a", "b"):
            made = open_report(
                tmp_path / name, Log(wandb="project", mlflow="experiment")
            )
            made.write(1, {"train/loss": 1.0})
            made.close()
        for name in ("a", "b"):
            own = [what for who, what in said if who == str(tmp_path / name)]
            assert own == [1, "end"]
        flow = [what for who, what in said if who == "mlflow"]
        assert flow == ["0", ["train.loss"], "end"] * 2


class TestParameterTable:
    def test_numbers(self):
        plan = parallel.plan(params="fsdp")
        params = {
            "embed": jax.ShapeDtypeStruct((1000, 16), jnp.float32),
            "norm": {"scale": jax.ShapeDtypeStruct((3,), jnp.float32)},
            "half": jax.ShapeDtypeStruct((8, 2), jnp.bfloat16),
        }
        places = parallel.shardings(params, params, plan)
        text = account.parameter_table(parallel.abstract(params, places))
        rows = {
            line.split()[1]: line for line in text.splitlines() if len(line.split()) > 1
        }
        cells = lambda name: [c.strip() for c in rows[name].strip("│ ").split("│")]  # noqa: E731
        assert cells("embed") == ["embed", "(1000, 16)", "float32", "data", "8,000"]
        assert cells("norm/scale") == ["norm/scale", "(3,)", "float32", "whole", "12"]
        assert cells("half") == ["half", "(8, 2)", "bfloat16", "data", "4"]
        assert cells("in")[0] == "in all 16,019"
        assert cells("in")[-1] == "8,016"

    def test_a_long_path_stays_on_its_line(self):
        name = "text_encoder/layer11/cross_attention/query/kernel"
        params = {name: jnp.ones((1024, 4096))}
        place = parallel.plan().whole
        text = account.parameter_table(parallel.abstract(params, {name: place}))
        (line,) = [line for line in text.splitlines() if name in line]
        assert "16,777,216" in line


def test_count_and_cost():
    params = {"a": jnp.ones((3, 4)), "b": jnp.ones(())}
    assert account.count(params) == 13
    compiled = jax.jit(lambda x: x @ x).lower(jnp.ones((16, 16))).compile()
    found = account.cost(compiled)
    assert found["flops_per_device"] >= 2 * 16**3
    assert found["argument_bytes_per_device"] == 16 * 16 * 4
    assert found["output_bytes_per_device"] == 16 * 16 * 4


class TestPage:
    def test_of_any_run(self, tmp_path):
        made = open_report(tmp_path)
        for step in (1, 2):
            made.train(step, sums(step), rows=1, lr=0.1, flush=False)
        made.evaluation(2, {"validation/loss": 2.5, "validation/nothing": math.nan})
        made.close()
        files.write_json(tmp_path / "config.json", {"config": {"seed": 12345}})
        html = run_page.write(tmp_path, report.read(tmp_path)).read_text("utf-8")
        assert "<svg" in html
        goodput = "steps: the goodput"
        for text in ("train/loss", "validation/loss", "12345", goodput, "attempt"):
            assert text in html
        assert "validation/nothing" not in html
        record = json.loads((tmp_path / "report.json").read_text("utf-8"))
        assert "12345" in json.dumps(record)

    def test_without_a_record_says_so(self, tmp_path):
        open_report(tmp_path).close()
        with pytest.raises(ConfigError, match=r"has no records yet in metrics\.jsonl"):
            run_page.write(tmp_path, report.read(tmp_path))


class TestFiles:
    def test_replace_leaves_the_old_file_where_writing_fails(
        self, tmp_path, monkeypatch
    ):
        path = tmp_path / "deep" / "a.json"
        files.write_json(path, {"α": [1, None]})
        assert path.read_text("utf-8") == '{\n  "α": [\n    1,\n    null\n  ]\n}\n'

        def broken(*args):
            raise OSError("disk full")

        monkeypatch.setattr(os, "replace", broken)
        with pytest.raises(OSError, match="disk full"):
            files.write_json(path, {})
        assert json.loads(path.read_text("utf-8")) == {"α": [1, None]}

    def test_nan_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="JSON compliant"):
            files.write_json(tmp_path / "a.json", {"a": np.nan})
        assert os.listdir(tmp_path) == []
