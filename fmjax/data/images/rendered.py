"""Rows that take long to make, made once into arrays in the cache."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.data import cache
from fmjax.data.source import Row


@dataclass(frozen=True)
class Rendered:
    """Rows by index from arrays [N, ...], mapped into memory, and JSON values."""

    arrays: dict[str, np.ndarray]
    values: list[Row]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self):,}")
        held = {name: np.array(array[index]) for name, array in self.arrays.items()}
        return held | self.values[index]


def once(rows: Any, fingerprint: str) -> Rendered:
    """`rows`, made now if no run before has made rows of this fingerprint.

    Arrays must have the same shape in every row; other values are JSON's.
    """
    target = cache.once(
        cache.home() / "images" / f"rows-{fingerprint[:24]}",
        functools.partial(_render, rows),
    )
    note = json.loads((target / "rows.json").read_text("utf-8"))
    arrays = {n: np.load(target / f"{n}.npy", mmap_mode="r") for n in note["arrays"]}
    return Rendered(arrays, note["values"])


def _render(rows: Any, target: Path) -> None:
    target.mkdir()
    arrays: dict[str, np.memmap] = {}
    values = []
    for index in range(len(rows)):
        row = rows[index]
        for name in [n for n, v in row.items() if isinstance(v, np.ndarray)]:
            value = row.pop(name)
            if index == 0:
                arrays[name] = np.lib.format.open_memmap(
                    target / f"{name}.npy",
                    mode="w+",
                    dtype=value.dtype,
                    shape=(len(rows), *value.shape),
                )
            arrays[name][index] = value
        values.append(row)
    for array in arrays.values():
        array.flush()
    note = {"arrays": list(arrays), "values": values}
    (target / "rows.json").write_text(json.dumps(note, ensure_ascii=False))
