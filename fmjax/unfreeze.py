"""Gradual unfreezing (Howard and Ruder 2018, section 3.3), addressed by the step.

Which parameters wait, and until when, is written in the config; the optimizer's state
holds nothing but the number of steps done, so that a run that was stopped goes on as
if it had not been. What waits has no update, no decay and no moments, and does not
count when gradients are clipped; its gradient is computed all the same, for the step is
compiled once. What never moves belongs under `optim.freeze`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fmjax import config, trees


class Held(NamedTuple):
    """State of `held` and of `waiting`: steps done, and the inner state if any."""

    step: jax.Array
    inner: Any = ()


def starts(
    params: Any, rules: Sequence[tuple[str, int | str]], duration: Callable
) -> dict[str, int]:
    """{path: the step from which on it is trained}, without those that never wait.

    rules: (pattern over paths, duration), the first match wins; duration(text, where)
    gives steps. Raises ConfigError for an idle pattern, and where everything waits.
    """
    found: dict[str, int] = {}
    for pattern, text in rules:
        trees.matches(pattern, params, "optim.unfreeze")
        at = duration(text, f"optim.unfreeze {pattern}")
        for path in trees.paths(params):
            if re.search(pattern, path):
                found.setdefault(path, at)
    if found and min(found.get(path, 0) for path in trees.paths(params)) > 0:
        raise config.ConfigError(
            "optim.unfreeze: every parameter waits; leave out the last layer's, which "
            "is trained from the start"
        )
    return {path: at for path, at in found.items() if at}


def held(tx: optax.GradientTransformation, at: int) -> optax.GradientTransformation:
    """`tx` from step `at` on, as if it began there; until then no update at all."""

    def init(params):
        return Held(jnp.zeros((), jnp.int32), tx.init(params))

    def update(updates, state, params=None):
        new, inner = tx.update(updates, state.inner, params)
        on = state.step >= at
        new = jax.tree.map(lambda u: jnp.where(on, u, jnp.zeros_like(u)), new)
        inner = jax.tree.map(lambda a, b: jnp.where(on, a, b), inner, state.inner)
        return new, Held(state.step + 1, inner)

    return optax.GradientTransformation(init, update)


def waiting(begins: dict[str, int]) -> optax.GradientTransformation:
    """Zeroes gradients until a path's step has come: for what looks at all."""

    def update(updates, state, params=None):
        on = trees.by_path(lambda path: state.step >= begins.get(path, 0), updates)
        still = lambda u, on: jnp.where(on, u, jnp.zeros_like(u))  # noqa: E731
        return jax.tree.map(still, updates, on), Held(state.step + 1)

    init = lambda _: Held(jnp.zeros((), jnp.int32))  # noqa: E731
    return optax.GradientTransformation(init, update)
