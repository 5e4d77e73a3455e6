"""A class for every pixel: cross-entropy, and soft Dice of each image."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from fmjax.objectives import top1

METRICS = ("segmentation",)


def objective(
    apply, params, extras, batch, key, *, dice: float = 1.0, cross_entropy: float = 1.0
):
    """Sums of cross-entropy (nats a pixel), of 1 - soft Dice (an image), of accuracy.

    The model returns logits [B, h, w, K]; of targets larger than that the middle
    counts (the U-Net without padding). batch: inputs, targets int32 [B, H, W], weights
    float32 [B, H, W] (0 = counts for nothing), mask float32 [B].
    dice, cross_entropy: factors of the two terms.

    An image's soft Dice is the mean over the K classes of 2 sum(p t) / (sum(p^2) +
    sum(t^2)) over its pixels (Milletari et al. 2016, section 3), a class neither there
    nor predicted counting as 1. It is each image's own, not the batch's, so that a
    batch may be cut over microbatches and devices. An image without pixels that count
    has no Dice.
    """
    logits, targets, weights, extras = _middle(apply, params, extras, batch, key)
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    right = top1(logits, targets)
    pixels = weights.sum()
    losses = {"cross_entropy": (cross_entropy * (entropy * weights).sum(), pixels)}
    there = (weights.sum((1, 2)) > 0).astype(jnp.float32)
    score = (soft_dice(logits, targets, weights) * there).sum()
    if dice:
        losses["dice"] = (dice * (there.sum() - score), there.sum())
    metrics = {
        "accuracy": ((right * weights).sum(), pixels),
        "soft_dice": (score, there.sum()),
    }
    return losses, metrics, extras


def predict(apply, params, extras, batch) -> dict[str, jax.Array]:
    """confusion: int32 [B, K, K], pixels of an image by true and predicted class."""
    logits, targets, weights, _ = _middle(apply, params, extras, batch, None)
    classes = logits.shape[-1]
    cell = targets * classes + logits.argmax(-1)
    flat, real = cell.reshape(len(cell), -1), weights.reshape(len(cell), -1) > 0
    count = lambda cell, real: jnp.bincount(  # noqa: E731
        cell, real.astype(jnp.int32), length=classes**2
    )
    return {"confusion": jax.vmap(count)(flat, real).reshape(-1, classes, classes)}


def maps(apply, params, extras, batch) -> dict[str, jax.Array]:
    """map: uint8 [B, H, W], the class of each pixel; 255 where the model has no say.

    Which is around the middle that its logits are of; see `objective`.
    """
    logits, _ = apply(params, extras, batch["inputs"], key=None)
    said = logits.argmax(-1).astype(jnp.uint8)
    rest = _around(said.shape[1:3], batch["targets"].shape[1:])
    beside = ((0, 0), *((n // 2, n - n // 2) for n in rest))
    return {"map": jnp.pad(said, beside, constant_values=255)}


def soft_dice(logits, targets, weights):
    """[B, h, w, K], int [B, h, w], float [B, h, w] to each image's Dice [B]."""
    p = jax.nn.softmax(logits) * weights[..., None]
    t = jax.nn.one_hot(targets, logits.shape[-1]) * weights[..., None]
    both = 2 * (p * t).sum((1, 2))
    # One pixel's worth on either side makes 1 of nothing over nothing.
    every = (p**2).sum((1, 2)) + (t**2).sum((1, 2))
    return ((both + 1.0) / (every + 1.0)).mean(-1)


def _middle(apply, params, extras, batch, key):
    """(logits float32, targets, weights) of the pixels that the model speaks of."""
    logits, extras = apply(params, extras, batch["inputs"], key=key)
    size = logits.shape[1:3]
    targets, weights = batch["targets"], batch["weights"]
    top, left = (n // 2 for n in _around(size, targets.shape[1:]))
    middle = (slice(None), slice(top, top + size[0]), slice(left, left + size[1]))
    weights = weights[middle] * batch["mask"][:, None, None]
    return logits.astype(jnp.float32), targets[middle], weights, extras


def _around(size, whole):
    """By how much targets are higher and wider than logits."""
    rest = [a - b for a, b in zip(whole, size, strict=True)]
    if min(rest) < 0:
        raise ValueError(f"logits are {size}, larger than targets {whole}")
    return rest
