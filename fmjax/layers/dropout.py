"""Dropout as a pure function and as a module."""

import jax
import jax.numpy as jnp
from flax import linen as nn


def drop(x: jax.Array, rate: float, rng: jax.Array) -> jax.Array:
    """Zeroes elements of x at `rate` and scales the rest by 1 / (1 - rate).

    Srivastava et al. 2014. x: [..., n], floating. Same shape and dtype come back.
    Raises ValueError where rate is outside [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"a dropout rate lies in [0, 1), got {rate}")
    # Half a random word an element: random bits are most of dropout's cost on CPU, and
    # a step of 1/65536 in the rate, which the scale takes into account, is no loss.
    keep = max(1, round((1 - rate) * 65536))
    *batch, last = x.shape
    words = jax.random.bits(rng, (*batch, -(-last // 2)), "uint32")
    bits = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(*batch, -1)
    kept = bits[..., :last] <= jnp.uint16(keep - 1)
    return jnp.where(kept, x * (65536 / keep), jnp.zeros((), x.dtype))


class Dropout(nn.Module):
    """`drop` with the 'dropout' stream; the identity where train is False or rate 0."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if not train or not self.rate:
            return x
        return drop(x, self.rate, self.make_rng("dropout"))
