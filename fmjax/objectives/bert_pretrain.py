"""BERT's two training signals (Devlin et al. 2018, section 3.1)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from fmjax.objectives import chunked, readable, top1

cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def objective(apply, params, extras, batch, key, *, chunk: int | None = None):
    """Sums of masked language modelling and of next-sentence prediction (nats).

    The model returns logits [B, P, V] at the masked positions and [B, 2] for the pair,
    or the former alone (BERT's head 'mlm'): then there is the first term alone.
    batch: inputs, targets int32 [B, P], weights float32 [B, P] (0 = unused position),
    next int32 [B] (0 = B follows A), mask float32 [B].
    The terms have unlike denominators: masked positions, and sentence pairs.
    chunk: so many positions of each row have their logits at once, None: all
    (`objectives.chunked`); the model then has a method `read`.
    """
    whole = {} if chunk is None else {"logits": False}
    said, extras = apply(params, extras, batch["inputs"], key=key, **whole)
    tokens, pair = said if isinstance(said, tuple) else (said, None)
    if chunk is None:
        scored = _scored(tokens, batch["targets"])
    else:
        read = readable(apply, params, extras)
        scored = chunked(_scored, read, tokens, batch["targets"], chunk)
    mask, weights = batch["mask"], batch["weights"] * batch["mask"][:, None]
    masked, right = (part * weights for part in scored)
    losses = {"masked_lm": (masked.sum(), weights.sum())}
    metrics = {"masked_lm_accuracy": (right.sum(), weights.sum())}
    if pair is not None:
        pair = pair.astype(jnp.float32)
        following = cross_entropy(pair, batch["next"]) * mask
        right_pair = top1(pair, batch["next"]) * mask
        losses["next_sentence"] = (following.sum(), mask.sum())
        metrics["next_sentence_accuracy"] = (right_pair.sum(), mask.sum())
    return losses, metrics, extras


def _scored(tokens: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of each position: its cross-entropy, and whether its token is first."""
    tokens = tokens.astype(jnp.float32)
    return cross_entropy(tokens, targets), top1(tokens, targets)
