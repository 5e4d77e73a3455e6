"""The train and evaluation steps: pure functions of arrays.

An objective returns sums and weights, never means; this file is the one place that
divides. Its loss is sum_t S_t / W_t over its terms t, with S_t and W_t added over
microbatches and devices first, so that every way of cutting a batch up gives the loss
and the gradient of the whole batch.
"""

from __future__ import annotations

import functools
import inspect
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fmjax import copies, gradients

Sums = dict[str, dict[str, tuple[Any, Any]]]


class State(NamedTuple):
    """All that a run carries from step to step; `key` never changes."""

    step: jax.Array  # int32, steps done
    params: Any
    extras: Any  # other variable collections, such as batch statistics
    opt_state: Any
    key: jax.Array


def pure(net: Any) -> Callable:
    """A linen module as `apply(params, extras, inputs, key=None) -> (outputs, extras)`.

    A key means training: dropout is on and `extras` are updated. None is evaluation.
    """

    def apply(params, extras, *inputs, key=None, **kwargs):
        variables = {"params": params, **extras}
        if key is None:
            return net.apply(variables, *inputs, train=False, **kwargs), extras
        rngs = {"dropout": jax.random.fold_in(key, zlib.crc32(b"dropout"))}
        outputs, changed = net.apply(
            variables, *inputs, train=True, rngs=rngs, mutable=list(extras), **kwargs
        )
        return outputs, {**extras, **changed}

    return apply


def init(net: Any, inputs: Any, key: jax.Array) -> dict[str, Any]:
    """A module's variables; `inputs` are a batch's shapes, of any batch size."""
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), inputs)
    return dict(net.init(key, zeros, train=False))


def create(init: Callable, tx: optax.GradientTransformation, key: jax.Array) -> State:
    """A new state from init(key) -> variables."""
    init_key, key = jax.random.split(key)
    extras = dict(init(init_key))
    params = extras.pop("params")
    opt_state, params = tx.init(params), copies.begun(tx, params)
    return State(jnp.zeros((), jnp.int32), params, extras, opt_state, key)


def train_step(
    state: State,
    batch: dict[str, Any],
    *,
    apply: Callable,
    objective: Callable,
    tx: optax.GradientTransformation,
    trainable: Any = None,
    accum: int = 1,
    axis: str | None = None,
) -> tuple[State, Sums]:
    """One update from one batch (leaves [B, ...]; B divides by `accum`).

    `trainable` is a tree of bools like the parameters: no gradient is computed for a
    False one. `axis` names a mapped device axis (pmap); under jit over a mesh it stays
    None. Randomness is addressed by the step, and further by microbatch and by `axis`
    index: with dropout, two ways of cutting a batch up draw different masks.

    An objective with a keyword `axis` couples the rows of a batch (contrastive losses):
    it is told the axis, to gather along, and refused under accumulation, by ValueError.
    """
    key = jax.random.fold_in(state.key, state.step)
    if axis:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis))
        everywhere = lambda tree: jax.lax.psum(tree, axis)  # noqa: E731
    else:
        everywhere = lambda tree: tree  # noqa: E731

    if "axis" in inspect.signature(objective).parameters:  # its rows see each other
        if accum > 1:
            raise ValueError(
                f"accum={accum} would compare the rows of each microbatch with each "
                "other alone, which is another loss: set accum=1"
            )
        objective = functools.partial(objective, axis=axis)

    totals = everywhere(weights(state.params, state.extras, batch, apply, objective))
    grads, sums, extras = gradients.of(
        state.params,
        state.extras,
        batch,
        key,
        totals,
        apply=apply,
        objective=objective,
        trainable=trainable,
        accum=accum,
        axis=axis,
    )
    grads, sums = everywhere((grads, sums))
    return taken(state, grads, sums, extras, tx)


def weights(params, extras, batch, apply: Callable, objective: Callable) -> dict:
    """The weight of each of an objective's terms in a batch."""
    # They depend on the batch alone (the contract), so the compiler drops all of this
    # evaluation but the few operations that lead to them.
    losses = measurer(apply, objective)(params, extras, batch)["losses"]
    return {name: weight for name, (_, weight) in losses.items()}


def taken(
    state: State, grads: Any, sums: Sums, extras: Any, tx: optax.GradientTransformation
) -> tuple[State, Sums]:
    """The state a step further along this gradient, and the sums with its norm."""
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    key = jax.random.fold_in(state.key, state.step)
    params = copies.moved(tx, state.params, updates, opt_state, key)
    one = jnp.ones(())
    sums["metrics"] = sums["metrics"] | {"grad_norm": (optax.tree.norm(grads), one)}
    return State(state.step + 1, params, extras, opt_state, state.key), sums


def eval_step(params, extras, batch, *, apply: Callable, objective: Callable) -> Sums:
    """The sums of one batch without training; nothing is divided."""
    losses, metrics, _ = objective(apply, params, extras, batch, None)
    return {"losses": losses, "metrics": metrics}


@functools.lru_cache(maxsize=4)
def measurer(apply: Callable, objective: Callable) -> Callable:
    """eval_step of these two, compiled; the same one again for the same two."""
    return jax.jit(functools.partial(eval_step, apply=apply, objective=objective))


def means(sums: Sums) -> dict[str, float]:
    """Host numbers from added-up sums: `loss` in all, `NAME_loss` a term, metrics.

    A term or metric whose weight is zero had nothing to measure: a metric is nan, a
    term adds nothing to the loss.
    """
    divide = lambda pair: float(np.float64(pair[0]) / pair[1]) if pair[1] else np.nan  # noqa: E731
    losses = {name: divide(pair) for name, pair in sums["losses"].items()}
    terms = {f"{name}_loss": value for name, value in losses.items()}
    total = float(np.sum([v for n, v in losses.items() if sums["losses"][n][1]]))
    return (
        {"loss": total}
        | (terms if len(terms) > 1 else {})
        | {name: divide(pair) for name, pair in sums["metrics"].items()}
    )


def add_sums(batches: list[Sums]) -> Sums:
    """Adds host sums in float64, leaf by leaf."""
    add = lambda *leaves: np.sum(np.asarray(leaves, np.float64), axis=0)  # noqa: E731
    return jax.tree.map(add, *batches)
