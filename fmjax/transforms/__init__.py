"""Functions from a net to a net: adapters of every published kind, for every family.

What they return is a net whose modules' calls are changed, and a net itself.

A transform puts its parameters beside those of the module that it changes, as
'layer0/attention/query/lora_a' beside '.../kernel'. The net's own parameters keep their
paths, so that checkpoints, `init_from` and patterns of `optim` fit both.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util


@dataclasses.dataclass(frozen=True)
class Transformed:
    """What every transform returns: `init` and `apply` as a linen module has them.

    At `init`, modules whose path the pattern `target` matches are given parameters; at
    `apply`, modules that have them are changed, wherever blocks are scanned to.
    """

    net: Any
    target: str

    names: ClassVar[tuple[str, ...]] = ()  # parameters that a changed module has

    def init(self, *args: Any, **kwargs: Any) -> Any:
        """The net's variables with the transform's parameters beside them.

        Raises ValueError where no module that can be changed matches `target`.
        """
        seen: set[str] = set()
        with nn.intercept_methods(lambda *call: self._intercept(seen, *call)):
            variables = self.net.init(*args, **kwargs)
        if not self.found(variables["params"]):
            raise ValueError(
                f"{type(self).__name__}: target={self.target!r} matches none of the "
                f"modules that it could change: {', '.join(sorted(seen))}"
            )
        return variables

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """As the net's."""
        with nn.intercept_methods(lambda *call: self._intercept(None, *call)):
            return self.net.apply(*args, **kwargs)

    def settle(self, params: Any, fresh: Collection[str]) -> Any:
        """The parameters after others were loaded into the net, which `fresh` were not.

        Most begin with what does not depend on the net's; DoRA's lengths do.
        """
        if isinstance(self.net, Transformed):
            return self.net.settle(params, fresh)
        return params

    def found(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The transform's own parameters by path."""
        flat = flatten(params)
        return {p: v for p, v in flat.items() if self.owns(p)}

    def owns(self, path: str) -> bool:
        """Is a parameter's path one of the transform's own?"""
        return bool(set(path.split("/")) & set(self.names))

    def _intercept(self, seen: set[str] | None, call, args, kwargs, context) -> Any:
        module = context.module
        if context.method_name != "__call__" or not self.changes(module):
            return call(*args, **kwargs)
        if seen is None:
            chosen = any(module.has_variable("params", name) for name in self.names)
        else:
            path = "/".join(module.path)
            seen.add(path)
            chosen = bool(re.search(self.target, path))
        return (self.call if chosen else _plain)(module, call, *args, **kwargs)

    def changes(self, module: nn.Module) -> bool:
        """Can this kind of module be changed?"""
        raise TypeError(f"{type(self).__name__} changes no module")

    def call(self, module: nn.Module, call: Callable, *args: Any, **kwargs: Any) -> Any:
        """What a chosen module's call returns."""
        return call(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.net, name)


def _plain(module: nn.Module, call: Callable, *args: Any, **kwargs: Any) -> Any:
    return call(*args, **kwargs)


def linear(module: nn.Module) -> bool:
    """Is a module a linear map of the last axis: a Dense, or a 1x1 convolution?

    The latter of stride 1, in one group and without a border; its kernel is
    [1, 1, D, E].
    """
    if not isinstance(module, nn.Conv):
        return isinstance(module, nn.Dense)
    padding = module.padding
    if not isinstance(padding, str):
        padding = "SAME" if not np.any(padding) else "wider"
    return (
        bool(np.all(np.asarray(module.kernel_size) == 1))
        and bool(np.all(np.asarray(module.strides or 1) == 1))
        and module.feature_group_count == 1
        and padding in ("SAME", "VALID")
    )


def without_dropout_of_its_own(net: Any, dropout: float, name: str) -> None:
    """Raises ValueError where a module's call can't know whether it is trained."""
    if dropout and (getattr(net, "scan", False) or getattr(net, "remat", None)):
        raise ValueError(
            f"{name}.dropout={dropout} can't be with model.scan or model.remat, whose "
            "blocks have no random stream of their own; set it to 0"
        )


def plain(net: Any) -> Any:
    """The net below all transforms."""
    while isinstance(net, Transformed):
        net = net.net
    return net


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """{path: leaf} of nested dicts."""
    return traverse_util.flatten_dict(dict(tree), sep="/")


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts of {path: leaf}."""
    return traverse_util.unflatten_dict(dict(flat), sep="/")


def merged(net: Any, params: Mapping[str, Any]) -> tuple[Any, Any]:
    """(the net below all transforms, its parameters): the same function of inputs.

    Raises ValueError where a transform computes what no weights of the net do.
    """
    if not isinstance(net, Transformed):
        return net, params
    below, params = merged(net.net, params)
    merge = getattr(sys.modules[type(net).__module__], "merge", None)
    if merge is None:
        kind = type(net).__module__.rpartition(".")[2]
        raise ValueError(
            f"the transform {kind!r} can't be merged: it computes what no weights of "
            "the net itself do; keep the run, or train one of lora, adalora and ia3"
        )
    return merge(dataclasses.replace(net, net=below), params)


def split(net: Transformed, params: Mapping[str, Any]) -> tuple[Any, Any]:
    """(the net's own parameters, the transform's): together they are `params`.

    For transforms of a transformed net the second holds those of all of them.
    """
    own: dict[str, Any] = {}
    added: dict[str, Any] = {}
    chain = []
    while isinstance(net, Transformed):
        chain.append(net)
        net = net.net
    for path, value in flatten(params).items():
        mine = any(one.owns(path) for one in chain)
        (added if mine else own)[path] = value
    return unflatten(own), unflatten(added)


def join(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """One tree from `split`'s parts. Raises ValueError where two have one path."""
    whole: dict[str, Any] = {}
    for part in map(flatten, parts):
        if twice := sorted(set(whole) & set(part)):
            raise ValueError(f"two parts have the parameters {', '.join(twice[:5])}")
        whole |= part
    return unflatten(whole)


def promote(module: nn.Module, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Arrays in what the module computes in."""
    dtype = getattr(module, "dtype", None)
    return tuple(x if dtype is None else x.astype(dtype) for x in arrays)
