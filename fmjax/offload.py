"""Offload: the optimizer's arrays in the memory of the hosts (`parallel.offload`).

Each lies cut as its parameter is, beside its device, in memory that the device reads
without the host's processor; it comes for the update, and goes again (Ren et al. 2021,
arXiv:2101.06840, have the idea; here the device computes the update). The compiler
decides when each array comes, and how many are there at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from fmjax.config import ConfigError
from fmjax.sharding import HOST, Plan


def check(plan: Plan, offload: str, determinism: str | None) -> Plan:
    """`plan` with arrays in the hosts' memory; raises ConfigError where they can't."""
    problem = ""
    if offload != "optimizer":
        problem = "it is None or 'optimizer'"
    elif plan.how == "pmap" or determinism is not None:
        problem = "set parallel.how=jit, and no parallel.determinism"
    elif isinstance(plan.mesh, Mesh):
        device = plan.mesh.devices.flat[0]
        kinds = [memory.kind for memory in device.addressable_memories()]
        if HOST not in kinds:
            problem = (
                f"a {device.device_kind} has {', '.join(kinds)}, and nothing that is "
                f"{HOST}: leave it out"
            )
    if problem:
        raise ConfigError(f"parallel.offload={offload!r}: {problem}")
    return plan._replace(offload=offload)


def near(tree: Any, places: Any = None) -> Any:
    """Arrays that are in a host's memory, on their devices; others as they are.

    places: a tree of their shardings, which traced arrays do not tell.
    """
    places = jax.tree.map(lambda x: x.sharding, tree) if places is None else places

    def bring(x, place):
        far = place.memory_kind == HOST
        return jax.device_put(x, place.with_memory_kind("device")) if far else x

    return jax.tree.map(bring, tree, places)


def away(tree: Any, places: Any) -> Any:
    """Arrays whose places are in a host's memory, there; others as they are."""
    put = lambda x, p: jax.device_put(x, p) if p.memory_kind == HOST else x  # noqa: E731
    return jax.tree.map(put, tree, places)


def around(step: Callable, places: Any) -> Callable:
    """A train step whose optimizer state is on the host before and after it.

    places: a state's shardings.
    """

    @functools.wraps(step)
    def run(state, batch, **given):
        state = state._replace(opt_state=near(state.opt_state, places.opt_state))
        state, sums = step(state, batch, **given)
        kept = away(state.opt_state, places.opt_state)
        return state._replace(opt_state=kept), sums

    return run
