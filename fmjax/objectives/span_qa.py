"""Where an answer begins and ends (Devlin et al. 2018, section 4.2)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from fmjax.objectives import top1

METRICS = ("question_answering",)
LONGEST = 30  # pieces of an answer, as in the authors' run_squad.py


def objective(apply, params, extras, batch, key, *, max_answer: int = LONGEST):
    """Sums of the cross-entropies of start and end (nats), halved, and of exact spans.

    The model returns logits [B, T, 2]. batch: inputs {tokens, types, mask bool [B, T]},
    start and end int32 [B] (the last piece, included; both 0, [CLS], where the window
    has no answer), mask float32 [B]. max_answer: the longest answer that `predict`
    takes, in pieces; the sums do not depend on it.
    Raises ValueError where max_answer is no whole number from 1.
    """
    _check(max_answer)
    logits, extras = _logits(apply, params, extras, batch, key)
    mask, wanted = batch["mask"], jnp.stack([batch["start"], batch["end"]])
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, wanted).mean(0)
    right = top1(logits, wanted).all(0)
    weight = mask.sum()
    losses = {"span_qa": ((loss * mask).sum(), weight)}
    return losses, {"exact_span": ((right * mask).sum(), weight)}, extras


def predict(
    apply, params, extras, batch, *, max_answer: int = LONGEST
) -> dict[str, jax.Array]:
    """The best span start <= end < start + max_answer within the context, or [CLS].

    The context is what has type 1, but for the last real token, its [SEP].
    first, last: int32 [B], pieces, the last one included; margin: float32 [B], the
    span's score less that of no answer (start = end = 0). Raises as `objective`.
    """
    _check(max_answer)
    logits, _ = _logits(apply, params, extras, batch, None)
    real = batch["inputs"]["mask"]
    context = (batch["inputs"]["types"] == 1) & jnp.pad(real[:, 1:], ((0, 0), (0, 1)))
    start, end = jnp.where(context, logits, -jnp.inf)
    length = start.shape[-1]
    distance = jnp.arange(length)[None, :] - jnp.arange(length)[:, None]
    allowed = (distance >= 0) & (distance < max_answer)
    scores = jnp.where(allowed, start[:, :, None] + end[:, None, :], -jnp.inf)
    flat = scores.reshape(len(scores), -1)
    best = flat.argmax(-1)
    none = logits[0, :, 0] + logits[1, :, 0]
    return {
        "first": (best // length).astype(jnp.int32),
        "last": (best % length).astype(jnp.int32),
        "margin": flat.max(-1) - none,
    }


def _check(max_answer) -> None:
    if type(max_answer) is not int or max_answer < 1:
        raise ValueError(
            f"objective.max_answer={max_answer!r}: the longest answer in pieces, a "
            f"whole number from 1 (by default {LONGEST})"
        )


def _logits(apply, params, extras, batch, key):
    """float32 [2, B, T], padding at minus infinity (the authors leave it as it is)."""
    logits, extras = apply(params, extras, batch["inputs"], key=key)
    logits = jnp.moveaxis(logits.astype(jnp.float32), -1, 0)
    return jnp.where(batch["inputs"]["mask"], logits, -jnp.inf), extras
