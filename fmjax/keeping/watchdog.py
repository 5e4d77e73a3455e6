"""A watchdog: a run that is stuck, or has lost one of its processes, ends by itself.

Each process writes to the workdir's watch/RANK.json how far it is, from a thread of its
own, and reads what the others write. One that is silent for `guard.peer_seconds` (dead,
stopped, or cut off from the file system) is named, as is every process where no step
has come for `guard.stall_seconds`; the stacks of all threads follow, and this process
ends with exit code 69. It watches from before the first compilation on.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import pathlib
import platform
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import jax

from fmjax import config, files
from fmjax.keeping import guard

EXIT = 69  # EX_UNAVAILABLE of sysexits.h
INTERRUPTED = 130  # of a shell's: 128 and SIGINT's number


class Peers:
    """What the processes of a run say of themselves."""

    def __init__(self, folder: pathlib.Path, rank: int, count: int):
        self.folder, self.rank, self.count = folder, rank, count
        self.ticks, self.began = 0, time.monotonic()
        # By rank: what was read last, and when it was first seen.
        self.seen: dict[int, tuple[dict[str, Any], float]] = {}

    def say(self, step: int | None, ended: str = "") -> None:
        """Tells the others; `ended`: why there will be no more."""
        self.ticks += 1
        mine: dict[str, Any] = {"step": step, "ended": ended, "ticks": self.ticks}
        mine |= {"pid": os.getpid(), "host": platform.node(), "at": time.time()}
        files.write_json(self.folder / f"{self.rank}.json", mine)

    def look(self) -> None:
        """Reads what the others say."""
        for rank in set(range(self.count)) - {self.rank}:
            try:
                said = json.loads((self.folder / f"{rank}.json").read_bytes())
            except (OSError, ValueError):
                continue  # not yet there
            if self.seen.get(rank, ({}, 0))[0] != said:
                self.seen[rank] = said, time.monotonic()

    def silent(self, seconds: float) -> list[str]:
        """Names of processes that have not said anything new for so long."""
        now, found = time.monotonic(), []
        for rank in sorted(set(range(self.count)) - {self.rank}):
            said, when = self.seen.get(rank, ({}, self.began))
            ended = said.get("ended")
            if ended == "done" or (not ended and now - when < seconds):
                continue
            # A file of an earlier run does not count as a word of this one.
            what = f"failed: {ended}" if ended else f"silent for {now - when:.0f} s"
            found.append(f"process {rank} of {self.count}{_where(said)} is {what}")
        return found


def _where(said: dict[str, Any]) -> str:
    if not said:
        return ", which never began,"
    step = (
        "before its first step" if said["step"] is None else f"at step {said['step']}"
    )
    return f" (pid {said['pid']} on {said['host']}, {step})"


@contextlib.contextmanager
def watching(workdir: pathlib.Path, limits: guard.Guard) -> Iterator[Callable]:
    """Within, the run is watched; yields alive(step), to be called every step."""
    count, rank = jax.process_count(), jax.process_index()
    peers = Peers(workdir / "watch", rank, count) if count > 1 else None
    last: dict[str, Any] = {"step": None, "time": time.monotonic()}
    over = threading.Event()
    if peers and not faulthandler.is_enabled():
        # jax aborts by itself where process 0, which leads the others, is gone.
        faulthandler.enable(sys.__stderr__ or sys.stderr)
    tick = max(min(limits.peer_seconds, limits.stall_seconds) / 10, 0.05)

    def problems() -> list[str]:
        found = []
        if peers:
            peers.say(last["step"])
            peers.look()
            found = peers.silent(limits.peer_seconds)
        stalled = time.monotonic() - last["time"]
        if stalled > limits.stall_seconds:
            others = peers.seen.items() if peers else ()
            found.append(
                f"no step for {stalled:.0f} s; process {rank} is at {last['step']}"
                + "".join(f", process {r} at {said['step']}" for r, (said, _) in others)
            )
        return found

    def watch() -> None:
        while not over.wait(tick):
            if found := problems():
                end(rank, found)

    def alive(step: int) -> None:
        last.update(step=step, time=time.monotonic())

    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield alive
    except config.ConfigError:
        raise  # which every process meets alike
    except Exception as error:
        if peers and not isinstance(error, guard.NonFinite):
            _ask_who(peers, limits, error, rank)
        raise
    except KeyboardInterrupt:  # before the loop, which would save and stop
        if peers:  # who, and jax at its end, would wait for this one
            peers.say(last["step"], "interrupted")
            print(f"fmjax: process {rank} interrupted", file=sys.stderr, flush=True)
            os._exit(INTERRUPTED)
        raise
    else:
        if peers:
            peers.say(last["step"], "done")
    finally:
        over.set()
        thread.join()


def _ask_who(peers: Peers, limits: guard.Guard, error: Exception, rank: int) -> None:
    """An error may be another process's end: waits until that can be known."""
    traceback.print_exception(error)
    until = time.monotonic() + 1.2 * limits.peer_seconds
    while time.monotonic() < until:
        peers.look()
        if found := peers.silent(limits.peer_seconds):
            end(rank, found)
        time.sleep(0.1)
    peers.say(None, repr(error)[:300])


def end(rank: int, found: list[str]) -> None:
    """Says what was found, dumps all stacks, and ends this process with 69."""
    print(
        f"fmjax: watchdog of process {rank}: {'; '.join(found)}. Start the run again: "
        "it goes on from the newest checkpoint",
        file=sys.stderr,
        flush=True,
    )
    faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
    os._exit(EXIT)
