"""The gradient of a batch, or of a part of one, in microbatches where asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fmjax import copies
from fmjax import lowering as lowering  # for its effect: gradients are what it is for
from fmjax.layers import batch_norm


def of(
    params: Any,
    extras: Any,
    batch: dict[str, Any],
    key: jax.Array,
    totals: dict[str, jax.Array],
    *,
    apply: Callable,
    objective: Callable,
    trainable: Any = None,
    accum: int = 1,
    axis: str | None = None,
) -> tuple[Any, dict[str, Any], Any]:
    """(gradient, sums, extras) of sum_t S_t / totals_t over an objective's terms t.

    batch: leaves [B, ...], B a multiple of `accum`. totals: each term's weight in all
    of the batch that this may be a part of. axis: as in `step.train_step`; nothing is
    added up over it here. trainable: a tree of bools like the parameters.
    """
    totals = jax.tree.map(lambda w: jnp.where(w > 0, w, 1.0), totals)

    def loss_of(params, extras, batch, key):
        if trainable is not None:
            keep = lambda on, p: p if on else jax.lax.stop_gradient(p)  # noqa: E731
            params = jax.tree.map(keep, trainable, params)
        losses, metrics, extras = objective(apply, params, extras, batch, key)
        loss = sum(total / totals[name] for name, (total, _) in losses.items())
        return loss, ({"losses": losses, "metrics": metrics}, extras)

    def gradient_of(*given):  # what is added up further is so in float32
        grads, rest = jax.grad(loss_of, has_aux=True)(*given)
        return copies.full(grads), rest

    # Batch statistics are of the whole batch: the norms hear how it is cut.
    # Nested jits are traced once for all their calls.
    gradient = jax.jit(batch_norm.over(axis, accum)(gradient_of))
    if accum == 1:
        grads, (sums, extras) = gradient(params, extras, batch, key)
        return grads, sums, extras
    # Rows are dealt out like cards: a microbatch then has rows of every device.
    deal = lambda x: x.reshape(-1, accum, *x.shape[1:]).swapaxes(0, 1)  # noqa: E731
    micro = jax.tree.map(deal, batch)

    def add(carry, index_and_batch):
        (grads, sums), extras = carry
        index, batch = index_and_batch
        more, (more_sums, extras) = gradient(
            params, extras, batch, jax.random.fold_in(key, index)
        )
        return (jax.tree.map(jnp.add, (grads, sums), (more, more_sums)), extras), ()

    first = jax.tree.map(lambda x: x[0], micro)
    like = jax.eval_shape(gradient, params, extras, first, key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (like[0], like[1][0]))
    carry, _ = jax.lax.scan(add, (zeros, extras), (jnp.arange(accum), micro))
    (grads, sums), extras = carry
    return grads, sums, extras
