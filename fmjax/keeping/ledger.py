"""A ledger of rows: which of the training set each step was really given.

Kept where `log.ledger` is set. Each process writes ledger/RANK.jsonl, a line a step:
{"step": 1, "rows": [17, 4]}, the numbers that came with the rows out of the source, in
the batch's order. What was written of steps that a killed run does again is taken back,
as in metrics.jsonl: each step stands there once.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from fmjax import files


class Ledger:
    """The ledger of this process; does nothing unless it is asked for."""

    def __init__(self, workdir: pathlib.Path, on: bool, start: int):
        """start: the steps that are done, where the run goes on."""
        self.file: Any = None
        if not on:
            return
        room, rank = workdir / "ledger", jax.process_index()
        mine = room / f"{rank}.jsonl"
        # Of a run that had more processes, the first one sees to the others' too.
        left = [p for p in room.glob("*.jsonl") if int(p.stem) >= jax.process_count()]
        for path in {mine, *(left if rank == 0 else ())}:
            kept = [line for line in _lines(path) if line["step"] <= start]
            files.replace(path, "".join(json.dumps(line) + "\n" for line in kept))
        self.file = mine.open("a", encoding="utf-8")

    def note(self, step: int, rows: Sequence[int]) -> None:
        """Writes what a step (from 1) was given; a kill of the process spares it."""
        if self.file:
            self.file.write(json.dumps({"step": step, "rows": list(rows)}) + "\n")
            self.file.flush()

    def close(self) -> None:
        if self.file:
            self.file.close()


def _lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """A file's lines, but for a last one that a kill cut short."""
    if not path.exists():
        return []
    text = path.read_text("utf-8")
    return [json.loads(line) for line in text.splitlines(True) if line.endswith("\n")]


def read(workdir: str | pathlib.Path) -> dict[int, list[int]]:
    """The row numbers of every step, over all processes, in the batch's order."""
    found: dict[int, list[int]] = {}
    paths = pathlib.Path(workdir, "ledger").glob("*.jsonl")
    for path in sorted(paths, key=lambda path: int(path.stem)):
        for line in _lines(path):
            found.setdefault(line["step"], []).extend(line["rows"])
    return found
