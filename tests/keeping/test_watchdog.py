"""A dead, stopped or stuck process ends the others, which say which it was."""

import signal
import subprocess
import sys
import time

import jax
import pytest

from fmjax import report
from fmjax.keeping import guard, watchdog
from tests.runs import ROOT
from tests.test_processes import finish, start_pair

STUCK = """
import pathlib, sys, time
from fmjax.keeping import guard, watchdog
limits = guard.Guard(stall_seconds=1.0)
with watchdog.watching(pathlib.Path(sys.argv[1]), limits) as alive:
    for step in range(int(sys.argv[2])):
        alive(step)
    def waits_for_ever():
        time.sleep(600)
    waits_for_ever()
"""


@pytest.mark.parametrize(("steps", "where"), [("0", "None"), ("5", "4")])
def test_a_run_that_is_stuck_ends_with_its_stacks(tmp_path, steps, where):
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", STUCK, str(tmp_path), steps],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == watchdog.EXIT == 69
    assert f"no step for 1 s; process 0 is at {where}" in done.stderr
    assert "in waits_for_ever" in done.stderr
    assert time.monotonic() - began < 100


class TestPeers:
    def peers(self, tmp_path):
        return [watchdog.Peers(tmp_path / "watch", rank, 2) for rank in range(2)]

    def test_one_that_speaks_is_not_silent(self, tmp_path):
        one, two = self.peers(tmp_path)
        for step in range(3):
            two.say(step)
            one.look()
            assert one.silent(0.2) == []
            time.sleep(0.1)
        time.sleep(0.2)
        two.say(3)
        one.look()
        assert one.silent(0.2) == [], "however long it took"

    def test_one_that_does_not_is_named(self, tmp_path):
        one, two = self.peers(tmp_path)
        two.say(7)
        one.look()
        time.sleep(0.15)
        one.look()
        (said,) = one.silent(0.1)
        assert said.startswith("process 1 of 2 (pid ")
        assert "at step 7) is silent for" in said

    def test_one_that_never_began(self, tmp_path):
        one, _ = self.peers(tmp_path)
        time.sleep(0.15)
        one.look()
        (said,) = one.silent(0.1)
        assert said.startswith("process 1 of 2, which never began, is silent")

    def test_one_that_ended(self, tmp_path):
        one, two = self.peers(tmp_path)
        two.say(7, "done")
        one.look()
        time.sleep(0.1)
        assert one.silent(0.05) == []
        two.say(8, "ValueError('no')")
        one.look()
        (said,) = one.silent(60)
        assert said.endswith("at step 8) is failed: ValueError('no')")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
@pytest.mark.parametrize("when", ["before the first step", "later"])
@pytest.mark.parametrize("hurt", [0, 1])
def test_of_two_processes_one_is_lost(tmp_path, how, when, hurt):
    flags = ("--config.steps=100000", "--config.guard.peer_seconds=10.0")
    pair = start_pair(tmp_path / "w", *flags)
    sign = {"later": "metrics.jsonl", "before the first step": f"watch/{hurt}.json"}
    try:
        deadline = time.monotonic() + 200
        while not (tmp_path / "w" / sign[when]).exists() or (
            when == "later" and len(report.read(tmp_path / "w")) < 20
        ):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pair[hurt].send_signal(getattr(signal, how))
        began = time.monotonic()
        code, _, err = finish(pair[1 - hurt])
        took = time.monotonic() - began
    finally:
        for process in pair:
            process.kill()
            finish(process)
    assert took < 60
    assert "most recent call first" in err
    if hurt == 0 and code == -signal.SIGABRT:
        assert "the leader" in err  # jax ends what has lost process 0 by itself
        return
    assert code == 69, err
    assert f"process {hurt} of 2 (pid {pair[hurt].pid}" in err


def test_an_interrupt_before_the_loop_is_told_to_the_others(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(watchdog.os, "_exit", sys.exit)
    # Which would end these tests too.
    either = pytest.raises((SystemExit, KeyboardInterrupt))
    with either as ended, watchdog.watching(tmp_path, guard.Guard()):
        raise KeyboardInterrupt
    assert ended.value.args == (130,)
    assert "process 1 interrupted" in capsys.readouterr().err
    other = watchdog.Peers(tmp_path / "watch", 0, 2)
    other.look()
    (said,) = other.silent(60)
    assert said.endswith("before its first step) is failed: interrupted")


def test_the_limits_are_settings():
    assert guard.settings({"peer_seconds": 5.0}).peer_seconds == 5
