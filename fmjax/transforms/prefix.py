"""Prefix tuning (Li & Liang 2021, arXiv:2101.00190): learned keys and values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
from flax import linen as nn

from fmjax import transforms
from fmjax.layers.attention import PREFIX_KEY, PREFIX_VALUE, Attention


def transform(net: Any, *, target: str = "(^|/)attention$", length: int = 16) -> Prefix:
    """A net whose attentions see `length` more keys and values, which are trained.

    target: a pattern over paths of attention modules, the self-attentions by default.
    They are parameters themselves, [length, G, K], normal with deviation 0.02; the
    paper's reparametrisation by an MLP (section 4.3) is only for training and is left
    out. Raises ValueError for length < 1.
    """
    if length < 1:
        raise ValueError(f"prefix.length is {length}; 1 or more")
    return Prefix(net, target, length)


@dataclasses.dataclass(frozen=True)
class Prefix(transforms.Transformed):
    """See `transform`."""

    length: int

    names: ClassVar[tuple[str, ...]] = (PREFIX_KEY, PREFIX_VALUE)

    def changes(self, module: nn.Module) -> bool:
        return isinstance(module, Attention)

    def call(self, module: nn.Module, call: Callable, x: jax.Array, *args, **kw) -> Any:
        assert isinstance(module, Attention)
        if module.is_initializing():  # afterwards the attention finds them itself
            head_width = module.head_width or x.shape[-1] // module.heads
            shape = (self.length, module.kv_heads or module.heads, head_width)
            for name in self.names:
                module.param(name, nn.initializers.normal(0.02), shape)
        return call(x, *args, **kw)
