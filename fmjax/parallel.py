"""Devices: joining them, how a step is compiled for them, and being told to stop.

`jit` over a named mesh is the default; `pmap` runs the same step with its collectives
written out. Nothing here leaks into models, objectives, data or checkpoints.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from fmjax import bits, sharding
from fmjax import offload as offloads
from fmjax.config import ConfigError, suggest
from fmjax.sharding import Plan, Rules
from fmjax.sharding import shardings as shardings


def start(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Joins the other processes of a run; does nothing for a run of one process.

    With no arguments a cluster that jax recognises (Cloud TPU pods, SLURM, ...) is
    joined when FMJAX_DISTRIBUTED=1. One process opens no socket.
    """
    if coordinator:
        if processes < 1 or not 0 <= process < processes:
            raise ConfigError(
                f"--coordinator needs --processes N and --process 0..N-1, "
                f"not {processes} and {process}"
            )
        if jax.config.jax_platforms == "cpu":  # type: ignore[attr-defined]
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(coordinator, processes, process)
    elif os.environ.get("FMJAX_DISTRIBUTED") == "1":
        jax.distributed.initialize()


def plan(
    there: Sequence | int | None = None,
    *,
    mesh: Sequence[tuple[str, int]] = (("data", -1),),
    how: str = "jit",
    params: Rules = "replicate",
    devices: int | None = None,
    slices: int = 1,
    determinism: str | None = None,
    shards: int = 8,
    offload: str | None = None,
) -> Plan:
    """The mesh over the first `devices` of those `there` (all by default), and rules.

    mesh: (axis, size) pairs, one size may be -1, and slices: as in `sharding.mesh`.
    params: 'replicate', 'fsdp' (each array cut along its largest divisible dimension
    over the axis 'fsdp', or the first), 'tensor' (a transformer's heads, MLPs and
    vocabulary cut over 'model'), 'fsdp+tensor', or an ordered table of (regex over the
    parameter's path, partition spec as a tuple). there: None for this machine's; a
    number for so many that are nowhere, in an abstract mesh. determinism: 'bits' gives
    the same bits on any number of devices that divides `shards` (fmjax.bits). offload:
    'optimizer' keeps the optimizer's arrays in the hosts' memory, from where they come
    for each update. Raises ConfigError where the numbers do not fit.
    """
    sharding.check(params, mesh, devices=devices, slices=slices, shards=shards)
    if determinism == "bits":
        bits.threads(shards)
    there = jax.devices() if there is None else there
    found = list(range(there)) if isinstance(there, int) else list(there)
    count = len(found) if devices is None else devices
    if count > len(found):
        raise ConfigError(
            f"parallel.devices={count}, but there are {len(found)}; on a CPU set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={count}"
        )
    if how not in ("jit", "pmap"):
        raise ConfigError(f"parallel.how={how!r}; {suggest(str(how), ('jit', 'pmap'))}")
    made = Plan(sharding.mesh(mesh, found[:count], slices), how, params)
    if how == "pmap" and (params != "replicate" or len(mesh) > 1 or not made.cut):
        raise ConfigError(
            "pmap keeps whole copies of the parameters on one axis: set "
            "parallel.params=replicate and one mesh axis, or parallel.how=jit"
        )
    if offload is not None:
        made = offloads.check(made, offload, determinism)
    if determinism is not None:
        made = bits.check(made, determinism, shards)
    if made.parts % jax.process_count():
        raise ConfigError(
            f"parallel.mesh={tuple(mesh)} cuts a batch in {made.parts}, which "
            f"{jax.process_count()} processes can't share: each reads rows of its own"
        )
    return made


def check_batch(size: int, plan: Plan, accum: int = 1, where: str = "batch_size"):
    """Raises ConfigError where a batch can't be cut over devices and microbatches."""
    if accum < 1:
        raise ConfigError(f"accum={accum}: 1 or more microbatches are needed")
    cut = max(plan.parts, plan.shards)
    parts = cut * accum
    if size < 1 or size % parts:
        below = max(size // parts, 1)
        near = (below * parts, (below + 1) * parts)
        what = "shards" if plan.shards else "devices"
        raise ConfigError(
            f"{where} {size} must divide by {cut} {what} x accum {accum}; "
            f"nearest: {', '.join(map(str, near))}"
        )


def abstract(tree: Any, shardings: Any) -> Any:
    """Shapes, dtypes and shardings, with nothing allocated."""
    shape = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)  # noqa: E731
    if isinstance(shardings, NamedSharding):
        return jax.tree.map(lambda x: shape(x, shardings), tree)
    return jax.tree.map(shape, tree, shardings)


def put(batch: Any, plan: Plan) -> Any:
    """This process's rows of a batch, as one global array over all devices."""
    if plan.how == "pmap":
        local = plan.mesh.size // jax.process_count()
        batch = jax.tree.map(lambda x: x.reshape(local, -1, *x.shape[1:]), batch)
    places = sharding.of_batch(batch, plan)
    return jax.tree.map(jax.make_array_from_process_local_data, places, batch)


def like_batch(local: Any, plan: Plan) -> Any:
    """The shapes of what `put` makes from arrays of these shapes."""

    def shape(x, place):
        whole = (x.shape[0] * jax.process_count(), *x.shape[1:])
        if plan.how == "pmap":
            whole = (plan.mesh.size, whole[0] // plan.mesh.size, *whole[1:])
        return jax.ShapeDtypeStruct(whole, x.dtype, sharding=place)

    return jax.tree.map(shape, local, sharding.of_batch(local, plan))


def compile_step(step: Any, state: Any, batch: Any, plan: Plan, donate: bool = True):
    """Compiles step(state, batch) -> (state, sums) ahead of time; donates the state.

    state: shapes with shardings; batch: what `put` makes, or its shapes. Under pmap the
    step is given `axis`, the name of the mapped axis.
    """
    if plan.shards:
        return bits.Compiled(step, state, batch, plan)
    if plan.how == "pmap":
        axis = plan.mesh.axis_names[0]
        # Each device would have its own, and the first one's be kept; but statistics
        # of the whole batch are the same everywhere.
        if own := sorted(set(state.extras) - {"batch_stats"}):
            raise ConfigError(
                f"pmap can't carry {', '.join(own)}: set parallel.how=jit"
            )
        mapped = jax.pmap(
            functools.partial(step, axis=axis),
            axis_name=axis,
            in_axes=(None, 0),
            out_axes=None,
            devices=plan.mesh.devices.ravel().tolist(),
            donate_argnums=0,
        )
        return mapped.lower(state, batch).compile()
    places = jax.tree.map(lambda x: x.sharding, state)
    given = 0 if donate else ()
    jitted = jax.jit(step, donate_argnums=given, out_shardings=(places, plan.whole))
    return jitted.lower(state, batch).compile()


def gather(tree: Any) -> Any:
    """Host copies of arrays that are cut over the devices of several processes."""
    if jax.process_count() > 1:
        tree = multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(np.asarray, jax.device_get(tree))
