"""NT-Xent: an image's two views find each other among all (Chen et al. 2020, eq. 1)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from fmjax.objectives import top1


def objective(
    apply, params, extras, batch, key, *, temperature: float = 0.1, axis=None
):
    """Sums of the normalised, temperature-scaled cross-entropy (nats a view).

    The model returns unit vectors [2, B, E], the views'. batch: inputs, mask float32
    [B]; a row with mask 0 is nobody's negative. Each view's candidates are the 2B - 1
    others of the whole batch, gathered over the mapped device axis `axis` (the step
    says which); a batch cut in microbatches would have fewer, and is refused there.
    """
    views, extras = apply(params, extras, batch["inputs"], key=key)
    logits, own = similarities(views, batch["mask"], temperature, axis)
    loss, right = cross_entropy(logits, own)
    mask = jnp.tile(batch["mask"], 2)
    losses = {"simclr": ((loss * mask).sum(), mask.sum())}
    return losses, {"accuracy": ((right * mask).sum(), mask.sum())}, extras


def predict(apply, params, extras, batch) -> dict[str, jax.Array]:
    """features: float32 [B, F], the backbone's, of the image as evaluation has it."""
    found, _ = apply(params, extras, batch["inputs"], features=True)
    return {"features": found}


def everyone(axis, *arrays):
    """The rows of all devices along a mapped axis; None: they are here already."""
    if axis is None:
        return arrays
    return tuple(jax.lax.all_gather(x, axis, tiled=True) for x in arrays)


def first_row(axis, rows):
    """Where this device's `rows` begin among those of `everyone`."""
    return 0 if axis is None else jax.lax.axis_index(axis) * rows


def similarities(views, mask, temperature, axis):
    """(logits [2B, 2B'], positives int32 [2B]) of this device's views and all B' rows'.

    A view is no candidate of itself, nor is a row with mask 0 of another's.
    """
    if not temperature > 0:
        raise ValueError(f"objective.temperature={temperature} must be positive")
    views = views.astype(jnp.float32)
    rows = views.shape[1]
    one, two, real = everyone(axis, views[0], views[1], mask)
    others = jnp.concatenate([one, two])
    logits = jnp.concatenate([views[0], views[1]]) @ others.T / temperature
    here = first_row(axis, rows) + jnp.arange(rows)
    itself = jnp.concatenate([here, here + len(one)])
    partner = jnp.concatenate([here + len(one), here])
    column = jnp.arange(len(others))
    allowed = jnp.tile(real, 2)[None] > 0
    # A masked row's own loss counts for nothing, but must be finite.
    allowed |= column[None] == partner[:, None]
    allowed &= column[None] != itself[:, None]
    return jnp.where(allowed, logits, -np.inf), partner


def cross_entropy(logits, target):
    """(-log softmax at target, is it the largest?) of each row, as float32."""
    chosen = jnp.take_along_axis(logits, target[:, None], axis=1)[:, 0]
    loss = jax.nn.logsumexp(logits, axis=1) - chosen
    return loss, top1(logits, target).astype(jnp.float32)
