"""Scaled dot-product attention as a pure function of arrays."""

# B batch, T queries, S keys, H query heads, G key-value heads, K head width

import contextvars
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fmjax.layers.dropout import drop

IMPLEMENTATIONS = ("xla", "cudnn", "flash")

# What computes `attend` for 'flash', or answers None; set by `fmjax.flash` while what
# is for its devices is traced.
KERNEL: contextvars.ContextVar[Callable[..., jax.Array | None] | None] = (
    contextvars.ContextVar("KERNEL", default=None)
)


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    segments: tuple[jax.Array, jax.Array] | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    rng: jax.Array | None = None,
    implementation: str | None = None,
) -> jax.Array:
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1).

    query: [B, T, H, K]; key, value: [B, S, G, K] where G divides H (grouped queries,
    Ainslie et al. 2023; G = H is the ordinary case).
    mask: bool, broadcast to [B, H, T, S], True attends. bias: added to the scaled
    scores, broadcast likewise. causal: query t sees keys 0..t, for T = S only.
    segments: int [B, T] and [B, S], the documents of queries and keys: attends where
    they are the same, and `mask` lets it.
    scale: factor on the scores, 1/sqrt(K) where None (T5 has 1).
    dropout: rate on the probabilities, applied where `rng`, a key, is given.
    implementation: None is the code below, which is the faster on a CPU; 'xla' and
    'cudnn' (GPU, half precision) are those of `jax.nn.dot_product_attention`, which has
    no dropout: where it is on, the code below serves. 'flash' is jax's kernel for TPUs
    (`fmjax.flash`) where the step is for them and there is no dropout, no bias and no
    mask but of whole keys, [B, 1, 1, S]; the code below elsewhere.
    Returns [B, T, H, K] in value's dtype; the softmax is in float32. A query which may
    see no key at all gets the mean of the values: finite, for the caller to ignore.
    Raises ValueError where shapes do not fit together, `mask` is not boolean or there
    is no such implementation.
    """
    batch, queries, heads, head_width = query.shape
    keys, groups = key.shape[1:3]
    _check(query, key, value, mask, causal)
    if implementation not in (None, *IMPLEMENTATIONS):
        known = ", ".join(IMPLEMENTATIONS)
        raise ValueError(f"attend: no implementation {implementation!r} ({known})")
    scale = head_width**-0.5 if scale is None else scale
    if rng is not None and dropout:
        implementation = None
    if implementation == "flash" and (kernel := KERNEL.get()):
        out = kernel(
            query,
            key,
            value,
            mask=mask,
            bias=bias,
            segments=segments,
            causal=causal,
            scale=scale,
        )
        if out is not None:
            return out
    mask = within(segments, mask)
    if implementation in ("xla", "cudnn"):
        return jax.nn.dot_product_attention(  # type: ignore[call-overload]
            query,
            key,
            value,
            bias=_four(bias),
            mask=_four(mask),
            is_causal=causal,
            scale=scale,
            implementation=implementation,
        )

    probabilities = weights(
        query, key, mask=mask, bias=bias, causal=causal, scale=scale
    )
    if rng is not None and dropout:
        probabilities = drop(probabilities, dropout, rng)

    probabilities = probabilities.astype(value.dtype)
    probabilities = probabilities.reshape(batch, groups, -1, keys)
    value = value.transpose(0, 2, 1, 3)
    out = jnp.einsum("bgqs,bgsk->bgqk", probabilities, value)
    return out.reshape(batch, heads, queries, head_width).transpose(0, 2, 1, 3)


def weights(
    query: jax.Array,
    key: jax.Array,
    *,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> jax.Array:
    """What `attend` weighs values by: float32 [B, H, T, S], whose rows add up to 1."""
    batch, queries, heads, head_width = query.shape
    keys, groups = key.shape[1:3]
    scale = head_width**-0.5 if scale is None else scale
    # Heads go before time: XLA's batched matmuls on CPU want the batch axes in front,
    # and the heads of one group are then one longer run of queries.
    query = (query * scale).transpose(0, 2, 1, 3)
    query = query.reshape(batch, groups, heads // groups * queries, head_width)
    key = key.transpose(0, 2, 1, 3)

    scores = jnp.einsum("bgqk,bgsk->bgqs", query, key, preferred_element_type="float32")
    scores = scores.reshape(batch, heads, queries, keys)
    if bias is not None:
        scores += bias
    if causal:
        order = jnp.tri(queries, dtype=bool)
        mask = order if mask is None else mask & order
    if mask is not None:
        # The lowest finite number and not -inf, so that no row is nan.
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    return jax.nn.softmax(scores)


def within(
    segments: tuple[jax.Array, jax.Array] | None, mask: jax.Array | None
) -> jax.Array | None:
    """A mask [B, 1, T, S] of the pairs of one segment, and in `mask`."""
    if segments is None:
        return mask
    own = (segments[0][:, :, None] == segments[1][:, None, :])[:, None]
    return own if mask is None else mask & own


def _four(x: jax.Array | None) -> jax.Array | None:
    """With axes of length 1 in front, up to four."""
    return x if x is None else x.reshape((1,) * (4 - x.ndim) + x.shape)


def _check(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    causal: bool,
) -> None:
    if key.shape != value.shape:
        raise ValueError(f"attend: key is {key.shape} but value is {value.shape}")
    if query.shape[0] != key.shape[0] or query.shape[3] != key.shape[3]:
        raise ValueError(
            f"attend: query {query.shape} and key {key.shape} must agree in batch and "
            "head width (axes 0 and 3)"
        )
    if query.shape[2] % key.shape[2]:
        raise ValueError(
            f"attend: {query.shape[2]} query heads is not a multiple of "
            f"{key.shape[2]} key-value heads"
        )
    if causal and query.shape[1] != key.shape[1]:
        raise ValueError(
            f"attend: causal needs as many queries as keys, got {query.shape[1]} and "
            f"{key.shape[1]}; with a cache, give the mask that says which keys exist"
        )
    if mask is not None and mask.dtype != jnp.bool_:
        raise ValueError(
            f"attend: mask must be bool (True attends), got {mask.dtype}; additive "
            "masks go in `bias`"
        )
