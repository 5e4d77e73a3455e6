"""Classification by softmax cross-entropy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from fmjax.objectives import top1

METRICS = ("classification",)


def objective(apply, params, extras, batch, key, *, label_smoothing: float = 0.0):
    """Sums for one label a row: cross-entropy (nats) and top-1 accuracy.

    batch: inputs (what the model takes), label int32 [B], mask float32 [B]; of examples
    that are mixtures (mixup, CutMix) also label2 int32 [B] and share float32 [B]: the
    target is `share` on label and the rest on label2, and accuracy is on the greater.
    `label_smoothing` e trains towards (1 - e) on the label and e / classes everywhere
    (Szegedy et al. 2016, section 7); evaluation is never smoothed.
    """
    logits, extras = apply(params, extras, batch["inputs"], key=key)
    logits, label, mask = logits.astype(jnp.float32), batch["label"], batch["mask"]
    smoothing = label_smoothing if key is not None else 0.0
    target = jax.nn.one_hot(label, logits.shape[-1])
    if "label2" in batch:
        share, other = batch["share"], batch["label2"]
        rest = jax.nn.one_hot(other, logits.shape[-1])
        target = share[:, None] * target + (1 - share)[:, None] * rest
        label = jnp.where(share >= 0.5, label, other)
    target = optax.smooth_labels(target, smoothing)
    loss = optax.softmax_cross_entropy(logits, target)
    correct = top1(logits, label)
    weight = mask.sum()
    losses = {"classify": ((loss * mask).sum(), weight)}
    return losses, {"accuracy": ((correct * mask).sum(), weight)}, extras


def predict(apply, params, extras, batch) -> dict[str, jax.Array]:
    """probabilities: float32 [B, classes]."""
    logits, _ = apply(params, extras, batch["inputs"])
    return {"probabilities": jax.nn.softmax(logits.astype(jnp.float32))}
