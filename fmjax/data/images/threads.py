"""Inputs that are worth several threads: decoding and resizing hold no Python lock."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Inputs = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Threaded:
    """Inputs for `Batches` to call on so many threads."""

    inputs: Inputs
    threads: int

    def __call__(self, row: Any, rng: Any) -> dict[str, Any]:
        return self.inputs(row, rng)


def threaded(inputs: Inputs, threads: int) -> Inputs:
    """`inputs` on `threads` threads. Raises ValueError for a number below 1."""
    if threads < 1:
        raise ValueError(f"inputs.threads={threads}: 1 or more")
    return inputs if threads == 1 else Threaded(inputs, threads)
