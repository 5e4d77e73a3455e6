"""Images and texts find each other in the batch (Radford et al. 2021, figure 3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from fmjax.objectives.simclr import cross_entropy, everyone, first_row

METRICS = ("retrieval",)


def objective(apply, params, extras, batch, key, *, axis=None):
    """Sums of the mean of both directions' cross-entropies (nats a pair).

    The model returns unit vectors image and text [B, E], and scale, the inverse
    temperature. batch: inputs, mask float32 [B]; a row with mask 0 is nobody's
    candidate. Candidates are the whole batch's, gathered over the mapped device axis
    `axis` (the step says which); a batch cut in microbatches would have fewer, and is
    refused there.
    """
    found, extras = apply(params, extras, batch["inputs"], key=key)
    image, text, mask = found["image"], found["text"], batch["mask"]
    images, texts, real = everyone(axis, image, text, mask)
    own = first_row(axis, len(image)) + jnp.arange(len(image))
    # A masked row's own loss counts for nothing, but must be finite.
    allowed = (real[None] > 0) | (jnp.arange(len(images))[None] == own[:, None])

    def towards(queries, candidates):
        logits = found["scale"] * queries @ candidates.T
        return cross_entropy(jnp.where(allowed, logits, -np.inf), own)

    (to_text, right_text), (to_image, right_image) = (
        towards(image, texts),
        towards(text, images),
    )
    weight = mask.sum()
    losses = {"clip": (((to_text + to_image) / 2 * mask).sum(), weight)}
    metrics = {
        "image_to_text": ((right_text * mask).sum(), weight),
        "text_to_image": ((right_image * mask).sum(), weight),
        "scale": (found["scale"] * weight, weight),
    }
    return losses, metrics, extras


def predict(apply, params, extras, batch) -> dict[str, jax.Array]:
    """image, text: unit vectors float32 [B, E]."""
    found, _ = apply(params, extras, batch["inputs"])
    return {"image": found["image"], "text": found["text"]}
