"""What a model and its step cost: parameters, bytes and operations."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
import time
from collections.abc import Callable
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from fmjax import offload, parallel
from fmjax.costs import chips, flops
from fmjax.step import pure
from fmjax.transforms import Transformed
from fmjax.trees import paths


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


def compiled_table(found: dict[str, Any]) -> str:
    """What `fmjax.compile.measure` found, to be read."""
    size = lambda n: f"{n / 2**30:.2f} GiB" if n >= 2**27 else f"{n / 2**20:.2f} MiB"  # noqa: E731
    mesh = " x ".join(f"{name} {n}" for name, n in found["mesh"].items())
    table = Table(title=found.get("config", "step"), title_justify="left")
    table.add_column("of one step")
    table.add_column("", justify="right")
    rows = {
        "devices": f"{found['devices']} {found.get('device', 'of no kind')}: {mesh}",
        "parameters": f"{found['parameters']:,}",
        "batch": f"{found['batch_size']:,}",
        "model FLOPs": f"{found['model_flops']:.4g}",
        "state a device": size(found["state_bytes"]),
    }
    if found.get("host_bytes"):
        rows["state on the host, a device"] = size(found["host_bytes"])
    if "fits" in found:
        capacity = found.get("capacity_bytes")
        of = f" of {size(capacity)}" if capacity else ""
        rows["peak memory a device"] = size(found.get("peak_bytes", 0)) + of
        rows["fits"] = "yes" if found["fits"] else "NO"
        rows["compiled in"] = f"{found['compile_seconds']:.1f} s"
    if found.get("fits"):
        for name in ("argument", "temporary", "code"):
            rows[f"  {name}"] = size(found[f"{name}_bytes"])
        rows["FLOPs a device"] = f"{found['flops_per_device']:.4g}"
        rows["of which the model's"] = f"{found['useful']:.1%}"
        rows["HBM traffic a device"] = size(found["hbm_traffic_bytes"])
        kinds = [*found["collectives"].items()]  # the largest first
        for name, row in kinds[:8]:
            rows[f"  {name}"] = f"{size(row['bytes'])} in {row['times']:,}"
        if rest := [row for _, row in kinds[8:]]:
            moved, times = (sum(row[x] for row in rest) for x in ("bytes", "times"))
            rows[f"  and {len(rest)} more"] = f"{size(moved)} in {times:,}"
        if found["loops_of_unknown_length"]:
            names = ", ".join(found["loops_of_unknown_length"])
            rows["loops of unknown length, counted once"] = names
    if "seconds_at_least" in found:
        for name, seconds in found["seconds_at_least"].items():
            rows[f"{name}, at least"] = f"{1e3 * seconds:.2f} ms"
        rows["MFU, at most"] = f"{found['mfu_at_most']:.1%}"
    for name, text in rows.items():
        table.add_row(name, text)
    tables = [table]
    listed = Table(title="largest arrays of the state", title_justify="left")
    for name in ("path", "shape", "dtype", "sharding", "bytes/device"):
        listed.add_column(name, justify="right" if "bytes" in name else "left")
    for row in found["largest_arrays"]:
        listed.add_row(
            row["path"], str(row["shape"]), row["dtype"], row["sharding"],
            size(row["bytes"]),
        )  # fmt: skip
    tables.append(listed)
    if "largest_values" in found:
        title = "largest arrays of the step, of all devices together"
        held = Table(title=title, title_justify="left")
        for name in ("shape", "dtype", "bytes", "so many", "made by"):
            held.add_column(name)
        for row in found["largest_values"]:
            made = ", ".join(row["made by"][:6])
            some = (size(row["bytes"]), str(row["of"]), made)
            held.add_row(str(row["shape"]), row["dtype"], *some)
        tables.append(held)
    if "tried" in found:
        tried = Table(title="would it fit with", title_justify="left")
        for name in ("change, with those above", "peak", "fits"):
            tried.add_column(name)
        for row in found["tried"]:
            peak = size(row["peak_bytes"]) if "peak_bytes" in row else row.get("error")
            fits = {True: "yes", False: "no"}.get(row.get("fits"), "")
            tried.add_row(row["change"], peak, fits)
        tables.append(tried)
    console = Console(width=110)
    with console.capture() as printed:
        for one in tables:
            console.print(one)
    return printed.get()


def compiling(setup: Any) -> tuple[Any, dict[str, float]]:
    """(the compiled step, what it costs); setup: train.Setup."""
    began = time.monotonic()
    batch = parallel.like_batch(setup.sample, setup.plan)
    compiled = parallel.compile_step(setup.step, setup.state, batch, setup.plan)
    found = cost(compiled) | {"compile_seconds": time.monotonic() - began}
    chip = chips.CHIPS.get(setup.plan.mesh.devices.flat[0].device_kind)
    if chip:
        found["model_flops"] = model_flops(setup)
        found["peak_flops"] = chip.flops * setup.plan.mesh.size
    return compiled, found


def model_flops(setup: Any) -> int:
    """Operations of a step of all devices, without those that are done twice."""
    # Also under pmap, whose batches have a dimension more, the step is of whole rows.
    batch = parallel.like_batch(setup.sample, setup.plan._replace(how="jit"))
    return flops.count(plain(setup), setup.state, batch)


def plain(setup: Any) -> Callable:
    """The step of the same model, unguarded, that computes nothing twice."""
    net, bare = setup.parts.net, inspect.unwrap(setup.step)
    if setup.plan.offload:
        places = jax.tree.map(lambda x: x.sharding, setup.state)
        bare = functools.partial(offload.around(bare, places))
    kept = _keeping(net)
    if kept is net and not hasattr(setup.apply, "__wrapped__"):
        return bare
    # Not where attention is a kernel, whose products are not in the jaxpr.
    return functools.partial(bare, apply=pure(kept))


def _keeping(net: Any) -> Any:
    """The net that keeps all that it computes for the way back."""
    if isinstance(net, Transformed):
        kept = _keeping(net.net)
        return net if kept is net.net else dataclasses.replace(net, net=kept)
    if getattr(net, "remat", None) is None or not hasattr(net, "clone"):
        return net
    return net.clone(remat=None)


def dry_run(setup: Any, batch_size: int) -> dict[str, Any]:
    """Prints what a run would cost; its result."""
    found = {"steps": setup.each["all"]} | compiling(setup)[1]
    print(parameter_table(setup.state.params))
    print(json.dumps({"batch_size": batch_size} | found, indent=2))
    return {"status": "dry_run"} | found
