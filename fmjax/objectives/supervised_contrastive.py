"""All views of one class attract each other (Khosla et al. 2020, arXiv:2004.11362)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fmjax.objectives.simclr import everyone, predict, similarities

__all__ = ["objective", "predict"]


def objective(
    apply, params, extras, batch, key, *, temperature: float = 0.1, axis=None
):
    """Sums of the paper's equation 2, L_out (nats a view).

    The model returns unit vectors [2, B, E], the views'. batch: inputs, label int32
    [B], mask float32 [B]. A view's positives are its image's other view and both views
    of every image of its class; its candidates are as in `objectives.simclr`.
    """
    views, extras = apply(params, extras, batch["inputs"], key=key)
    label, mask = batch["label"], batch["mask"]
    logits, partner = similarities(views, mask, temperature, axis)
    labels, real = (jnp.tile(x, 2) for x in everyone(axis, label, mask))
    column = jnp.arange(logits.shape[1])
    same = (jnp.tile(label, 2)[:, None] == labels[None]) & (real[None] > 0)
    same |= column[None] == partner[:, None]
    same &= jnp.isfinite(logits)  # not a view itself
    log_p = logits - jax.nn.logsumexp(logits, axis=1, keepdims=True)
    loss = -jnp.where(same, log_p, 0.0).sum(1) / same.sum(1)
    right = jnp.take_along_axis(same, logits.argmax(1)[:, None], axis=1)[:, 0]
    mask = jnp.tile(mask, 2)
    losses = {"supervised_contrastive": ((loss * mask).sum(), mask.sum())}
    return losses, {"accuracy": ((right * mask).sum(), mask.sum())}, extras
