"""Real processes: signals, exit codes, and two processes that make one run."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from fmjax import cli, report, train
from tests import runs

CONFIG = f"{runs.ROOT}/configs/cnn/fashion_mnist.py:tiny"


def command(workdir, *flags, devices=1):
    """(argv, environment) of a training process with its own simulated devices."""
    environment = os.environ | {
        "XLA_FLAGS": runs.flags(devices),
        "PYTHONPATH": str(runs.ROOT),
    }
    argv = [sys.executable, "-m", "fmjax.train", "--config", CONFIG]
    argv += ["--workdir", str(workdir), "--config.log.every=1", *flags]
    return argv, environment


def start(workdir, *flags, devices=1, **variables):
    argv, environment = command(workdir, *flags, devices=devices)
    return subprocess.Popen(
        argv,
        env=environment | variables,
        cwd=workdir.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_pair(workdir, *flags, devices=1):
    """Two processes that make one run."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    many = ("--coordinator", f"localhost:{port}", "--processes", "2")
    return [
        start(workdir, *flags, *many, "--process", str(i), devices=devices)
        for i in range(2)
    ]


def finish(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.mark.parametrize(
    "name", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_exits_75_and_the_same_command_goes_on(tmp_path, name):
    # Saved seldom: what is there to go on from is what the signal saved.
    long = ("--config.steps=300", "--config.evaluate=None")
    long += ("--config.checkpoint.every=250 steps",)
    process = start(tmp_path / "a", *long)
    lines = tmp_path / "a" / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not (lines.exists() and lines.read_text().count("\n") > 20):
        assert process.poll() is None, finish(process)[2]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(getattr(signal, name))
    code, out, err = finish(process)
    assert code == 75, err
    said = json.loads(out)
    assert said["status"] == "stopped"
    steps = [line["step"] for line in report.read(tmp_path / "a")]
    assert steps == list(range(1, said["step"] + 1))
    assert (tmp_path / "a" / "checkpoints" / str(said["step"])).is_dir()

    code, out, err = finish(start(tmp_path / "a", *long))
    assert code == 0, err
    assert f"from step {said['step']}" in err
    assert json.loads(out)["step"] == 300
    steps = [line["step"] for line in report.read(tmp_path / "a") if "lr" in line]
    assert steps == list(range(1, 301))


def test_sigterm_before_a_step_exits_75_at_once(tmp_path):
    """No program is in the cache, and to compile them takes longer than to end."""
    few = ("--config.steps=2", "--config.evaluate=None")
    empty = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    process = start(tmp_path / "a", *few, **empty)
    deadline = time.monotonic() + 200
    while not (tmp_path / "a" / "config.json").exists():
        assert process.poll() is None, finish(process)[2]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    code, out, err = finish(process)
    assert (code, out) == (75, "")
    assert "stopped before a step" in err
    code, _, err = finish(start(tmp_path / "a", *few))
    assert code == 0, err
    assert ", new" in err


@pytest.mark.parametrize(
    "params", [pytest.param("replicate", marks=pytest.mark.slow), "fsdp"]
)
def test_two_processes_are_one_run(tmp_path, params):
    flags = (f"--config.parallel.params={params}", "--config.steps=6")
    pair = start_pair(tmp_path / "two", *flags, devices=2)
    for code, _, err in map(finish, pair):
        assert code == 0, err
    code, _, err = finish(start(tmp_path / "one", *flags, devices=4))
    assert code == 0, err
    one, two = (report.read(tmp_path / name) for name in ("one", "two"))
    for name in ("train/loss", "validation/loss", "validation/count"):
        values = [[x[name] for x in lines if name in x] for lines in (one, two)]
        assert len(values[0]) == len(values[1]) > 0
        np.testing.assert_allclose(values[1], values[0], rtol=1e-6)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "told"),
    [
        pytest.param("SIGTERM", [0], marks=SLOW),
        pytest.param("SIGTERM", [1], marks=SLOW),
        pytest.param("SIGTERM", [0, 1], marks=SLOW),
        pytest.param("SIGINT", [0], marks=SLOW),
        ("SIGINT", [1]),
        pytest.param("SIGINT", [0, 1], marks=SLOW),
        pytest.param("SIGINT", [1, 1, 0, 0], marks=SLOW),  # an impatient user
        pytest.param("SIGTERM", [1, 1, 0, 0], marks=SLOW),
    ],
)
def test_a_signal_to_one_of_two_processes_stops_both_at_one_step(tmp_path, name, told):
    long = ("--config.steps=100000", "--config.evaluate=None")
    long += ("--config.checkpoint.every=50000 steps",)
    pair = start_pair(tmp_path / "a", *long)
    try:
        deadline = time.monotonic() + 200
        lines = tmp_path / "a" / "metrics.jsonl"
        while not (lines.exists() and lines.read_text().count("\n") > 20):
            assert [one.poll() for one in pair] == [None, None], finish(pair[1])[2]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for rank in told:
            pair[rank].send_signal(getattr(signal, name))
        ended = [finish(one) for one in pair]
    finally:
        for one in pair:
            one.kill()
    assert [code for code, _, _ in ended] == [75, 75], ended
    # Gloo speaks on the same stream.
    results = [json.loads(out.splitlines()[-1]) for _, out, _ in ended]
    assert [one["status"] for one in results] == ["stopped", "stopped"]
    step = results[0]["step"]
    assert results[1]["step"] == step < 100000
    assert [x["step"] for x in report.read(tmp_path / "a")] == [*range(1, step + 1)]
    assert (tmp_path / "a" / "checkpoints" / str(step)).is_dir()


def test_a_wrong_setting_ends_a_process_with_2_and_no_traceback(tmp_path):
    code, _, err = finish(start(tmp_path / "a", "--config.optim.lrr=1", devices=8))
    assert code == 2
    assert "did you mean 'lr'?" in err
    assert "Traceback" not in err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("flag", "remedy"),
    [
        ("--config.optim.lrr=1", "did you mean 'lr'?"),
        ("--config.model.name=cn", "did you mean 'cnn'?"),
        ("--config.data.name=sythetic_images", "did you mean 'synthetic_images'?"),
        ("--config.steps=3 parsecs", "'7 epochs'"),
        ("--config.batch_sise=3", "did you mean 'batch_size'?"),
        ("--config.parallel.devices=3", "nearest: 15, 18"),
        ("--config.parallel.devices=2.5", "devices=2.5: a whole number is needed"),
        ("--config.parallel.devices=two", "devices='two': a whole number is needed"),
        ("--config.model.classes=7", "10 classes"),
        ("--config.evaluate.metric=validation/los", "did you mean 'validation/loss'?"),
        ("--config.data.shape=(2,2,1)", "use fewer channels"),
        ("--config.accum=0", "1 or more microbatches"),
        ("--config.optim.freeze=[", "is no pattern"),
        ("--config.steps=0", "no step at all"),
    ],
)
def test_a_wrong_setting_fails_at_start_with_the_remedy(tmp_path, flag, remedy, capsys):
    words = ["--config", CONFIG, "--workdir", str(tmp_path / "a"), flag]
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: train.main(words))
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert remedy in err
    assert "Traceback" not in err
    assert not (tmp_path / "a").exists()
