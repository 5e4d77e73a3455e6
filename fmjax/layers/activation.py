"""Activation functions by name."""

import difflib
import functools
from collections.abc import Callable

import jax
from flax import linen as nn

Activation = Callable[[jax.Array], jax.Array]

ACTIVATIONS: dict[str, Activation] = {
    # The exact form, x * Phi(x) by erf (Hendrycks and Gimpel 2016): BERT, ViT, Whisper.
    "gelu": functools.partial(nn.gelu, approximate=False),
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
