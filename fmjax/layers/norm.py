"""Layer normalisation and RMS normalisation, whose gradients are two sums a row."""

# D width

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

NORMS = ("layer", "rms")


def _normalised(x: jax.Array, eps: float, centred: bool) -> tuple[jax.Array, jax.Array]:
    """(x normalised, the factor [..., 1]), both in float32 at least."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    # In two passes: E[x^2] - E[x]^2 loses digits where the mean is large against the
    # deviation.
    x = x - x.mean(-1, keepdims=True) if centred else x
    rate = jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + eps)
    return x * rate, rate


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def normalise(x: jax.Array, eps: float, centred: bool = True) -> jax.Array:
    """[..., D] over its last axis: (x - mean) / sqrt(variance + eps), float32 at least.

    centred False takes no mean (Zhang & Sennrich 2019, eq. 4). The derivative is
    written out, and is its own transpose: by what jax derives, the backward pass has
    several more passes over x.
    """
    return _normalised(x, eps, centred)[0]


@normalise.defjvp
def _derivative(eps, centred, primals, tangents):
    (x,), (t,) = primals, tangents
    y, rate = _normalised(x, eps, centred)
    t = t.astype(y.dtype)
    along = t - y * (y * t).mean(-1, keepdims=True)
    along = along - t.mean(-1, keepdims=True) if centred else along
    return y, rate * along


class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al. 2016): [..., D] to [..., D] in `dtype`.

    Statistics, `scale` [D] and `bias` [D] are in float32 at least.
    """

    eps: float
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], jnp.float32)
        return (normalise(x, self.eps) * scale + bias).astype(self.dtype)


class RMSNorm(nn.Module):
    """RMS normalisation (Zhang & Sennrich 2019): no mean and no bias.

    [..., D] to [..., D] in `dtype`; statistics and `scale` [D] in float32 at least.
    """

    eps: float
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        return (normalise(x, self.eps, False) * scale).astype(self.dtype)


def norm(
    kind: str, eps: float, dtype: Dtype, name: str | None = None
) -> LayerNorm | RMSNorm:
    """'layer' or 'rms', made inside a module. Raises ValueError for another kind."""
    if kind == "layer":
        return LayerNorm(eps, dtype, name=name)
    if kind == "rms":
        return RMSNorm(eps, dtype, name=name)
    raise ValueError(f"unknown norm {kind!r} (known: {', '.join(NORMS)})")
