"""What a model and its step cost: parameters, bytes and operations."""

from __future__ import annotations

import math
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from fmjax.optim import paths


def parameter_table(params: Any) -> str:
    """Path, shape, dtype, sharding and bytes on one device, for every parameter.

    params: arrays, or shapes with shardings.
    """
    table = Table(title="parameters", title_justify="left")
    for name in ("path", "shape", "dtype", "sharding", "bytes/device"):
        table.add_column(name, justify="right" if "bytes" in name else "left")
    count = size = 0
    for path, leaf in zip(paths(params), jax.tree.leaves(params), strict=True):
        local = math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        count, size = count + math.prod(leaf.shape), size + local
        spec = ", ".join(map(str, leaf.sharding.spec)) or "whole"
        table.add_row(path, str(leaf.shape), str(leaf.dtype), spec, f"{local:,}")
    table.add_row(f"in all {count:,}", "", "", "", f"{size:,}", style="bold")
    console = Console(width=110)
    with console.capture() as text:
        console.print(table)
    return text.get()


def count(params: Any) -> int:
    """The number of values in all parameters."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def cost(compiled: Any) -> dict[str, float]:
    """FLOPs and bytes a step on one device, as the compiler counts them."""
    analysis, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    found = {"flops_per_device": float(analysis.get("flops", math.nan))}
    for name in ("argument", "output", "temp"):
        size = getattr(memory, f"{name}_size_in_bytes", math.nan)
        found[f"{name}_bytes_per_device"] = float(size)
    return found
