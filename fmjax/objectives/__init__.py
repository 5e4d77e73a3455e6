"""One training signal a file; see CONTRIBUTING.md for the contract.

Here is what those over a vocabulary share, whose logits are the largest array of a
step, and what all classifiers do: the accuracy.
"""

# B rows, T tokens, D width, V vocabulary

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def top1(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether `logits.argmax(-1) == labels`: the first of the greatest is the label's.

    logits: floating [..., C]; labels: int [...]; returns bool [...]. XLA's argmax is
    slow on a CPU over a vocabulary (experiments/speed): there, each logit is compared
    with the label's, and in a row with a NaN none is right, of which argmax would take
    the first for the greatest. On a TPU that would read the logits once more, and hold
    them for it, where argmax is fused with what makes them.
    """
    logits = jax.lax.stop_gradient(logits)

    def compared(logits: jax.Array, labels: jax.Array) -> jax.Array:
        labels = labels[..., None]
        inside = jnp.clip(labels, 0, logits.shape[-1] - 1)
        own = jnp.take_along_axis(logits, inside, axis=-1)
        before = jnp.arange(logits.shape[-1]) < labels
        below = jnp.where(before, logits < own, logits <= own).astype(jnp.int8)
        return (below.min(-1) == 1) & (labels == inside)[..., 0]  # faster than `all`

    def sought(logits: jax.Array, labels: jax.Array) -> jax.Array:
        return logits.argmax(-1) == labels

    return jax.lax.platform_dependent(logits, labels, cpu=compared, default=sought)


def readable(apply: Callable, params: Any, extras: Any) -> Callable:
    """hidden [B, T, D] -> logits [B, T, V], by the model's method `read`."""
    return lambda hidden: apply(params, extras, hidden, method="read")[0]


def chunked(
    score: Callable,
    read: Callable,
    hidden: jax.Array,
    targets: jax.Array,
    chunk: int,
) -> Any:
    """score(read(hidden), targets), whose leaves are [B, T], `chunk` tokens at a time.

    Of each row: rows may be cut over devices, and stay where they are. Only the logits
    [B, chunk, V] are there at once, in the backward pass too, which computes them again
    (Chen et al. 2016, arXiv:1604.06174), at the cost of one more product with the
    table. hidden: [B, T, D]; targets: int [B, T].
    Raises ValueError where chunk is below 1.
    """
    if chunk < 1:
        raise ValueError(f"chunk={chunk}: 1 or more tokens of a row, or None for all")
    length = targets.shape[1]
    chunk = min(chunk, length)
    count = -(-length // chunk)

    def cut(x: jax.Array) -> jax.Array:  # [B, T, ...] to [count, B, chunk, ...]
        past = [(0, 0), (0, count * chunk - length)] + [(0, 0)] * (x.ndim - 2)
        x = jnp.pad(x, past)
        return x.reshape(len(x), count, chunk, *x.shape[2:]).swapaxes(0, 1)

    @jax.checkpoint
    def one(part):
        return score(read(part[0]), part[1])

    found = jax.lax.map(one, (cut(hidden), cut(targets)))
    whole = lambda x: x.swapaxes(0, 1).reshape(x.shape[1], -1)[:, :length]  # noqa: E731
    return jax.tree.map(whole, found)
