"""The next token's cross-entropy: language models, and decoders that see a source."""

from __future__ import annotations

import jax
import jax.numpy as jnp

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
):
    """Sums of cross-entropy (nats a token) and of top-1 accuracy.

    The model returns logits [B, T, V]. batch: inputs, targets int32 [B, T], weights
    float32 [B, T] (0 = nothing to predict), mask float32 [B].
    `label_smoothing` e trains towards 1 - e on the target and e / V everywhere (Vaswani
    et al. 2017, section 5.4). `z_loss` c adds c * log(Z)^2, which holds the softmax's
    normaliser Z near 1 (Mesh TensorFlow's; T5 trained with 1e-4). Evaluation has
    neither.
    """
    nll, logits, logz, extras = _nll(apply, params, extras, batch, key)
    weights = batch["weights"] * batch["mask"][:, None]
    loss = nll
    if key is not None and label_smoothing:
        # -sum_v q_v log p_v for q = (1 - e) onehot + e / V
        uniform = logz - logits.mean(-1)
        loss = (1 - label_smoothing) * nll + label_smoothing * uniform
    if key is not None and z_loss:
        loss = loss + z_loss * logz**2
    right = logits.argmax(-1) == batch["targets"]
    weight = weights.sum()
    losses = {"next_token": ((loss * weights).sum(), weight)}
    return losses, {"accuracy": ((right * weights).sum(), weight)}, extras


def predict(apply, params, extras, batch) -> dict[str, jax.Array]:
    """A row's summed cross-entropy, nll float32 [B]; predicted float32 [B], tokens."""
    nll, _, _, _ = _nll(apply, params, extras, batch, None)
    return {
        "nll": (nll * batch["weights"]).sum(-1),
        "predicted": batch["weights"].sum(-1),
    }


def _nll(apply, params, extras, batch, key):
    logits, extras = apply(params, extras, batch["inputs"], key=key)
    logits = logits.astype(jnp.float32)
    logz = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, batch["targets"][..., None], axis=-1)[..., 0]
    return logz - chosen, logits, logz, extras
