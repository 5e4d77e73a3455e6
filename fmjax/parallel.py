"""Devices: the mesh, where each array lives, and how a step is compiled.

`jit` over a named mesh is the default; `pmap` runs the same step with its collectives
written out. Nothing here leaks into models, objectives, data or checkpoints.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fmjax.config import ConfigError, suggest
from fmjax.optim import paths

Rules = str | Sequence[tuple[str, Any]]
PRESETS = ("replicate", "fsdp")


class Plan(NamedTuple):
    """Where a run computes."""

    mesh: Mesh
    how: str  # 'jit' or 'pmap'
    rules: Rules

    @property
    def rows(self) -> NamedSharding:
        """Batches: the leading dimension is cut over the data axis."""
        return NamedSharding(self.mesh, P(self.mesh.axis_names[0]))

    @property
    def whole(self) -> NamedSharding:
        """A copy on every device."""
        return NamedSharding(self.mesh, P())


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
    *,
    mesh: Sequence[tuple[str, int]] = (("data", -1),),
    how: str = "jit",
    params: Rules = "replicate",
    devices: int | None = None,
) -> Plan:
    """The mesh over the first `devices` devices (all by default), and the rules.

    mesh: (axis, size) pairs, one size may be -1; the first axis cuts the batch.
    params: 'replicate', 'fsdp' (each array cut along its largest divisible dimension
    over the first axis), or an ordered table of (regex over the parameter's path,
    partition spec as a tuple). Raises ConfigError where the numbers do not fit.
    """
    there = jax.devices()
    count = len(there) if devices is None else devices
    if not 0 < count <= len(there):
        raise ConfigError(
            f"parallel.devices={count}, but there are {len(there)}; on a CPU set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={count}"
        )
    names, sizes = [name for name, _ in mesh], [int(size) for _, size in mesh]
    known = math.prod(max(size, 0) for size in sizes if size != -1)
    fits = known and count % known == 0 and (-1 in sizes or known == count)
    if not fits or sizes.count(-1) > 1:
        raise ConfigError(
            f"parallel.mesh={tuple(mesh)} does not fit {count} devices: the sizes must "
            f"multiply to {count}, and one of them may be -1"
        )
    sizes = [count // known if size == -1 else size for size in sizes]
    if how not in ("jit", "pmap"):
        raise ConfigError(f"parallel.how={how!r}; {suggest(str(how), ('jit', 'pmap'))}")
    if isinstance(params, str) and params not in PRESETS:
        raise ConfigError(f"parallel.params={params!r}; {suggest(params, PRESETS)}")
    if how == "pmap" and (params != "replicate" or len(sizes) > 1):
        raise ConfigError(
            "pmap keeps whole copies of the parameters on one axis: set "
            "parallel.params=replicate and one mesh axis, or parallel.how=jit"
        )
    axes = (AxisType.Auto,) * len(sizes)
    made = jax.make_mesh(sizes, names, axis_types=axes, devices=there[:count])
    return Plan(made, how, params)


def check_batch(size: int, plan: Plan, accum: int = 1, where: str = "batch_size"):
    """Raises ConfigError where a batch can't be cut over devices and microbatches."""
    if accum < 1:
        raise ConfigError(f"accum={accum}: 1 or more microbatches are needed")
    parts = plan.mesh.shape[plan.mesh.axis_names[0]] * accum
    if size < 1 or size % parts:
        below = max(size // parts, 1)
        near = (below * parts, (below + 1) * parts)
        raise ConfigError(
            f"{where} {size} must divide by {parts // accum} devices x accum {accum}; "
            f"nearest: {', '.join(map(str, near))}"
        )


def _spec(path: str, shape: tuple[int, ...], plan: Plan) -> P:
    """The partition of one parameter; raises ConfigError where it does not fit."""
    first = plan.mesh.axis_names[0]
    if plan.rules == "replicate":
        return P()
    if plan.rules == "fsdp":
        size = plan.mesh.shape[first]
        fits = [(n, -i) for i, n in enumerate(shape) if n % size == 0 and n >= size]
        if not fits or size == 1:
            return P()
        return P(*[None] * -max(fits)[1], first)
    assert not isinstance(plan.rules, str)
    for pattern, axes in plan.rules:
        if re.search(pattern, path):
            for dim, axis in enumerate(axes):
                names = (axis,) if isinstance(axis, str) else axis or ()
                for name in names:
                    if name not in plan.mesh.shape:
                        known = suggest(name, plan.mesh.shape)
                        raise ConfigError(
                            f"rule {pattern!r}: no mesh axis {name!r}; {known}"
                        )
                parts = math.prod(plan.mesh.shape[name] for name in names)
                if dim >= len(shape) or shape[dim] % parts:
                    raise ConfigError(
                        f"rule {pattern!r}: {path} of shape {shape} can't be cut in "
                        f"{parts} along dimension {dim}; mesh {dict(plan.mesh.shape)}"
                    )
            return P(*axes)
    raise ConfigError(
        f"no rule of parallel.params matches {path} of shape {shape}; end the table "
        f"with ('.*', ()) to keep the rest whole"
    )


def shardings(tree: Any, params: Any, plan: Plan) -> Any:
    """A tree of shardings like `tree`, a state that holds `params` (or their shapes).

    An optimizer's array whose path ends in a parameter's path and has its shape lives
    where that parameter lives; everything else is whole on every device.
    """
    where = {
        path: (leaf.shape, _spec(path, leaf.shape, plan))
        for path, leaf in zip(paths(params), jax.tree.leaves(params), strict=True)
    }
    if not isinstance(plan.rules, str):
        for pattern, _ in plan.rules:
            if pattern != ".*" and not any(re.search(pattern, path) for path in where):
                raise ConfigError(
                    f"rule {pattern!r} of parallel.params matches nothing"
                )

    def place(path, leaf):
        steps = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        for i in range(len(steps)):
            shape, spec = where.get("/".join(steps[i:]), ((), None))
            if spec is not None and shape == leaf.shape:
                return NamedSharding(plan.mesh, spec)
        return plan.whole

    return jax.tree_util.tree_map_with_path(place, tree)


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
    place = functools.partial(jax.make_array_from_process_local_data, plan.rows)
    return jax.tree.map(place, batch)


def like_batch(local: Any, plan: Plan) -> Any:
    """The shapes of what `put` makes from arrays of these shapes."""

    def shape(x):
        whole = (x.shape[0] * jax.process_count(), *x.shape[1:])
        if plan.how == "pmap":
            whole = (plan.mesh.size, whole[0] // plan.mesh.size, *whole[1:])
        return jax.ShapeDtypeStruct(whole, x.dtype, sharding=plan.rows)

    return jax.tree.map(shape, local)


def compile_step(step: Callable, state: Any, batch: Any, plan: Plan):
    """Compiles step(state, batch) -> (state, sums) ahead of time; donates the state.

    state: shapes with shardings; batch: what `put` makes, or its shapes. Under pmap the
    step is given `axis`, the name of the mapped axis.
    """
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
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(places, plan.whole))
    return jitted.lower(state, batch).compile()


def gather(tree: Any) -> Any:
    """Host copies of arrays that are cut over the devices of several processes."""
    if jax.process_count() > 1:
        tree = multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(np.asarray, jax.device_get(tree))
