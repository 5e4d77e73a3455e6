"""The pixels of hidden patches (He et al. 2022, section 3 and table 1d)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def objective(apply, params, extras, batch, key, *, normalised: bool = True):
    """Sum over hidden patches of their mean squared error.

    The model returns pixels [B, N, P] and hidden bool [B, N], of which every row has
    the same number. batch: inputs, the images [B, H, W, C] or a dict with `image`, and
    mask float32 [B]. normalised: each patch of the target has mean 0 and variance 1, of
    its own P numbers (divided by P - 1, as the authors' code).
    """
    (pixels, hidden), extras = apply(params, extras, batch["inputs"], key=key)
    inputs, mask = batch["inputs"], batch["mask"]
    image = inputs["image"] if isinstance(inputs, dict) else inputs
    target = patches(image, pixels.shape)
    if normalised:
        mean = target.mean(-1, keepdims=True)
        variance = target.var(-1, ddof=1, keepdims=True)
        target = (target - mean) / jnp.sqrt(variance + 1e-6)
    error = ((pixels.astype(jnp.float32) - target) ** 2).mean(-1)
    total = ((error * hidden).sum(1) * mask).sum()
    # The contract wants a weight of the batch alone: rows hide equally many.
    weight = mask.sum() * hidden[0].sum()
    return {"mae": (total, weight)}, {}, extras


def predict(apply, params, extras, batch) -> dict[str, jax.Array]:
    """features: float32 [B, F], the mean state of all patches, nothing hidden."""
    found, _ = apply(params, extras, batch["inputs"], features=True)
    return {"features": found}


def patches(image, shape):
    """[B, H, W, C] to [B, N, p * p * C], row by row; shape says N and p * p * C."""
    batch, height, width, channels = image.shape
    side = int(np.sqrt(shape[2] // channels))
    rows, columns = height // side, width // side
    if (rows * columns, side * side * channels) != tuple(shape[1:]):
        raise ValueError(f"the model's patches {shape} are not those of {image.shape}")
    x = image.astype(jnp.float32).reshape(batch, rows, side, columns, side, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(shape)
