"""Unit vectors whose cosine is a given score (Reimers & Gurevych 2019, section 3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

METRICS = ("similarity",)


def objective(apply, params, extras, batch, key):
    """Sum of squared errors of the cosine.

    The model returns unit vectors [B, 2, D]. batch: inputs, score float32 [B] (0 to 1),
    mask float32 [B].
    """
    cosine, extras = _cosine(apply, params, extras, batch, key)
    error = ((cosine - batch["score"]) ** 2 * batch["mask"]).sum()
    return {"cosine_similarity": (error, batch["mask"].sum())}, {}, extras


def predict(apply, params, extras, batch) -> dict[str, jax.Array]:
    """cosine: float32 [B]."""
    return {"cosine": _cosine(apply, params, extras, batch, None)[0]}


def _cosine(apply, params, extras, batch, key):
    vectors, extras = apply(params, extras, batch["inputs"], key=key)
    vectors = vectors.astype(jnp.float32)
    return jnp.einsum("bd,bd->b", vectors[:, 0], vectors[:, 1]), extras
