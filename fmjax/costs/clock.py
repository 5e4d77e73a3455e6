"""Where a run's wall time goes: every second is of one kind, over all its attempts.

Kept in the workdir's attempts.jsonl, a line each time that the loop begins. What an
attempt did after its last record, where it was killed, is not known, nor how long
nobody ran it; all else is counted.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from fmjax import files

# "start": restoring, and all before the first step that is not compiling. "lost": steps
# that were done again from an older checkpoint.
KINDS = ("steps", "input", "evaluate", "checkpoint", "compile", "start", "lost")
PERCENTILES = (50, 90, 99)


class Clock:
    """Seconds by kind since it was made; `mark` says what the last ones were for."""

    def __init__(self, workdir: str | pathlib.Path):
        self.path = pathlib.Path(workdir) / "attempts.jsonl"
        self.last = time.monotonic()
        self.spent = dict.fromkeys(KINDS, 0.0)
        self.before: list[dict[str, Any]] | None = None
        self.cost: Mapping[str, Any] = {}
        self.began, self.lapped = 0, (0.0, 0.0)
        self.laps: list[tuple[float, float]] = []

    def mark(self, kind: str) -> None:
        """All since the last mark was for this."""
        now = time.monotonic()
        self.spent[kind] += now - self.last
        self.last = now

    @contextlib.contextmanager
    def spending(self, kind: str, ready: Any) -> Iterator[None]:
        """What is done inside is for this. ready: arrays that the device still makes,
        which is waited for and counts as a step.
        """
        jax.block_until_ready(ready)
        self.mark("steps")
        yield
        self.mark(kind)

    def open(self, step: int, cost: Mapping[str, Any]) -> None:
        """The loop begins at a step, for the first time or again after a rollback.

        cost: what `account.compiling` found. What was done past the step is lost.
        """
        self.mark("start")
        if self.before is not None:
            self.spent = dict.fromkeys(KINDS, 0.0)
        self.before = lose(read(self.path), step)
        self.began, self.cost = step, cost
        self.laps, self.lapped = [], (0.0, 0.0)

    def lap(self) -> None:
        """A step's numbers are here: it is over."""
        self.mark("steps")
        waited = self.spent["input"]
        so_far = (self.spent["steps"] + waited, waited)
        self.laps.append((so_far[0] - self.lapped[0], so_far[1] - self.lapped[1]))
        self.lapped = so_far

    def record(self, rows: int) -> dict[str, float]:
        """Speeds over the laps since the last record, of steps of so many examples.

        Evaluations and checkpoints do not count. Names that end alike are one figure of
        a report. mfu: model FLOPs by the peak of all devices (Chowdhery et al. 2022,
        appendix B), where a device's is known.
        """
        seconds, waited = (
            max(sum(part), 1e-9) for part in zip(*self.laps, strict=True)
        )
        times = np.percentile([lap for lap, _ in self.laps], PERCENTILES)
        found = {
            "examples_per_second": len(self.laps) * rows / seconds,
            "input_wait": waited / seconds,
        }
        for part, value in zip(PERCENTILES, times.tolist(), strict=True):
            found[f"p{part}/step_seconds"] = value
        if peak := self.cost.get("peak_flops"):
            done = len(self.laps) * self.cost["model_flops"]
            found["mfu"] = done / seconds / peak
        self.laps = []
        return found

    def save(self, step: int) -> None:
        """Writes this attempt, which has come to a step, after the earlier ones."""
        line = {"from": self.began, "to": step, "ended": time.time()}
        lines = [*(self.before or []), line | {"seconds": self.spent}]
        files.replace(self.path, "".join(json.dumps(line) + "\n" for line in lines))


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The attempts of a run; of one without the file, none."""
    text = path.read_text("utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def lose(attempts: Iterable[Mapping[str, Any]], step: int) -> list[dict[str, Any]]:
    """The attempts, where the next one begins at `step`: what is past it was lost."""
    found = []
    for line in attempts:
        seconds, done = dict(line["seconds"]), line["to"] - line["from"]
        if over := max(line["to"] - max(step, line["from"]), 0):
            for kind in ("steps", "input"):
                lost = seconds[kind] * over / done
                seconds[kind] -= lost
                seconds["lost"] += lost
        to = line["to"] - over
        found.append({**line, "from": min(line["from"], to), "to": to})
        found[-1]["seconds"] = seconds
    return found


def shares(attempts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Seconds and share of each kind over all attempts; "steps" is the goodput."""
    attempts = list(attempts)
    total = {kind: sum(x["seconds"][kind] for x in attempts) for kind in KINDS}
    wall = max(sum(total.values()), 1e-9)
    return [
        {"kind": kind, "seconds": seconds, "share": seconds / wall}
        for kind, seconds in total.items()
    ]
