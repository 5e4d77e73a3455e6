"""Several data sets as one, mixed by rates or by temperature."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fmjax.data import cache
from fmjax.data.source import Row, Source, check_split, read


def load(
    split: str,
    *,
    tasks: Mapping[str, Mapping[str, Any]],
    temperature: float = 1.0,
    limit: int | None = None,
    rates: Mapping[str, float] | None = None,
    size: int | None = None,
) -> Source:
    """Rows of every task's source, each with its `task`; a row is f of its index.

    tasks: name -> a source, {'name': ..., and its fields}.
    rates: each task's share, relative to the others'; None: n ** (1 / temperature) for
        a task of n rows, counted as `limit` at most (Raffel et al. 2020, section
        3.5.2): temperature 1 is proportional, a great one makes all equal.
    size: rows of the training split, in which each task has its share, its own rows
        taken in order, and again from the first after the last; None: so many that
        every row of every task is there at least once.
    Validation and test have all rows of all tasks once, one task after the other.
    classes are 'task/class'. Raises ValueError for rates that don't name the tasks, and
    numbers that have no meaning.
    """
    check_split(split)
    if not tasks or any("/" in name for name in tasks):
        raise ValueError(f"tasks={sorted(tasks)}: one or more, without / in a name")
    if temperature <= 0 or (limit or 1) < 1 or (size or 1) < 1:
        raise ValueError(
            f"temperature={temperature}, limit={limit}, size={size}: above 0"
        )
    found = {name: read(spec, split) for name, spec in tasks.items()}
    lengths = np.array([len(one.rows) for one in found.values()])
    if split == "train":
        own = _shares(list(tasks), lengths, temperature, limit, rates)
        whole = size or int(np.ceil((lengths / own).max() - 1e-9))
        counts = apportion(own, whole)
    else:
        counts = lengths
    facts: dict[str, Any] = {
        "name": "mixture",
        "split": split,
        "rows": int(counts.sum()),
        "counts": dict(zip(tasks, counts.tolist(), strict=True)),
        "tasks": {name: one.facts for name, one in found.items()},
    }
    prints = [str(one.facts.get("fingerprint")) for one in found.values()]
    facts["fingerprint"] = cache.digest("mixture", 1, *tasks, *counts.tolist(), *prints)
    classes = tuple(f"{name}/{c}" for name, one in found.items() for c in one.classes)
    rows = Mixed(tuple(tasks), [one.rows for one in found.values()], counts.tolist())
    return Source(rows, classes, facts)


def _shares(
    names: Sequence[str],
    lengths: np.ndarray,
    temperature: float,
    limit: int | None,
    rates: Mapping[str, float] | None,
) -> np.ndarray:
    if rates is None:
        counted = np.minimum(lengths, limit or lengths.max()).astype(np.float64)
        found = counted ** (1 / temperature)
    else:
        if set(rates) != set(names) or min(rates.values()) <= 0:
            raise ValueError(
                f"rates={dict(rates)}: a number above 0 for each of {', '.join(names)}"
            )
        found = np.array([rates[name] for name in names], np.float64)
    return found / found.sum()


def apportion(shares: np.ndarray, whole: int) -> np.ndarray:
    """Whole numbers in these shares that add up to `whole`: the largest remainders."""
    exact = shares * whole
    counts = np.floor(exact + 1e-9).astype(np.int64)
    order = np.argsort(counts - exact, kind="stable")
    counts[order[: whole - counts.sum()]] += 1
    return counts


@dataclass(frozen=True)
class Mixed:
    """`counts[k]` rows of task k, one task after the other, to be shuffled."""

    names: tuple[str, ...]
    rows: list[Any]
    counts: list[int]

    def __len__(self) -> int:
        return sum(self.counts)

    def __getitem__(self, index: int) -> Row:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self):,}")
        index %= len(self)
        ends = np.cumsum(self.counts)
        k = int(np.searchsorted(ends, index, side="right"))
        place = index - int(ends[k]) + self.counts[k]
        row = self.rows[k][place % len(self.rows[k])]
        return {**row, "task": self.names[k]}
