"""Files appear whole or not at all, once, whoever asks."""

import multiprocessing

import pytest

from fmjax.data import cache


def test_once_makes_a_file_one_time(home):
    calls = []

    def make(path):
        calls.append(path)
        path.write_text("whole")

    target = home / "a" / "file"
    assert cache.once(target, make).read_text() == "whole"
    assert cache.once(target, make).read_text() == "whole"
    assert len(calls) == 1
    assert calls[0] != target


def test_once_leaves_nothing_behind_on_failure(home):
    def make(path):
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.once(home / "file", make)
    assert [p.name for p in home.iterdir()] == [".file.lock"]


def _slow(path):
    import time

    time.sleep(0.2)
    with open(path.parent.parent / "calls", "a") as file:
        file.write("x")
    path.write_text("whole")


def _ask(target):
    cache.once(target, _slow)


def test_once_is_made_once_among_processes(home):
    context = multiprocessing.get_context("spawn")
    jobs = [context.Process(target=_ask, args=(home / "file",)) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(30)
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    assert (home / "calls").read_text() == "x"


def test_digest_sees_every_part_and_their_borders():
    assert cache.digest("a", "bc") != cache.digest("ab", "c")
    assert cache.digest({"a": 1, "b": 2}) == cache.digest({"b": 2, "a": 1})
