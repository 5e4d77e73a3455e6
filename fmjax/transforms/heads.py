"""Heads of several tasks on one encoder (Liu et al. 2019, arXiv:1901.11504)."""

# B batch, T tokens, D width, C a task's classes

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
from flax import linen as nn

from fmjax import transforms
from fmjax.layers.dense import dense
from fmjax.layers.dropout import Dropout

KINDS = ("classify", "tag")
HEADS = "heads"


def transform(
    net: Any,
    *,
    tasks: Mapping[str, str],
    classes: Sequence[str] = (),
    dropout: float = 0.1,
) -> Heads:
    """A net that returns {task: logits} from the features of a net without a head.

    tasks: name -> 'classify', logits [B, C] from the pooled features [B, D], or 'tag',
    logits [B, T, C] from those of every token [B, T, D]. Features are what the net
    returns: one of the two, or both as (hidden, pooled), as BERT's with head None.
    classes: 'task/class', the names of all, which the data give (source `mixture`).
    dropout: on the features. A task's parameters are heads/TASK/kernel and bias.
    Raises ValueError for another kind, a task without classes and, when traced, a net
    that has no such features.
    """
    counts = {task: _count(task, classes) for task in tasks}
    for task, kind in tasks.items():
        if kind not in KINDS or counts[task] < 1:
            raise ValueError(
                f"heads.tasks.{task} is {kind!r} with {counts[task]} classes; it is "
                f"one of {', '.join(KINDS)}, and the data must have classes of a task "
                "of that name"
            )
    rows = tuple((task, kind, counts[task]) for task, kind in tasks.items())
    return Heads(net, "", rows, dropout)


def _count(task: str, classes: Sequence[str]) -> int:
    return sum(name.startswith(f"{task}/") for name in classes)


@dataclasses.dataclass(frozen=True)
class Heads(transforms.Transformed):
    """See `transform`."""

    tasks: tuple[tuple[str, str, int], ...]
    dropout: float

    names: ClassVar[tuple[str, ...]] = (HEADS,)

    def init(self, key: Any, *args: Any, **kwargs: Any) -> Any:
        variables = dict(self.net.init(key, *args, **kwargs))
        said = self.net.apply(variables, *args, **kwargs)
        own = self._module().init(jax.random.fold_in(key, 1), said, train=False)
        return variables | {"params": {**variables["params"], HEADS: own["params"]}}

    def apply(self, variables: Any, *args: Any, train: bool = False, **kwargs: Any):
        params = dict(variables["params"])
        own = {"params": params.pop(HEADS)}
        below = {**variables, "params": params}
        said = self.net.apply(below, *args, train=train, **kwargs)
        said, *changed = said if kwargs.get("mutable", False) is not False else (said,)
        rngs = {
            name: jax.random.fold_in(rng, 1)  # a stream apart from the net's
            for name, rng in (kwargs.get("rngs") or {}).items()
        }
        made = self._module().apply(own, said, train=train, rngs=rngs)
        return (made, *changed) if changed else made

    def owns(self, path: str) -> bool:
        return path.split("/")[0] == HEADS

    def _module(self) -> nn.Module:
        return _Linear(self.tasks, self.dropout)


class _Linear(nn.Module):
    tasks: tuple[tuple[str, str, int], ...]
    dropout: float

    @nn.compact
    def __call__(self, said: Any, *, train: bool) -> dict[str, jax.Array]:
        several = said if isinstance(said, tuple) else (said,)
        features = {x.ndim: x for x in several}
        logits = {}
        for task, kind, classes in self.tasks:
            x = features.get(2 if kind == "classify" else 3)
            if x is None:
                shapes = ", ".join(str(one.shape) for one in several)
                raise ValueError(
                    f"heads.tasks.{task} is {kind!r}, but the net returns {shapes}; "
                    "set model.head=None"
                )
            x = Dropout(self.dropout, name=f"{task}_dropout")(x, train=train)
            logits[task] = dense(classes, "float32", task)(x)
        return logits
