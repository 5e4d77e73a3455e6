"""Bottleneck adapters: Houlsby et al. 2019 (arXiv:1902.00751), Pfeiffer et al. 2021."""

# D width, R bottleneck width

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from flax import linen as nn

from fmjax import transforms
from fmjax.layers.activation import activation
from fmjax.layers.dense import dense

DOWN, UP = "adapter_down", "adapter_up"
PLACES = {
    # After both parts of a block (Houlsby et al., figure 2), or after its MLP alone
    # (Pfeiffer et al., figure 3).
    "houlsby": "(^|/)(attention|cross_attention|mlp)$",
    "pfeiffer": "(^|/)mlp$",
}


def transform(
    net: Any,
    *,
    kind: str = "houlsby",
    target: str | None = None,
    width: int = 64,
    act: str = "gelu",
) -> Adapter:
    """A net with small MLPs after parts of its blocks: y + up(act(down(y))).

    kind: 'houlsby' or 'pfeiffer'; target: a pattern over module paths of one's own
    instead, of modules that return [..., D] or a tuple that begins with it. `up` begins
    as zeros, so that the net begins as it was, and `down` with a deviation of 0.01
    (section 3.6; the authors' code has 0.001 for both). They come before a block's
    dropout and shortcut, in both kinds; AdapterHub's 'pfeiffer' takes the sum,
    normalised. Houlsby et al. also train the norms: name their scales and biases in
    `optim.train`. Raises ValueError for another kind, a width below 1 or an unknown
    activation.
    """
    if kind not in PLACES:
        raise ValueError(f"no adapter.kind {kind!r} (known: {', '.join(PLACES)})")
    if width < 1:
        raise ValueError(f"adapter.width is {width}; 1 or more")
    activation(act)
    return Adapter(net, PLACES[kind] if target is None else target, width, act)


@dataclasses.dataclass(frozen=True)
class Adapter(transforms.Transformed):
    """See `transform`."""

    width: int
    act: str

    names: ClassVar[tuple[str, ...]] = (DOWN, UP)

    def changes(self, module: nn.Module) -> bool:
        # Not its own maps, and not the whole net, whose output is no [..., D].
        return module.name not in (None, DOWN, UP)

    def call(self, module: nn.Module, call: Callable, *args: Any, **kwargs: Any) -> Any:
        out = call(*args, **kwargs)
        y, *rest = out if isinstance(out, tuple) else (out,)
        dtype = getattr(module, "dtype", None) or y.dtype
        init = nn.initializers.truncated_normal(0.01)  # section 3.6
        down = dense(self.width, dtype, DOWN, kernel_init=init)
        up = dense(y.shape[-1], dtype, UP, kernel_init=nn.initializers.zeros)
        y = y + up(activation(self.act)(down(y)))
        return (y, *rest) if isinstance(out, tuple) else y
