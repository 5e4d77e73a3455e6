"""LoRA (Hu et al. 2022, arXiv:2106.09685) and DoRA (Liu et al. 2024, 2402.09353)."""

# D in, E out, R rank

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fmjax import transforms
from fmjax.layers.dropout import drop

A, B, MAGNITUDE = "lora_a", "lora_b", "lora_magnitude"


def transform(
    net: Any,
    *,
    target: str = "(query|value)$",
    rank: int = 8,
    alpha: float | None = None,
    dropout: float = 0.0,
    rank_stabilised: bool = False,
    dora: bool = False,
) -> Lora:
    """A net whose linear maps add s (x A) B, of which A and B are trained.

    target: a pattern over module paths (`re.search`); linear maps alone can be changed,
    1x1 convolutions among them.
    A: [D, R], uniform as torch's `Linear` and the authors' code (section 4.1 says
    Gaussian), B: [R, E], zeros, so that the net begins as it was. alpha: s = alpha / R,
    None is R; rank_stabilised: s = alpha / sqrt(R) (Kalajdzievski 2023). dropout: of x
    before A, in training.
    dora: the map's columns are W + s A B with lengths of their own, which are trained
    too (eq. 5), and are no part of the gradient through the direction (section 4.3).
    Raises ValueError where rank is below 1 or dropout can't be.
    """
    if rank < 1:
        raise ValueError(f"lora.rank is {rank}; 1 or more")
    transforms.without_dropout_of_its_own(net, dropout, "lora")
    alpha = float(rank) if alpha is None else alpha
    scale = alpha / (rank**0.5 if rank_stabilised else rank)
    return Lora(net, target, rank, scale, dropout, dora)


@dataclasses.dataclass(frozen=True)
class Lora(transforms.Transformed):
    """See `transform`."""

    rank: int
    scale: float
    dropout: float
    dora: bool

    names: ClassVar[tuple[str, ...]] = (A, B, MAGNITUDE)

    def changes(self, module: nn.Module) -> bool:
        return transforms.linear(module)

    def call(self, module: nn.Module, call: Callable, x: jax.Array, **kwargs) -> Any:
        assert isinstance(module, nn.Dense | nn.Conv)
        y = call(x, **kwargs)
        a = module.param(A, _uniform, (x.shape[-1], self.rank))
        b = module.param(B, nn.initializers.zeros, (self.rank, module.features))
        x, a, b = transforms.promote(module, x, a, b)
        dropped = x
        if self.dropout and module.has_rng("dropout"):
            dropped = drop(x, self.dropout, module.make_rng("dropout"))
        if not self.dora:
            return y + self.scale * ((dropped @ a) @ b)
        kernel: jax.Array = module.get_variable("params", "kernel")
        length = jax.lax.stop_gradient(_length(kernel + self.scale * (a @ b)))
        magnitude = module.param(MAGNITUDE, lambda _: _length(kernel))
        (kernel,) = transforms.promote(module, kernel)
        both = x @ kernel.reshape(kernel.shape[-2:]) + self.scale * ((dropped @ a) @ b)
        y = both * (magnitude / length).astype(both.dtype)
        if module.use_bias:
            y += transforms.promote(module, module.get_variable("params", "bias"))[0]
        return y

    def settle(self, params: Any, fresh: Collection[str]) -> Any:
        """DoRA's lengths are those of the weights that were loaded (eq. 5)."""
        flat = transforms.flatten(super().settle(params, fresh))
        for path in [p for p in fresh if p.endswith(f"/{MAGNITUDE}")]:
            flat[path] = _length(flat[path.removesuffix(MAGNITUDE) + "kernel"])
        return transforms.unflatten(flat)


def merge(net: Lora, params: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """(the net without LoRA, its parameters): the same function, at no cost.

    The sum is rounded, so that `unmerge` gives the kernels back to a rounding error and
    not to the bit; `transforms.split` keeps the exact ones.
    """
    flat = transforms.flatten(params)
    for path in [p for p in flat if p.endswith(f"/{A}")]:
        at = path.removesuffix(A)
        kernel = flat[at + "kernel"] + delta(net, flat, at)
        if net.dora:
            kernel = kernel * (flat.pop(at + MAGNITUDE) / _length(kernel))
        flat[at + "kernel"] = kernel
        del flat[path], flat[at + B]
    return net.net, transforms.unflatten(flat)


def unmerge(
    net: Lora, params: Mapping[str, Any], added: Mapping[str, Any]
) -> dict[str, Any]:
    """Parameters of `net` from merged ones and the adapter's, which `split` gives.

    Raises ValueError for DoRA, whose columns' lengths are lost in the merged kernel.
    """
    if net.dora:
        raise ValueError(
            "a merged DoRA can't be taken apart: the kernels' own lengths are lost; "
            "keep the unmerged parameters"
        )
    flat, extra = transforms.flatten(params), transforms.flatten(added)
    for path in [p for p in extra if p.endswith(f"/{A}")]:
        at = path.removesuffix(A)
        flat[at + "kernel"] = flat[at + "kernel"] - delta(net, extra, at)
    return transforms.join(transforms.unflatten(flat), added)


def delta(net: Lora, flat: Mapping[str, Any], at: str) -> jax.Array:
    """s A B [D, E] of the map at path `at` (which ends in a slash)."""
    return net.scale * (jnp.asarray(flat[at + A]) @ jnp.asarray(flat[at + B]))


def _uniform(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    bound = shape[0] ** -0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _length(kernel: jax.Array) -> jax.Array:
    """The length of each column of [..., D, E], float32 [E]."""
    columns = kernel.reshape(-1, kernel.shape[-1]).astype("float32")
    return jnp.sqrt(jnp.sum(jnp.square(columns), axis=0))
