"""The next token's cross-entropy: language models, and decoders that see a source."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fmjax.objectives import chunked, readable, top1

METRICS = ("language_model",)


def objective(
    apply,
    params,
    extras,
    batch,
    key,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    chunk: int | None = None,
):
    """Sums of cross-entropy (nats a token) and of top-1 accuracy.

    The model returns logits [B, T, V]. batch: inputs, targets int32 [B, T], weights
    float32 [B, T] (0 = nothing to predict), mask float32 [B].
    `label_smoothing` e trains towards 1 - e on the target and e / V everywhere (Szegedy
    et al. 2016, section 7, by way of Vaswani et al. 2017, section 5.4, whose code has
    e / (V - 1) on all others, which is this with e * V / (V - 1)). `z_loss` c adds
    c * log(Z)^2, which holds the softmax's normaliser Z near 1 (Mesh TensorFlow's; T5
    trained with 1e-4). Evaluation has neither. `chunk`: so many tokens of each row have
    their logits at once, None: all (`objectives.chunked`); the model then has a method
    `read`.
    """
    said, extras = _said(apply, params, extras, batch, key, chunk)
    nll, logz = said["nll"], said["logz"]
    weights = batch["weights"] * batch["mask"][:, None]
    loss = nll
    if key is not None and label_smoothing:
        # -sum_v q_v log p_v for q = (1 - e) onehot + e / V
        uniform = logz - said["mean"]
        loss = (1 - label_smoothing) * nll + label_smoothing * uniform
    if key is not None and z_loss:
        loss = loss + z_loss * logz**2
    weight = weights.sum()
    losses = {"next_token": ((loss * weights).sum(), weight)}
    return losses, {"accuracy": ((said["right"] * weights).sum(), weight)}, extras


def predict(
    apply, params, extras, batch, *, chunk: int | None = None
) -> dict[str, jax.Array]:
    """A row's summed cross-entropy, nll float32 [B]; predicted float32 [B], tokens."""
    said, _ = _said(apply, params, extras, batch, None, chunk)
    return {
        "nll": (said["nll"] * batch["weights"]).sum(-1),
        "predicted": batch["weights"].sum(-1),
    }


def _said(apply, params, extras, batch, key, chunk) -> tuple[dict[str, Any], Any]:
    """What the loss is made of, each [B, T], and extras."""
    inputs, targets = batch["inputs"], batch["targets"]
    if chunk is None:
        logits, extras = apply(params, extras, inputs, key=key)
        return _scored(logits, targets), extras
    hidden, extras = apply(params, extras, inputs, key=key, logits=False)
    read = readable(apply, params, extras)
    return chunked(_scored, read, hidden, targets, chunk), extras


def _scored(logits: jax.Array, targets: jax.Array) -> dict[str, jax.Array]:
    """Of each token: its cross-entropy, log Z, the mean logit, whether it is first."""
    logits = logits.astype(jnp.float32)
    logz = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    right = top1(logits, targets)
    mean = logits.mean(-1)
    return {"nll": logz - chosen, "logz": logz, "mean": mean, "right": right}
