"""A label for each word, by softmax cross-entropy (Devlin et al. 2018, section 5.3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from fmjax.objectives import top1

METRICS = ("tagging",)


def objective(apply, params, extras, batch, key):
    """Sums of cross-entropy (nats a word) and of accuracy.

    The model returns logits [B, T, C]. batch: inputs, targets int32 [B, T], weights
    float32 [B, T] (1 where a word begins), mask float32 [B].
    """
    logits, extras = apply(params, extras, batch["inputs"], key=key)
    logits, targets = logits.astype(jnp.float32), batch["targets"]
    weights = batch["weights"] * batch["mask"][:, None]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    right = top1(logits, targets)
    weight = weights.sum()
    losses = {"token_classify": ((loss * weights).sum(), weight)}
    return losses, {"accuracy": ((right * weights).sum(), weight)}, extras


def predict(apply, params, extras, batch) -> dict[str, jax.Array]:
    """tags: int32 [B, T], the most probable class; -1 where no word begins."""
    logits, _ = apply(params, extras, batch["inputs"])
    found = logits.argmax(-1).astype(jnp.int32)
    return {"tags": jnp.where(batch["weights"] > 0, found, -1)}
