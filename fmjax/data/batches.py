"""Batches by step: `at(step)` is a pure function of the step, on any number of hosts.

There is no iterator state. Position p of the endless, reshuffled stream of examples is
row p of a grain MapDataset; step s of a run takes positions s * B to s * B + B - 1, and
host h of H the h-th contiguous H-th part of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grain
import jax
import numpy as np

Row = dict[str, Any]
_PAIRS = zlib.crc32(b"pairs")  # names a stream of random numbers


class Numbered:
    """Each of `rows` with its number, which goes with it wherever it is dealt."""

    def __init__(self, rows: Any):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, Row]:
        return index, self.rows[index]


class Batches:
    """Batches of `size` examples over all hosts, shuffled anew each epoch."""

    def __init__(
        self,
        rows: Any,
        inputs: Callable[[Row, np.random.Generator | None], Row],
        size: int,
        *,
        seed: int | None,
        host: int = 0,
        hosts: int = 1,
    ):
        """rows: a random-access source; inputs: row -> fixed-shape arrays.

        seed None keeps the order and gives `inputs` no generator (evaluation). Where
        `inputs` has a method `pair(a, b, generator)` (mixup), neighbours at positions
        2p and 2p + 1 go through it in training; where it has a number `threads`, so
        many examples are made at a time. No batch depends on that number.
        Raises ValueError for an empty source and a size that hosts can't share.
        """
        if len(rows) == 0:
            raise ValueError("the data set has no examples in this split")
        if size % hosts:
            raise ValueError(f"batch size {size} must divide by {hosts} hosts")
        self.examples, self.size = len(rows), size
        self.local, self.first = size // hosts, host * (size // hosts)
        self.inputs, self.rows, self.seed = inputs, rows, seed
        self.pair = getattr(inputs, "pair", None) if seed is not None else None
        if self.pair is not None and self.local % 2:
            raise ValueError(
                f"batch size {size} on {hosts} hosts leaves {self.local} examples a "
                "host: they are mixed in pairs (mixup, cutmix), so it must be even"
            )
        threads = getattr(inputs, "threads", 1)
        self.map: Callable[..., Any] = map
        if threads > 1:
            self.map = ThreadPoolExecutor(threads, thread_name_prefix="example").map
        if seed is not None:
            data = grain.MapDataset.source(Numbered(rows)).seed(seed).shuffle().repeat()
            self.stream = data.random_map(
                lambda row, rng: (row[0], inputs(row[1], rng))
            )

    def example(self, position: int) -> Row:
        """The example at a position of the stream (training) or a row (evaluation)."""
        return self._numbered(position)[1]

    def _numbered(self, position: int) -> tuple[int, Row]:
        if self.seed is None:
            return position, self.inputs(self.rows[position], None)
        return self.stream[position]

    def at(self, step: int) -> Row:
        """This host's part of a step's batch; `mask` is 0 for padding, float32 [b].

        Past the end of an evaluation set stand copies of row 0, masked.
        """
        return self.numbered(step)[1]

    def numbered(self, step: int) -> tuple[list[int], Row]:
        """(the numbers of its rows in the source, `at(step)`)."""
        start = step * self.size + self.first
        here = range(start, start + self.local)
        end = self.examples if self.seed is None else start + self.local
        known = list(self.map(self._numbered, (p if p < end else 0 for p in here)))
        rows, found = map(list, zip(*known, strict=True))
        if self.pair is not None and self.seed is not None:
            for i in range(0, len(found), 2):
                rng = np.random.default_rng([self.seed, _PAIRS, here[i] // 2])
                found[i : i + 2] = self.pair(found[i], found[i + 1], rng)
        batch = jax.tree.map(lambda *leaves: np.stack(leaves), *found)
        mask = np.array([p < end for p in here], np.float32)
        return rows, batch | {"mask": mask}

    def __len__(self) -> int:
        """Batches in one pass, the ragged last one included."""
        return -(-self.examples // self.size)


def ahead(
    at: Callable[[int], Any], start: int, stop: int, depth: int = 2
) -> Generator[Any, None, None]:
    """at(start), ..., at(stop - 1), each computed up to `depth` ahead on a thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="input") as pool:
        coming = [pool.submit(at, s) for s in range(start, min(start + depth, stop))]
        try:
            for step in range(start, stop):
                value = coming.pop(0).result()
                if step + depth < stop:
                    coming.append(pool.submit(at, step + depth))
                yield value
        finally:
            for future in coming:
                future.cancel()
