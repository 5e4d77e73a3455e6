"""Multi-head attention as a linen module, with an explicit cache for decoding.

Parameters are float32 always; `dtype` is what is computed in.
"""

# B batch, T queries, S keys, L cache slots, D width, H heads, G key-value heads,
# K head width

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer

from fmjax.layers.attend import attend, within
from fmjax.layers.dense import dense, truncated_normal
from fmjax.layers.norm import norm

# 'key' and 'value', both [B, G, L, K]: heads go before slots, as `attend` wants them,
# so that a step of decoding reads a cache as it lies.
Cache = dict[str, jax.Array]

# Parameters [P, G, K] that `transforms.prefix` puts beside a module's own.
PREFIX_KEY, PREFIX_VALUE = "prefix_key", "prefix_value"


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2).

    Kernels are plain matrices, [D, H * K] for query, key and value, [H * K, D] for out.
    head_width None is D / heads; kv_heads None is heads (fewer: grouped queries).
    query_init, out_init: None for `kernel_init`. implementation: as in `attend`.
    qk_norm: 'layer' or 'rms' normalises each head's queries and keys before their
    product, with one scale [K] for all heads (Dehghani et al. 2023, section 2).
    """

    heads: int
    head_width: int | None = None
    kv_heads: int | None = None
    use_bias: bool = True
    scale: float | None = None
    dropout: float = 0.0
    implementation: str | None = None
    kernel_init: Initializer = truncated_normal
    query_init: Initializer | None = None
    out_init: Initializer | None = None
    qk_norm: str | None = None
    eps: float = 1e-6
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        source: jax.Array | Cache | None = None,
        *,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
        segments: jax.Array | None = None,
        causal: bool = False,
        cache: Cache | None = None,
        index: jax.Array | int = 0,
        rng: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache]:
        """x: [B, T, D] to ([B, T, D], the keys and values that were attended to).

        source: None for x itself, [B, S, D], or the keys and values that an earlier
            call returned for it.
        cache: with source None: the new keys and values are written to slots index ..
            index + T - 1 of a copy of it, and all its slots are attended to as far as
            `mask` lets them.
        mask, bias, causal: as in `attend`. segments: int [B, T], of x and of what it
            attends to, for source None. rng: a key where dropout is on.
        Raises ValueError where D does not divide by heads and no head_width is given.
        """
        width = x.shape[-1]
        if self.head_width is None and width % self.heads:
            raise ValueError(
                f"width {width} does not divide by {self.heads} heads; heads that fit: "
                f"{_divisors(width)}"
            )
        head_width = self.head_width or width // self.heads
        kv_heads = self.kv_heads or self.heads

        def project(y: jax.Array, heads: int, name: str) -> jax.Array:
            init = self.query_init if name == "query" else None
            y = dense(
                heads * head_width,
                self.dtype,
                name,
                use_bias=self.use_bias,
                kernel_init=init or self.kernel_init,
            )(y)
            y = y.reshape(*y.shape[:2], heads, head_width)
            if self.qk_norm and name != "value":
                y = norm(self.qk_norm, self.eps, self.dtype, f"{name}_norm")(y)
            return y

        query = project(x, self.heads, "query")
        if isinstance(source, dict):
            kept = source
        else:
            source = x if source is None else source
            kept = {
                name: project(source, kv_heads, name).swapaxes(1, 2)
                for name in ("key", "value")
            }
        if cache is not None:
            kept = {
                name: jax.lax.dynamic_update_slice_in_dim(
                    cache[name], new.astype(cache[name].dtype), index, axis=2
                )
                for name, new in kept.items()
            }
        seen, pairs = kept, None if segments is None else (segments, segments)
        if self.has_variable("params", PREFIX_KEY):
            more: Cache = {
                "key": self.get_variable("params", PREFIX_KEY),
                "value": self.get_variable("params", PREFIX_VALUE),
            }
            mask = within(pairs, mask)
            seen, mask, bias = _after(more, kept, mask, bias, causal)
            causal, pairs = False, None
        out = attend(
            query,
            seen["key"].swapaxes(1, 2),
            seen["value"].swapaxes(1, 2),
            mask=mask,
            bias=bias,
            segments=pairs,
            causal=causal,
            scale=self.scale,
            dropout=self.dropout if rng is not None else 0.0,
            rng=rng,
            implementation=self.implementation,
        )
        out = out.reshape(*out.shape[:2], -1)
        init = self.out_init or self.kernel_init
        out = dense(width, self.dtype, "out", use_bias=self.use_bias, kernel_init=init)(
            out
        )
        return out, kept


def empty(
    batch: int, length: int, heads: int, head_width: int, dtype: Dtype = "float32"
) -> Cache:
    """A cache of `length` empty slots: zeros [batch, heads, length, head_width]."""
    # Two arrays and not one twice, so that both can be given away to a compiled step.
    shape = (batch, heads, length, head_width)
    return {"key": jnp.zeros(shape, dtype), "value": jnp.zeros(shape, dtype)}


def visible(mask: jax.Array, index: jax.Array | int, queries: int) -> jax.Array:
    """Which cache slots queries at slots index .. index + queries - 1 may see.

    mask: bool [B, L], False for slots that hold padding. Returns bool [B, 1, T, L]:
    those at or before the query's own slot and in the mask.
    """
    slots = jnp.arange(mask.shape[1])
    before = slots[None, :] <= (index + jnp.arange(queries))[:, None]
    return (before[None] & mask[:, None, :])[:, None]


def _after(
    prefix: Cache,
    kept: Cache,
    mask: jax.Array | None,
    bias: jax.Array | None,
    causal: bool,
) -> tuple[Cache, jax.Array | None, jax.Array | None]:
    """Keys and values with a prefix before them, which all see and no bias is for."""
    batch, _, slots, _ = kept["key"].shape
    if causal:
        order = jnp.tri(slots, dtype=bool)
        mask = order if mask is None else mask & order

    def before(new: jax.Array, old: jax.Array) -> jax.Array:
        new = new.swapaxes(0, 1).astype(old.dtype)
        rows = jnp.broadcast_to(new, (batch, *new.shape))
        return jnp.concatenate([rows, old], axis=2)

    def widened(x: jax.Array | None, value: float | bool) -> jax.Array | None:
        if x is None:
            return None
        sides = [(0, 0)] * (x.ndim - 1) + [(prefix["key"].shape[0], 0)]
        if x.shape[-1] == 1 and slots != 1:
            x = jnp.broadcast_to(x, (*x.shape[:-1], slots))
        return jnp.pad(x, sides, constant_values=value)

    seen = {name: before(prefix[name], kept[name]) for name in kept}
    return seen, widened(mask, True), widened(bias, 0.0)


def _divisors(n: int) -> str:
    return ", ".join(str(i) for i in range(1, n + 1) if n % i == 0 and i <= 128)
