"""Deterministic mode: the same bits on any number of devices, for jit and for pmap.

A sum of floating-point numbers depends on its order, which changes with the number of
devices; and the compiler fuses one program otherwise than another, which changes last
bits too. So a batch is cut into a fixed number of logical shards, each with a random
stream of its own. One and the same program of one device computes a shard's gradient,
wherever it runs; the gradients are gathered and every device adds them in the order of
the shards, and nothing else; and again one program of one device takes the step.

What it costs: four programs a step instead of one, shards of a device one after the
other, and room for all shards' gradients on each device.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from fmjax import gradients, step
from fmjax.config import ConfigError
from fmjax.keeping import guard
from fmjax.sharding import Plan
from fmjax.step import State, Sums


def threads(shards: int) -> None:
    """Gives XLA as many threads on a CPU as there are shards, unless NPROC says others.

    A CPU's convolutions are cut up for its threads and added up in that order, and
    there are as many as processors or devices, whichever is more. To be called before
    there are devices; where there are some already, their threads stay as they are.
    """
    os.environ.setdefault("NPROC", str(shards))


def check(plan: Plan, determinism: str, shards: int) -> Plan:
    """`plan` with so many logical shards. Raises ConfigError where that can't be."""
    problem = ""
    if determinism != "bits":
        problem = "it is None or 'bits'"
    elif plan.rules != "replicate" or len(plan.mesh.shape) > 1 or not plan.cut:
        problem = (
            "sums inside a layer that is cut over devices depend on how many there "
            "are: set parallel.params=replicate and one mesh axis, 'data'"
        )
    elif shards < 1 or shards % plan.parts:
        problem = f"parallel.shards={shards} must divide by {plan.parts} devices"
    if problem:
        raise ConfigError(f"parallel.determinism={determinism!r}: {problem}")
    return plan._replace(shards=shards)


class Step:
    """A train step of logical shards: what `step.train_step` is otherwise."""

    def __init__(
        self,
        shards: int,
        nonfinite: str | None,
        *,
        apply: Callable,
        objective: Callable,
        tx: optax.GradientTransformation,
        trainable: Any = None,
        accum: int = 1,
    ):
        """nonfinite: the guard's policy. The rest: as of `step.train_step`.

        Raises ValueError for an objective that compares the rows of a batch.
        """
        if "axis" in inspect.signature(objective).parameters:
            raise ValueError(
                "parallel.determinism='bits' cuts a batch in shards, and this "
                "objective compares its rows with each other: leave determinism out"
            )
        self.shards, self.tx = shards, tx
        self.weights = functools.partial(step.weights, apply=apply, objective=objective)
        self.gradient = functools.partial(
            gradients.of,
            apply=apply,
            objective=objective,
            trainable=trainable,
            accum=accum,
        )

        def taken(state: State, found: tuple[Any, Sums]) -> tuple[State, Sums]:
            return step.taken(state, found[0], found[1], state.extras, tx)

        keep = nonfinite == "skip"
        self.take = guard.finite_only(taken, keep) if nonfinite else taken

    def shard(
        self, state: State, rows: Any, number: jax.Array, totals: Any
    ) -> tuple[Any, Sums]:
        """(gradient, sums) of a shard's rows, leaves [B / shards, ...]."""
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), number)
        return self.gradient(state.params, state.extras, rows, key, totals)[:2]

    def __call__(self, state: State, batch: Any) -> tuple[State, Sums]:
        """The same on one device, as one function: what it computes, and shapes.

        batch: leaves [B, ...]. Raises ValueError for a state with batch statistics, or
        what else all rows of a batch share.
        """
        if state.extras:
            raise ValueError(
                "parallel.determinism='bits' cuts a batch in shards, whose rows share "
                f"{', '.join(sorted(state.extras))}: leave determinism out"
            )
        cut = cut_rows(batch, self.shards)
        weigh = lambda rows: self.weights(state.params, state.extras, rows)  # noqa: E731
        totals = in_order(jax.lax.map(weigh, cut))
        one = lambda given: self.shard(state, given[0], given[1], totals)  # noqa: E731
        found = jax.lax.map(one, (cut, jnp.arange(self.shards)))
        return self.take(state, in_order(found))


def cut_rows(batch: Any, parts: int) -> Any:
    """Leaves [B, ...] as [parts, B / parts, ...], rows in their order."""
    return jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)


def in_order(tree: Any) -> Any:
    """The sum over the first axis of every leaf, one after the other."""
    add = lambda total, part: (jax.tree.map(jnp.add, total, part), None)  # noqa: E731
    first = jax.tree.map(lambda x: jnp.zeros_like(x[0]), tree)
    return jax.lax.scan(add, first, tree)[0]


def summed(like: Any, here: int, plan: Plan) -> Callable:
    """Compiles f(one tree for each of a device's shards) -> their sum in order.

    like: the shapes of a shard's tree; the leaves that f takes have an axis of devices
    before them, and are cut along it.
    """
    axis = plan.cut[0]

    def f(*trees):
        mine = jax.tree.map(lambda *x: jnp.concatenate(x), *trees)
        return in_order(jax.lax.all_gather(mine, axis, tiled=True))

    place = NamedSharding(plan.mesh, P(axis))
    shape = lambda x: jax.ShapeDtypeStruct(  # noqa: E731
        (plan.mesh.size, *x.shape), x.dtype, sharding=place
    )
    given = [jax.tree.map(shape, like)] * here
    if plan.how == "pmap":
        lone = lambda *trees: f(*jax.tree.map(lambda x: x[None], trees))  # noqa: E731
        devices = plan.mesh.devices.ravel().tolist()
        mapped = jax.pmap(lone, axis, out_axes=None, devices=devices)
        return mapped.lower(*given).compile()
    whole = jax.shard_map(
        f, mesh=plan.mesh, in_specs=P(axis), out_specs=P(), check_vma=False
    )
    return jax.jit(whole).lower(*given).compile()


class Programs(NamedTuple):
    """What one device runs."""

    cut: Any  # its rows -> a tuple of its shards' rows
    weigh: Any  # (state, rows) -> weights, each [1]
    shard: Any  # (state, rows, number, totals) -> (gradient, sums), each [1, ...]
    take: Any  # (state, (gradient, sums)) -> (state, sums)
    numbers: Sequence[jax.Array]  # of its shards


class Compiled:
    """A step, compiled for the devices of a plan: called with (state, batch).

    The state is given away (donated), as that of `parallel.compile_step` is.
    """

    def __init__(self, made: Step, state: Any, batch: Any, plan: Plan):
        """state, batch: their shapes, as for `parallel.compile_step`."""
        self.plan, self.here = plan, made.shards // plan.parts
        order = plan.mesh.devices.ravel().tolist()
        self.devices = [d for d in order if d.process_index == jax.process_index()]

        def cut(batch):
            if plan.how == "pmap":
                batch = jax.tree.map(lambda x: x[0], batch)
            rows = cut_rows(batch, self.here)
            return [jax.tree.map(lambda x, i=i: x[i], rows) for i in range(self.here)]

        lead = lambda tree: jax.tree.map(lambda x: x[None], tree)  # noqa: E731
        weigh = lambda state, rows: made.weights(state.params, state.extras, rows)  # noqa: E731
        local = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.sharding.shard_shape(x.shape), x.dtype),
            batch,
        )
        bare = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
        rows = jax.eval_shape(cut, local)[0]
        number = jax.ShapeDtypeStruct((), jnp.int32)
        totals = jax.eval_shape(weigh, bare, rows)
        found = jax.eval_shape(made.shard, bare, rows, number, totals)
        # Traced once for all devices.
        parts = {
            "cut": (jax.jit(cut), (local,)),
            "weigh": (jax.jit(lambda *x: lead(weigh(*x))), (bare, rows)),
            "shard": (
                jax.jit(lambda *x: lead(made.shard(*x))),
                (bare, rows, number, totals),
            ),
            "take": (jax.jit(made.take, donate_argnums=0), (bare, found)),
        }

        def programs(device) -> Programs:
            place = SingleDeviceSharding(device)
            put = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)  # noqa: E731
            compiled = {
                name: jitted.lower(*jax.tree.map(put, given)).compile()
                for name, (jitted, given) in parts.items()
            }
            first = order.index(device) * self.here
            numbers = [
                jax.device_put(np.int32(first + i), device) for i in range(self.here)
            ]
            return Programs(**compiled, numbers=numbers)

        self.programs = {device: programs(device) for device in self.devices}
        self.totals = summed(totals, self.here, plan)
        self.sums = summed(found, self.here, plan)
        self.last: tuple[Any, dict] = (None, {})  # a state, and what each device has

    def __call__(self, state: State, batch: Any) -> tuple[State, Sums]:
        last, held = self.last
        if last is not state:
            held = self.apart(state)
        self.last = (None, {})
        own, here = self.programs.items(), range(self.here)
        shards = {
            d: self.programs[d].cut(rows) for d, rows in self.apart(batch).items()
        }
        weights = [{d: p.weigh(held[d], shards[d][i]) for d, p in own} for i in here]
        totals = self.apart(self.totals(*map(self.whole, weights)))
        found = [
            {d: p.shard(held[d], shards[d][i], p.numbers[i], totals[d]) for d, p in own}
            for i in here
        ]
        sums = self.apart(self.sums(*map(self.whole, found)))
        after = {d: p.take(held[d], sums[d]) for d, p in own}
        held = {d: state for d, (state, _) in after.items()}
        state = self.whole(held, lead=False)
        self.last = (state, held)
        return state, after[self.devices[0]][1]

    def apart(self, tree: Any) -> dict[Any, Any]:
        """What each of this process's devices has of global arrays."""
        leaves, form = jax.tree.flatten(tree)
        parts = [{x.device: x.data for x in one.addressable_shards} for one in leaves]
        return {
            d: jax.tree.unflatten(form, [x[d] for x in parts]) for d in self.devices
        }

    def whole(self, parts: dict[Any, Any], lead: bool = True) -> Any:
        """Global arrays of each device's: cut along a leading axis, or copies."""
        plan = self.plan
        place = NamedSharding(plan.mesh, P(plan.cut[0])) if lead else plan.whole

        def join(*leaves):
            shape = leaves[0].shape
            shape = (plan.mesh.size, *shape[1:]) if lead else shape
            return jax.make_array_from_single_device_arrays(shape, place, leaves)

        return jax.tree.map(join, *[parts[d] for d in self.devices])

    def cost_analysis(self) -> dict[str, float]:
        """Operations of one device's programs, each as often as it runs in a step."""
        first = self.programs[self.devices[0]]
        flops = lambda made: float((made.cost_analysis() or {}).get("flops", np.nan))  # noqa: E731
        alone = self.here * flops(first.shard) + flops(first.take)
        return {"flops": alone + flops(self.sums)}

    def memory_analysis(self) -> Any:
        """Of a shard's gradient, the largest of the programs."""
        return self.programs[self.devices[0]].shard.memory_analysis()
