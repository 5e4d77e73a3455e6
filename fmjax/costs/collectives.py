"""Collectives of a compiled program: which devices, and mesh axes, they run among."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-broadcast",
    "collective-permute",
)

Groups = tuple[tuple[int, ...], ...]


class Collective(NamedTuple):
    """Data that devices give to each other."""

    kind: str
    name: str
    bytes: int  # of the whole array of a group: gathered, to be summed or exchanged
    groups: Groups | None  # None: written in a way not known here
    times: int


def groups(text: str) -> Groups | None:
    """The devices, by their places in the mesh, that a collective runs among.

    Reads the ways in which HLO writes replica_groups, and source_target_pairs as groups
    of two; None for another. An empty group is all devices.
    """
    if pairs := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", text):
        found = re.findall(r"\{(\d+),(\d+)\}", pairs[1])
        return tuple((int(a), int(b)) for a, b in found if a != b)
    if listed := re.search(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}", text):
        rows = re.findall(r"\{([\d,]*)\}", listed[1]) or [""]
        return tuple(tuple(int(n) for n in row.split(",") if n) for row in rows)
    order = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"
    if iota := re.search(rf"replica_groups=\[([\d,]+)\]<={order}", text):
        return _rows(_iota(iota[2], iota[3]).reshape(_numbers(iota[1])))
    named = re.search(
        rf"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\({order}\))? \{{([^}}]*)\}}",
        text,
    )
    axis = r"'\w+'"
    if not named or not re.fullmatch(rf"{axis}(,{axis})*", named[4]):
        return None  # a part of an axis, or something later than this
    sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", named[1])}
    chosen = re.findall(r"'(\w+)'", named[4])
    dims = list(sizes.values())
    ids = _iota(named[2], named[3]) if named[2] else np.arange(math.prod(dims))
    last = [list(sizes).index(name) for name in chosen]
    first = [i for i in range(len(dims)) if i not in last]
    width = math.prod(dims[i] for i in last)
    return _rows(ids.reshape(dims).transpose(first + last).reshape(-1, width))


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


def _iota(dims: str, order: str | None) -> np.ndarray:
    shape = _numbers(dims)
    ids = np.arange(math.prod(shape)).reshape(shape)
    return ids.transpose(_numbers(order)) if order else ids


def _rows(ids: np.ndarray) -> Groups:
    return tuple(tuple(row) for row in ids.tolist())


def axes_of(found: Groups | None, mesh: Mapping[str, int]) -> tuple[str, ...] | None:
    """The mesh axes along which devices of one group differ; None: not known.

    mesh: sizes by name, in order; a device's number is its place in the mesh.
    """
    if found is None:
        return None
    if found == ((),):
        return tuple(name for name, size in mesh.items() if size > 1)
    differ: set[int] = set()
    for group in found:
        at = np.array(np.unravel_index(np.array(group), tuple(mesh.values())))
        differ |= set(np.flatnonzero((at != at[:, :1]).any(1)).tolist())
    return tuple(name for i, name in enumerate(mesh) if i in differ)


def largest(found: Groups | None, devices: int) -> int:
    """How many devices are in a collective's largest group."""
    return max((len(group) or devices for group in found or ((),)), default=1)
