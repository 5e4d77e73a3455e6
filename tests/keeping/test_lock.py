"""A workdir has one run at a time."""

import json
import signal
import subprocess
import sys

import pytest

from fmjax.config import ConfigError
from fmjax.keeping import lock
from tests.runs import ROOT

HOLD = """
import pathlib, sys
from fmjax.keeping import lock
with lock.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_is_refused_and_a_dead_ones_lock_is_taken_over(tmp_path, capsys):
    workdir = tmp_path / "w"
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workdir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with first:
        assert first.stdout.readline() == "held\n"
        with (
            pytest.raises(ConfigError, match="is in use by") as error,
            lock.held(workdir),
        ):
            raise AssertionError("two runs on one workdir")
        assert f"process {first.pid} on " in str(error.value)
        assert json.loads((workdir / "lock").read_text())["pid"] == first.pid
        first.send_signal(signal.SIGKILL)
    with lock.held(workdir):
        assert f"was left by process {first.pid} on " in capsys.readouterr().err
    with lock.held(workdir):
        assert capsys.readouterr().err == "", "a run that ended leaves nothing"


def test_an_error_releases_it(tmp_path):
    with pytest.raises(ZeroDivisionError), lock.held(tmp_path):
        raise ZeroDivisionError
    assert (tmp_path / "lock").read_text() == ""
