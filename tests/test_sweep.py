"""Sweeps: ranges, what is chosen, pruning, kills and resumption, workers."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from fmjax import sweep
from fmjax.config import ConfigError
from fmjax.reporting import figures
from fmjax.search import ranges, study
from tests import runs

optuna = pytest.importorskip("optuna")
CONFIG = f"{runs.ROOT}/configs/cnn/fashion_mnist.py:tiny"


class TestRanges:
    @pytest.mark.parametrize(
        ("text", "want"),
        [
            ("log:1e-5:1e-3", ("log", (1e-5, 1e-3))),
            ("uniform:0:0.3", ("uniform", (0, 0.3))),
            ("int:2:12", ("int", (2, 12))),
            ("int_log:8:512", ("int_log", (8, 512))),
            ("2,4,6", ("choice", (2, 4, 6))),
            ("(2, 4)", ("choice", (2, 4))),
            ("adamw,lion", ("choice", ("adamw", "lion"))),
            ("none,0.5", ("choice", (None, 0.5))),
            ("('log', 1, 2)", ("log", (1, 2))),
        ],
    )
    def test_flags(self, text, want):
        assert ranges.from_text("a.b", text) == ranges.Range(*want)

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            (3, "the range of a.b is 3"),
            ((), "the range of a.b is"),
            ((2,), "needs two values or more"),
            ((2, 2), "none twice"),
            ((1, True), "equal values of unlike types"),
            (("log", 0, 1), "'log' from 0.0 to 1.0; it needs 0 < low < high"),
            (("uniform", 2, 1), "'uniform' from 2.0 to 1.0; it needs low < high"),
            (("int", 1.5, 3), "'int' needs two whole numbers"),
            (("log", 1e-5), "'log' needs two numbers"),
        ],
    )
    def test_a_wrong_one_is_named(self, spec, message):
        with pytest.raises(ConfigError) as error:
            ranges.parse("a.b", spec)
        assert message in str(error.value)
        assert "a.b" in str(error.value)

    def test_an_unknown_kind_is_named(self):
        with pytest.raises(
            ConfigError, match=r"a\.b: no kind 'lg'; did you mean 'log'"
        ):
            ranges.from_text("a.b", "lg:1:2")

    def test_a_config_file_has_its_own_and_flags_win(self, tmp_path):
        file = tmp_path / "c.py"
        file.write_text(
            "def get_sweep(arg=''):\n"
            "  return {'optim.lr': ('log', 1e-5, 1e-3), 'model.depth': (2, len(arg))}\n"
        )
        found = ranges.collect(f"{file}:tiny", {"model.depth": "7,8"})
        assert found["model.depth"].values == (7, 8)
        assert found["optim.lr"].values == (1e-5, 1e-3)
        assert ranges.collect(f"{file}:tiny", {})["model.depth"].values == (2, 4)
        assert list(ranges.collect(str(file), {}, ["model.depth"])) == ["optim.lr"]
        with pytest.raises(ConfigError, match="both set and searched"):
            ranges.collect(str(file), {"optim.lr": "1,2"}, ["optim.lr"])
        file.write_text("")
        with pytest.raises(ConfigError, match="nothing to search"):
            ranges.collect(str(file), {})

    def test_what_is_chosen_is_within_and_is_what_was_written(self):
        known = optuna.create_study(sampler=study.sampler("random", 0, 0, False))
        values = ((1, 2), None, "x", 0.5)
        space = {
            "a": ranges.Range("log", (1e-5, 1e-3)),
            "b": ranges.Range("int", (2, 4)),
            "c": ranges.Range("choice", values),
        }
        seen = set()
        for _ in range(40):
            trial = known.ask()
            chosen = {key: one.suggest(trial, key) for key, one in space.items()}
            assert 1e-5 <= chosen["a"] <= 1e-3
            assert chosen["b"] in (2, 3, 4)
            seen.add(chosen["c"])
        assert seen == set(values)


class TestExamine:
    """A wrong key or range fails at start and is named."""

    @pytest.mark.parametrize(
        ("flag", "message"),
        [
            ({"optim.lrr": "1,2"}, "searching optim.lrr=1: unknown setting"),
            ({"modle.dense": "1,2"}, "searching modle.dense=1: unknown setting modle"),
            ({"batch_size": "16,-3"}, "searching batch_size=-3: "),
            (
                {"optim.name": "adam,adamm"},
                "searching optim.name='adamm': no optimizer",
            ),
            (
                {"batch_size": "uniform:8:16"},
                "searching batch_size=8.0: --config.batch_size=8.0: takes a int",
            ),
        ],
    )
    def test_names_it(self, flag, message):
        space = ranges.collect(CONFIG, flag)
        with pytest.raises(ConfigError) as error:
            sweep.examine(CONFIG, {}, space)
        assert message in str(error.value)
        assert next(iter(flag)) in str(error.value)

    def test_tells_what_is_watched(self):
        space = {"optim.lr": ranges.Range("log", (1e-4, 1e-2))}
        found = sweep.examine(CONFIG, {"evaluate.every": "2 steps"}, space)
        assert found["metric"] == "validation/loss"
        assert found["higher"] is False
        assert found["evaluations"] == 3
        assert found["settings"]["optim"]["name"] == "adam"


def test_a_shipped_config_says_what_to_search():
    path = f"{runs.ROOT}/configs/bert/sentiment.py:tiny"
    space = ranges.collect(path, {})
    assert set(space) == {"optim.lr", "batch_size", "model.dropout"}
    assert sweep.examine(path, {}, space)["metric"] == "validation/loss"


def test_the_figure_has_a_panel_for_each_field():
    search = {
        "lr": ["log", [1e-4, 1e-1]],
        "name": ["choice", ["adam", None]],
        "depth": ["int", [2, 9]],
    }
    rows = [
        {"trial": i, "value": v, "params": {"lr": 1e-3, "name": n, "depth": 2 + i}}
        for i, (v, n) in enumerate([(0.5, "adam"), (0.25, None), (None, "adam")])
    ]
    whole = {"search": search, "trials": rows, "metric": "validation/loss"}
    for higher, best in ((False, 1), (True, 0)):
        assert study.best(rows, higher) == rows[best]
        svg = study.figure(whole | {"higher": higher, "best": rows[best]})
        for text in ("trial", "lr", "depth", ">adam<", ">None<", "validation/loss"):
            assert text in svg
        filled = f"fill: {figures.PALETTE[1].lower()}"
        assert svg.count(filled) == 4, "the best, in each panel"


# Trains nothing, but keeps to what a run does: it writes its evaluations a line each,
# saves and exits with 75 when told to stop, and goes on where it was. With `heard` it
# waits until the sweep has each of them: on a busy machine it would be done before.
TRAINER = """
import contextlib, json, math, os, pathlib, signal, sqlite3, sys, time
flags = dict(word.removeprefix("--config.").split("=") for word in sys.argv[1:]
             if "=" in word)
folder = pathlib.Path(sys.argv[sys.argv.index("--workdir") + 1])
lr, slow = float(flags["optim.lr"]), float(flags["slow"])
heard = flags["heard"] == "True"
database = f"file:{folder.parent.parent / 'study.db'}?mode=ro"
known = (
    "SELECT COUNT(*) FROM trial_intermediate_values v JOIN trials t "
    "ON v.trial_id = t.trial_id WHERE t.number = ?"
)
def count():
    with contextlib.closing(sqlite3.connect(database, uri=True)) as reader:
        return reader.execute(known, (int(folder.name),)).fetchone()[0]
came, parent = [], os.getppid()
signal.signal(signal.SIGTERM, lambda *_: came.append(1))
(folder / "starts").open("a").write(f"{os.getpid()} {lr}\\n")
if lr > 0.05:
    print("it burst", flush=True)
    sys.exit(1)
saved, path = folder / "saved", folder / "metrics.jsonl"
done = int(saved.read_text()) if saved.exists() else 0
for number in range(done + 1, 7):
    for _ in range(10):
        time.sleep(slow / 10)
        if came:
            sys.exit(75)
    value = (math.log10(lr) + 3) ** 2 + 1 / number
    with path.open("a") as file:
        file.write(json.dumps({"step": number, "validation/loss": value}) + "\\n")
    saved.write_text(str(number))
    while heard and not came and count() < number and os.getppid() == parent:
        time.sleep(0.02)
time.sleep(slow)
if came:
    sys.exit(75)
(folder / "result.json").write_text(json.dumps({"best": value}))
"""
DRIVER = """
import pathlib, sys
from fmjax import cli, sweep
sweep.TRAIN = (sys.executable, {trainer!r})
sweep.POLL = 0.02
known = {{"settings": {{}}, "metric": "validation/loss", "higher": False}}
known["evaluations"] = 6
search = {{"optim.lr": ["log", [1e-5, 1e-1]]}}
sweep.record = lambda path, overrides, space, choose: dict(
    choose, config=path, overrides=overrides, search=search, **known)
cli.run(lambda: sweep.main(sys.argv[1:]))
"""


@pytest.fixture
def trials(tmp_path):
    """start(study, *flags) -> a process that sweeps the stand-in of a run."""
    (tmp_path / "trainer.py").write_text(TRAINER)
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER.format(trainer=str(tmp_path / "trainer.py")))

    def start(name, *flags, slow=0.03, heard=False):
        words = ["--config", CONFIG, "--study", str(tmp_path / name), *flags]
        words += ["--search.optim.lr=log:1e-5:1e-1", f"--config.slow={slow}"]
        words += [f"--config.heard={heard}"]
        process = subprocess.Popen(
            [sys.executable, str(driver), *words],
            env=os.environ | {"PYTHONPATH": str(runs.ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        return process

    begun = []
    yield start
    for process in begun:
        if process.poll() is None:
            process.kill()
            process.communicate()


def finish(process):
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def values(folder):
    whole = json.loads((folder / "study.json").read_text())
    return [(t["trial"], t["state"], t["params"], t["value"]) for t in whole["trials"]]


def until(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline
        time.sleep(0.01)


def starts(folder, number):
    """[(pid, lr), ...], one each time that a trial's process began."""
    lines = (folder / "trials" / str(number) / "starts").read_text().splitlines()
    return [(int(line.split()[0]), float(line.split()[1])) for line in lines]


def evaluated(folder, number):
    path = folder / "trials" / str(number) / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def test_a_study_that_was_killed_in_every_way_is_the_one_that_was_not(trials, tmp_path):
    flags = ("--trials", "5", "--pruner", "none", "--seed", "7")
    straight = trials("straight", *flags)
    cut, slow = tmp_path / "cut", 0.4

    # The sweep alone is killed; its child goes on, and is found by the next.
    process = trials("cut", *flags, slow=slow)
    until(lambda: evaluated(cut, 0) >= 2, process)
    process.kill()
    finish(process)
    process = trials("cut", *flags, slow=slow)
    until(lambda: evaluated(cut, 1) >= 2, process)
    assert len(starts(cut, 0)) == 1
    # Asked to stop: it stops its trial, and says so.
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert code == 75, err
    before = evaluated(cut, 1)
    assert 2 <= before < 6
    # Both are killed.
    process = trials("cut", *flags, slow=slow)
    until(lambda: evaluated(cut, 1) > before, process)
    process.kill()
    finish(process)
    os.kill(starts(cut, 1)[-1][0], signal.SIGKILL)
    process = trials("cut", *flags)
    code, out, err = finish(process)
    assert code == 0, err
    assert len(starts(cut, 1)) == 3

    code, _, err = finish(straight)
    assert code == 0, err
    assert values(cut) == values(tmp_path / "straight")
    assert [number for number, *_ in values(cut)] == [0, 1, 2, 3, 4]
    assert len({str(params) for _, _, params, _ in values(cut)}) == 5
    for number, state, params, value in values(cut):
        assert {lr for _, lr in starts(cut, number)} == {params["optim.lr"]}
        if state == "complete":
            lines = (cut / "trials" / str(number) / "metrics.jsonl").read_text()
            steps = [json.loads(line)["step"] for line in lines.splitlines()]
            assert steps == [1, 2, 3, 4, 5, 6]
            assert value == json.loads(lines.splitlines()[-1])["validation/loss"]
    # Done: the same command says so and starts nothing; the table is there to see.
    assert sweep.show(cut) == out


def test_workers_prune_and_failures_are_told(trials, tmp_path):
    flags = ("--trials", "14", "--workers", "3", "--sampler", "random", "--seed", "5")
    process = trials("many", *flags, heard=True)
    many = tmp_path / "many"
    until(lambda: evaluated(many, 0) >= 1, process)
    second = trials("many", *flags, heard=True)
    code, _, err = finish(second)
    assert code == 2
    assert f"another sweep is running in {many}" in err
    code, out, err = finish(process)
    assert code == 0, err
    whole = json.loads((many / "study.json").read_text())
    found = whole["trials"]
    assert [trial["trial"] for trial in found] == list(range(14))
    assert sum(whole["counts"].values()) == 14
    states = {trial["state"] for trial in found}
    assert states == {"complete", "pruned", "fail"}
    for trial in found:
        assert len(starts(many, trial["trial"])) == 1
        lr = trial["params"]["optim.lr"]
        assert (trial["state"] == "fail") == (lr > 0.05)
        if trial["state"] == "fail":
            assert trial["reason"] == "it burst"
        if trial["state"] == "pruned":
            assert 0 < len(trial["evaluations"]) <= 6
    done = [trial for trial in found if trial["state"] == "complete"]
    assert whole["best"] == min(done, key=lambda trial: trial["value"])
    assert all(len(trial["evaluations"]) == 6 for trial in done)
    svg = (many / "study.svg").read_text()
    assert svg.startswith("<svg")
    assert "optim.lr" in svg
    assert out.splitlines()[0].strip() == "validation/loss, best first"
    # Another study in the same folder is refused, with what differs.
    code, _, err = finish(trials("many", *flags[:-1], "6", heard=True))
    assert code == 2
    assert "seed: 5 there, 6 now" in err


@pytest.mark.parametrize("name", study.PRUNERS)
def test_pruners_are_optunas(name):
    found = type(study.pruner(name, 6)).__name__.lower()
    assert found.startswith("nop" if name == "none" else name)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: study.pruner("medien", 1), "did you mean 'median'"),
        (lambda: study.sampler("tpa", 0, 0, False), "did you mean 'tpe'"),
        (lambda: sweep.show("no/study"), "no/study is no study"),
        (lambda: sweep.sweep("no.py", "x", trials=1), "no config file 'no.py'"),
        (lambda: sweep.sweep(CONFIG, "x", trials=0), "--trials=0"),
        (lambda: sweep.sweep(CONFIG, "x", trials=1), "nothing to search"),
    ],
)
def test_what_is_wrong_is_said_at_start(call, message):
    with pytest.raises(ConfigError) as error:
        call()
    assert message in str(error.value)


def test_devices_are_dealt_out_to_workers(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    shares = [sweep.environment(i, 2)["CUDA_VISIBLE_DEVICES"] for i in range(2)]
    assert shares == ["0,2", "1,3"]
    assert sweep.environment(0, 1)["CUDA_VISIBLE_DEVICES"] == "0,1,2,3"


def test_a_real_sweep_of_real_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XLA_FLAGS", runs.flags(1))
    monkeypatch.setenv("PYTHONPATH", str(runs.ROOT))
    folder = tmp_path / "study"
    flags = ["--config", CONFIG, "--study", str(folder), "--workers", "2"]
    flags += ["--search.optim.lr=log:1e-4:1e-1", "--search.optim.name=adam,sgd"]
    flags += ["--config.steps=4", "--config.evaluate.every=2"]
    assert sweep.main([*flags, "--trials", "2"]) == 0
    whole = json.loads((folder / "study.json").read_text())
    assert whole["counts"] == {"complete": 2}
    for trial in whole["trials"]:
        workdir = folder / trial["folder"]
        settings = json.loads((workdir / "config.json").read_text())["config"]
        for key, value in trial["params"].items():
            assert settings["optim"][key.removeprefix("optim.")] == value
        assert settings["steps"] == 4
        assert trial["evaluations"] == runs.losses(workdir, "validation/loss")
        assert trial["value"] == min(trial["evaluations"])
    assert capsys.readouterr().out.count("complete") == 2


@pytest.mark.slow
def test_a_real_run_that_does_worse_than_most_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", runs.flags(1))
    monkeypatch.setenv("PYTHONPATH", str(runs.ROOT))
    folder = tmp_path / "study"
    flags = ["--config", CONFIG, "--study", str(folder), "--sampler", "random"]
    flags += ["--search.optim.lr=log:1e-9:1e-2", "--trials", "8", "--seed", "1"]
    # Long enough to be stopped on the way.
    flags += ["--config.steps=100", "--config.evaluate.every=5"]
    flags += ["--config.evaluate.patience=none", "--config.log.every=50"]
    assert sweep.main(flags) == 0
    trials = json.loads((folder / "study.json").read_text())["trials"]
    done = [trial for trial in trials if trial["state"] == "complete"]
    stopped = [trial for trial in trials if trial["state"] == "pruned"]
    assert len(done) + len(stopped) == 8
    assert stopped, "of random rates some are far too low"
    assert all(trial["trial"] >= 5 for trial in stopped)
    for trial in done:
        assert len(trial["evaluations"]) == 20
    for trial in stopped:
        workdir = folder / trial["folder"]
        assert not (workdir / "result.json").exists()
        seen = runs.losses(workdir, "validation/loss")
        assert 0 < len(seen) < 20
        told = trial["evaluations"]
        assert told == seen[: len(told)]
        # The best so far is worse than the median of those before it.
        before = [x for x in done if x["trial"] < trial["trial"]]
        known = sorted(x["evaluations"][len(told) - 1] for x in before)
        assert min(told) > known[(len(known) - 1) // 2]
