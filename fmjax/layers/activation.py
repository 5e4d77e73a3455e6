"""Activation functions by name."""

import difflib
import functools
from collections.abc import Callable

import jax
from flax import linen as nn

Activation = Callable[[jax.Array], jax.Array]


def gelu(x: jax.Array) -> jax.Array:
    """x * Phi(x) by the error function (Hendrycks and Gimpel 2016), elementwise.

    jax's own is by its complement, which keeps a narrow type's digits far below zero;
    in float32 torch, and so every public checkpoint, has them as this does, and on a
    CPU it takes half the time.
    """
    if jax.numpy.finfo(x.dtype).bits < 32:
        return nn.gelu(x, approximate=False)
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


ACTIVATIONS: dict[str, Activation] = {
    # The exact form: BERT, ViT, Whisper.
    "gelu": gelu,
    # The tanh approximation of the same paper: GPT-2, T5 1.1.
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    # x * sigmoid(1.702 x): OpenAI's CLIP weights.
    "gelu_sigmoid": lambda x: x * nn.sigmoid(1.702 * x),
    "relu": nn.relu,
    "silu": nn.silu,
    "tanh": nn.tanh,
}


def activation(name: str) -> Activation:
    """The elementwise function called `name`; a ValueError lists the known names."""
    if name not in ACTIVATIONS:
        near = difflib.get_close_matches(name, ACTIVATIONS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"unknown activation {name!r}{hint} (known: {', '.join(ACTIVATIONS)})"
        )
    return ACTIVATIONS[name]
