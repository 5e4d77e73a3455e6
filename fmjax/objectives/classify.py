"""Classification by softmax cross-entropy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

METRICS = ("classification",)


def objective(apply, params, extras, batch, key, *, label_smoothing: float = 0.0):
    """Sums for one label a row: cross-entropy (nats) and top-1 accuracy.

    batch: inputs (what the model takes), label int32 [B], mask float32 [B].
    `label_smoothing` e trains towards (1 - e) on the label and e / classes everywhere
    (Szegedy et al. 2016, section 7); evaluation is never smoothed.
    """
    logits, extras = apply(params, extras, batch["inputs"], key=key)
    logits, label, mask = logits.astype(jnp.float32), batch["label"], batch["mask"]
    smoothing = label_smoothing if key is not None else 0.0
    target = optax.smooth_labels(jax.nn.one_hot(label, logits.shape[-1]), smoothing)
    loss = optax.softmax_cross_entropy(logits, target)
    correct = logits.argmax(-1) == label
    weight = mask.sum()
    losses = {"classify": ((loss * mask).sum(), weight)}
    return losses, {"accuracy": ((correct * mask).sum(), weight)}, extras


def predict(apply, params, extras, batch) -> dict[str, jax.Array]:
    """probabilities: float32 [B, classes]."""
    logits, _ = apply(params, extras, batch["inputs"])
    return {"probabilities": jax.nn.softmax(logits.astype(jnp.float32))}
