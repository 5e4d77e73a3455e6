"""What chips can do, by their makers, and the shortest a step can take on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from fmjax.costs.collectives import Collective


class Chip(NamedTuple):
    """One device of a kind: per second, and bytes."""

    name: str
    flops: float  # bfloat16
    capacity: int  # of HBM
    hbm: float  # bytes a second
    ici: float  # bytes a second out of a chip, over all its links
    dcn: float  # bytes a second out of a chip's share of its host's network


# Google Cloud's pages of each (published peak, HBM, HBM bandwidth, and a half of the
# interconnect's bandwidth, which is of both directions); dcn: Austin et al. 2025, "How
# to scale your model". A v4 chip shows as two devices to a topology, each with a half.
CHIPS: dict[str, Chip] = {
    "TPU v4": Chip("v4", 275e12 / 2, 16 * 2**30, 1228e9 / 2, 150e9 / 2, 3.125e9),
    "TPU v5 lite": Chip("v5e", 197e12, 16 * 2**30, 819e9, 100e9, 3.125e9),
    "TPU v5": Chip("v5p", 459e12, 95 * 2**30, 2765e9, 300e9, 6.25e9),
    "TPU v6 lite": Chip("v6e", 918e12, 32 * 2**30, 1640e9, 224e9, 12.5e9),
}


def sent(collective: Collective, devices: int, slices: int = 1) -> tuple[float, float]:
    """(bytes over the links within a slice, and between slices) that a device sends.

    Once, by the best known algorithms: a ring gathers or scatters an array of B bytes
    over n devices with B (n - 1) / n, a sum is both (Thakur et al. 2005). A group over
    slices does the part within each slice first. devices: in all, of equal slices,
    numbered slice by slice.
    """
    group = max(collective.groups or ((),), key=len) or tuple(range(devices))
    per_slice = devices // slices
    over = len({device // per_slice for device in group})
    within = len(group) // over
    if collective.kind == "collective-permute":
        crossing = any(a // per_slice != b // per_slice for a, b in _pairs(collective))
        size = float(collective.bytes)
        return (0.0, size) if crossing else (size, 0.0)
    times = 2 if collective.kind == "all-reduce" else 1
    near = times * collective.bytes * (within - 1) / within
    far = times * collective.bytes / within * (over - 1) / over
    return near, far


def _pairs(collective: Collective) -> list[tuple[int, int]]:
    return [(group[0], group[-1]) for group in collective.groups or ()]


def roofline(
    chip: Chip,
    flops: float,
    moved: float,
    collectives: Iterable[Collective],
    devices: int,
    slices: int = 1,
) -> dict[str, float]:
    """Seconds that a step takes at least: for its operations, for HBM, for networks.

    Each at its published peak and all at the same time, so `step`, the longest, is a
    bound and no forecast. flops, moved: of one device.
    """
    near = far = 0.0
    for one in collectives:
        ici, dcn = sent(one, devices, slices)
        near, far = near + one.times * ici, far + one.times * dcn
    found = {
        "compute": flops / chip.flops,
        "hbm": moved / chip.hbm,
        "ici": near / chip.ici,
        "dcn": far / chip.dcn,
    }
    return found | {"step": max(found.values())}


def by_axis(
    collectives: Iterable[Collective], axes: Mapping[str, str]
) -> dict[str, dict[str, int]]:
    """Bytes and number of collectives, by 'kind over axes'; axes: by name of each."""
    table: dict[str, dict[str, int]] = {}
    for one in collectives:
        row = table.setdefault(f"{one.kind} over {axes[one.name]}", {})
        row["bytes"] = row.get("bytes", 0) + one.bytes * one.times
        row["times"] = row.get("times", 0) + one.times
    return dict(sorted(table.items(), key=lambda item: -item[1]["bytes"]))
