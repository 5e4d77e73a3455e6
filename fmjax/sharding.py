"""Where each array of a run lives: the mesh, the rows of a batch, rules by parameter.

Mesh axes by name: 'data' and 'fsdp' cut the rows of a batch (where a mesh has neither,
its first axis does), 'model' the parameters (tensor parallelism), 'sequence' the tokens
of each row. Models name no axis: their activations follow from what is said here.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fmjax.config import ConfigError, suggest
from fmjax.trees import paths

Rules = str | Sequence[tuple[str, Any]]
PRESETS = ("replicate", "fsdp", "tensor", "fsdp+tensor")
HOST = "pinned_host"  # the kind of memory that a device reaches without its processor

# Tensor parallelism (Shoeybi et al. 2019, section 3): heads and the MLP's width are cut
# on the way in, and on the way out each device has a part of a sum. (pattern, the first
# of these partitions that divides); what matches none is whole.
TENSOR: tuple[tuple[str, tuple[tuple, ...]], ...] = (
    # Blocks of every family: bert, clip, gpt, mae, t5, transformer, vit.
    (r"attention/(query|key|value)/kernel$", ((None, "model"),)),
    (r"attention/(query|key|value)/bias$", (("model",),)),
    (r"attention/out/kernel$", (("model", None),)),
    (r"mlp/(up|gate)/kernel$", ((None, "model"),)),
    (r"mlp/(up|gate)/bias$", (("model",),)),
    (r"mlp/down/kernel$", (("model", None),)),
    # Vocabularies: bert, clip and gpt; t5 and transformer; their output maps.
    (r"(^|/)(tokens|embed)/embedding$", (("model", None), (None, "model"))),
    (r"^head/kernel$", ((None, "model"), ("model", None))),
    (r"^(mlm/)?bias$", (("model",), ())),
    # t5: relative position biases, a column a head.
    (r"coder_bias/embedding$", ((None, "model"), ())),
)


class Plan(NamedTuple):
    """Where a run computes."""

    mesh: Any  # a Mesh, or an AbstractMesh of devices that are nowhere
    how: str  # 'jit' or 'pmap'
    rules: Rules
    shards: int = 0  # logical ones of the deterministic mode (fmjax.bits); 0: it is off
    offload: str | None = None  # 'optimizer': its arrays are in the hosts' memory

    @property
    def cut(self) -> tuple[str, ...]:
        """The mesh axes that cut the rows of a batch."""
        names = self.mesh.axis_names
        found = tuple(name for name in names if name in ("data", "fsdp"))
        return found or tuple(n for n in names[:1] if n not in ("model", "sequence"))

    @property
    def parts(self) -> int:
        """In how many parts the rows of a batch are cut."""
        return math.prod(self.mesh.shape[name] for name in self.cut)

    @property
    def rows(self) -> NamedSharding:
        """Batches: the leading dimension is cut over the axes of `cut`."""
        return NamedSharding(self.mesh, P(self.cut) if self.cut else P())

    @property
    def whole(self) -> NamedSharding:
        """A copy on every device."""
        return NamedSharding(self.mesh, P())


def mesh(axes: Sequence[tuple[str, int]], devices: Sequence, slices: int = 1) -> Any:
    """A mesh of (axis, size) pairs over `devices`; one size may be -1.

    slices: parts of the machine with a slower network between them, over which the
    first axis is cut; within a slice all axes keep to its fast links. Devices that tell
    no slice, as a CPU's, are cut into so many runs. Numbers instead of devices give an
    abstract mesh. Raises ConfigError where the sizes do not fit.
    """
    count = len(devices)
    names, sizes = [name for name, _ in axes], [int(size) for _, size in axes]
    known = math.prod(max(size, 0) for size in sizes if size != -1)
    fits = known and count % known == 0 and (-1 in sizes or known == count)
    if not fits or sizes.count(-1) > 1:
        raise ConfigError(
            f"parallel.mesh={tuple(axes)} does not fit {count} devices: the sizes must "
            f"multiply to {count}, and one of them may be -1"
        )
    sizes = [count // known if size == -1 else size for size in sizes]
    types = (AxisType.Auto,) * len(sizes)
    there = {getattr(device, "slice_index", None) for device in devices}
    if slices < 1 or sizes[0] % slices or len(there) not in (1, slices):
        told = "" if there == {None} else f" of {len(there)} slices"
        raise ConfigError(
            f"parallel.slices={slices}: the first mesh axis, {names[0]!r} of size "
            f"{sizes[0]}, is cut over the slices of {count} devices{told}"
        )
    if isinstance(devices[0], int):
        return AbstractMesh(tuple(sizes), tuple(names), axis_types=types)
    if len(there) == 1 and slices > 1:
        return Mesh(np.asarray(devices).reshape(sizes), names, axis_types=types)
    within = (sizes[0] // slices, *sizes[1:])
    between = (slices, *[1] * (len(sizes) - 1))
    try:
        if len(there) == 1:
            return jax.make_mesh(sizes, names, axis_types=types, devices=devices)
        made = mesh_utils.create_hybrid_device_mesh(within, between, devices)
    except (NotImplementedError, AssertionError) as error:  # a TPU's links are a torus
        why = str(error).split(". ")[0][:200]
        raise ConfigError(
            f"parallel.mesh={tuple(axes)} can't be laid over these {count} devices: "
            f"each axis takes up whole sides of the slice. jax says: {why}"
        ) from error
    return Mesh(made, names, axis_types=types)


def check(rules: Rules, axes: Sequence[tuple[str, int]], **numbers: Any) -> None:
    """Raises ConfigError for a mesh or a table of rules that is none, for a preset
    that is unknown, for one whose axis is not there, and for `numbers` below 1.

    numbers: of parallel.*, by name; `devices` may be None, for all.
    """
    for name, value in numbers.items():
        every = ", or None for all there are" if name == "devices" else ""
        if every and value is None:
            continue
        if type(value) is not int or value < 1:
            raise ConfigError(
                f"parallel.{name}={value!r}: a whole number is needed, 1 or more{every}"
            )
    listed = axes if isinstance(axes, tuple | list) else []
    pairs = [x for x in listed if isinstance(x, tuple | list) and len(x) == 2]
    pairs = [(a, n) for a, n in pairs if isinstance(a, str) and type(n) is int]
    names = [name for name, _ in pairs]
    if not 0 < len(listed) == len(pairs) == len(set(names)):
        raise ConfigError(
            f"parallel.mesh={axes!r}: (axis, size) pairs with names of their own and "
            "whole sizes are needed, as (('data', -1),) or (('data', -1), ('model', 4))"
        )
    if not isinstance(rules, str):
        _check_table(rules)
        return
    if rules not in PRESETS:
        raise ConfigError(f"parallel.params={rules!r}; {suggest(rules, PRESETS)}")
    if "tensor" in rules and "model" not in names:
        raise ConfigError(
            f"parallel.params={rules!r} cuts parameters over the mesh axis 'model', "
            f"which is not among {', '.join(names)}: set "
            "parallel.mesh=(('data', -1), ('model', 2))"
        )


def _check_table(rules: Any) -> None:
    """Raises ConfigError where `rules` is no table of (pattern, partition)."""
    whole = f"parallel.params={rules!r}"
    if not isinstance(rules, tuple | list) or not rules:
        raise ConfigError(
            f"{whole}: one of {', '.join(PRESETS)} is needed, or a table of (pattern, "
            "partition), as (('embed/.*', ('model', None)), ('.*', ()))"
        )
    for rule in rules:
        good = isinstance(rule, tuple | list) and len(rule) == 2
        if not good or not isinstance(rule[0], str) or not _partition(rule[1]):
            raise ConfigError(
                f"{whole}: {rule!r} is no (pattern, partition); a partition has a mesh "
                "axis, several or None for each dimension, as ('model', None)"
            )
        try:
            re.compile(rule[0])
        except re.error as error:
            raise ConfigError(
                f"parallel.params: {rule[0]!r} is no pattern: {error}"
            ) from error


def _partition(axes: Any) -> bool:
    """Is it a sequence of mesh axes, tuples of them and None?"""
    several = lambda x: isinstance(x, tuple | list)  # noqa: E731
    return several(axes) and all(
        x is None
        or isinstance(x, str)
        or (several(x) and all(isinstance(name, str) for name in x))
        for x in axes
    )


def _misfit(axes: Sequence, path: str, shape: tuple, mesh: Any, where: str) -> str:
    """What keeps an array from being cut so, in words; '' where nothing does."""
    for dim, axis in enumerate(axes):
        names = (axis,) if isinstance(axis, str) else axis or ()
        for name in names:
            if name not in mesh.shape:
                known = suggest(name, mesh.shape)
                return f"{where}: no mesh axis {name!r}; {known}"
        parts = math.prod(mesh.shape[name] for name in names)
        if dim >= len(shape) or shape[dim] % parts:
            return (
                f"{where}: {path} of shape {shape} can't be cut in {parts} along "
                f"dimension {dim}; mesh {dict(mesh.shape)}"
            )
    return ""


def _tensor(path: str, shape: tuple[int, ...], plan: Plan) -> tuple:
    """The partition that TENSOR gives; raises ConfigError where none divides."""
    for pattern, partitions in TENSOR:
        if re.search(pattern, path):
            where = f"parallel.params={plan.rules!r}"
            found = [
                _misfit(axes, path, shape, plan.mesh, where) for axes in partitions
            ]
            if all(found):
                raise ConfigError(found[0])
            return partitions[found.index("")]
    return ()


def _fully(axes: tuple, shape: tuple[int, ...], plan: Plan) -> tuple:
    """`axes` and a cut of the largest other dimension that divides over 'fsdp'.

    Over the first axis of those that cut the batch, where there is no 'fsdp'.
    """
    name = "fsdp" if "fsdp" in plan.mesh.shape else (*plan.cut, None)[0]
    size = plan.mesh.shape[name] if name else 1
    entries = [*axes, *[None] * (len(shape) - len(axes))]
    free = [(n, -i) for i, n in enumerate(shape) if entries[i] is None]
    fits = [(n, at) for n, at in free if n % size == 0 and n >= size]
    if not fits or size == 1:
        return axes
    entries[-max(fits)[1]] = name
    while entries[-1] is None:
        entries.pop()
    return tuple(entries)


def _spec(path: str, shape: tuple[int, ...], plan: Plan) -> P:
    """The partition of one parameter; raises ConfigError where it does not fit."""
    if isinstance(plan.rules, str):
        axes = _tensor(path, shape, plan) if "tensor" in plan.rules else ()
        return P(*(_fully(axes, shape, plan) if "fsdp" in plan.rules else axes))
    for pattern, axes in plan.rules:
        if re.search(pattern, path):
            if wrong := _misfit(axes, path, shape, plan.mesh, f"rule {pattern!r}"):
                raise ConfigError(wrong)
            return P(*axes)
    raise ConfigError(
        f"no rule of parallel.params matches {path} of shape {shape}; end the table "
        f"with ('.*', ()) to keep the rest whole"
    )


def shardings(tree: Any, params: Any, plan: Plan) -> Any:
    """A tree of shardings like `tree`, a state that holds `params` (or their shapes).

    An optimizer's array whose path ends in a parameter's path and has its shape lives
    where that parameter lives, or, offloaded, beside it in the memory of that device's
    host; everything else is whole on every device.
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
    elif "tensor" in plan.rules and not any(
        "model" in spec for _, spec in where.values()
    ):
        raise ConfigError(
            f"parallel.params={plan.rules!r} knows the parameters of transformers, and "
            "this model has none: give a table of (pattern, partition), or 'fsdp'"
        )

    def place(path, leaf):
        steps = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        for i in range(len(steps)):
            shape, spec = where.get("/".join(steps[i:]), ((), None))
            if spec is not None and shape == leaf.shape:
                away = plan.offload == "optimizer" and steps[0] == "opt_state"
                kind = {"memory_kind": HOST} if away else {}
                return NamedSharding(plan.mesh, spec, **kind)
        return plan.whole

    return jax.tree_util.tree_map_with_path(place, tree)


def of_batch(batch: Any, plan: Plan) -> Any:
    """A tree of shardings for a batch's arrays, or shapes, [B, ...].

    Rows are cut over `plan.cut`; over a mesh axis 'sequence' also the second dimension
    (tokens, or rows of pixels) of every array where it divides. Raises ConfigError
    where it divides in none.
    """
    size = plan.mesh.shape.get("sequence", 1)

    def place(x):
        if size > 1 and len(x.shape) > 1 and x.shape[1] % size == 0:
            return NamedSharding(plan.mesh, P(plan.cut or None, "sequence"))
        return plan.rows

    found = jax.tree.map(place, batch)
    if size > 1 and not any("sequence" in s.spec for s in jax.tree.leaves(found)):
        leaves = zip(paths(batch), jax.tree.leaves(batch), strict=True)
        shapes = {path: leaf.shape for path, leaf in leaves}
        raise ConfigError(
            f"the mesh axis 'sequence' of size {size} divides the second dimension of "
            f"no array of a batch: {shapes}"
        )
    return found


def constrained(function: Callable, plan: Plan) -> Callable:
    """`function`, inside which activations keep to the devices of their rows.

    Left to itself the compiler may follow a parameter that is cut over 'fsdp' and cut
    the width of activations instead of their rows, which costs a sum over devices for
    each norm and each product. So what a linen module returns, [B, ..., D], is held to
    where a batch's rows (and tokens) are; on other dimensions nothing is said.
    """
    if plan.rules == "replicate" and "sequence" not in plan.mesh.shape:
        return function

    def hold(next_function, args, kwargs, context):
        def place(x):
            if not hasattr(x, "ndim") or x.ndim < 3 or x.shape[0] % plan.parts:
                return x
            size = plan.mesh.shape.get("sequence", 1)
            tokens = size > 1 and x.ndim == 3 and x.shape[1] % size == 0
            free: list[Any] = [P.UNCONSTRAINED] * (x.ndim - 1)
            free[0] = "sequence" if tokens else free[0]
            where = NamedSharding(plan.mesh, P(plan.cut or None, *free))
            return jax.lax.with_sharding_constraint(x, where)

        out = next_function(*args, **kwargs)
        seen = context.method_name in ("__call__", "read")
        return jax.tree.map(place, out) if seen else out

    @functools.wraps(function)
    def held(*args, **kwargs):
        with nn.intercept_methods(hold):
            return function(*args, **kwargs)

    return held
