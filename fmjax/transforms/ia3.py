"""(IA)^3 (Liu et al. 2022, arXiv:2205.05638): learned factors of inner activations."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
from flax import linen as nn

from fmjax import transforms

OUT, IN = "ia3_out", "ia3_in"


def transform(
    net: Any, *, target: str = "(key|value)$", inputs: str | None = "mlp/down$"
) -> Ia3:
    """A net whose keys, values and MLPs' hidden units have a factor each (section 3.3).

    target: linear maps (1x1 convolutions too) whose output is multiplied; inputs: those
    whose input is. The factors, [E] and [D], begin as ones.
    """
    both = target if inputs is None else f"(?:{target})|(?:{inputs})"
    return Ia3(net, both, inputs)


@dataclasses.dataclass(frozen=True)
class Ia3(transforms.Transformed):
    """See `transform`."""

    inputs: str | None

    names: ClassVar[tuple[str, ...]] = (OUT, IN)

    def changes(self, module: nn.Module) -> bool:
        return transforms.linear(module)

    def call(self, module: nn.Module, call: Callable, x: jax.Array, **kwargs) -> Any:
        if module.is_initializing():
            path = "/".join(module.path)
            inwards = bool(self.inputs and re.search(self.inputs, path))
        else:
            inwards = module.has_variable("params", IN)
        ones = nn.initializers.ones
        if inwards:
            factor = module.param(IN, ones, x.shape[-1:])
            x, factor = transforms.promote(module, x, factor)
            return call(x * factor, **kwargs)
        y = call(x, **kwargs)
        return y * module.param(OUT, ones, y.shape[-1:]).astype(y.dtype)


def merge(net: Ia3, params: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """(the net without the factors, its parameters): the same function, at no cost.

    Taken apart again it has its kernels to a rounding error, not to the bit.
    """
    flat = transforms.flatten(params)
    for path in [p for p in flat if net.owns(p)]:
        at, factor = path.rpartition("/")[0], flat.pop(path)
        if path.endswith(IN):
            flat[f"{at}/kernel"] = flat[f"{at}/kernel"] * factor[:, None]
        else:
            flat[f"{at}/kernel"] = flat[f"{at}/kernel"] * factor
            if f"{at}/bias" in flat:
                flat[f"{at}/bias"] = flat[f"{at}/bias"] * factor
    return net.net, transforms.unflatten(flat)
