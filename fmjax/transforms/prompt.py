"""Prompt tuning (Lester et al. 2021, arXiv:2104.08691): learned token vectors."""

# B batch, T tokens, P prompt length, D width

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fmjax import transforms

PROMPT = "prompt"
KNOWN = {"tokens", "mask", "types", "decoder_tokens"}


def transform(
    net: Any,
    *,
    length: int = 20,
    target: str = "(^|/)(embed|tokens)$",
    keep: int = 0,
    deviation: float = 0.5,
) -> Prompt:
    """A net that reads P learned embeddings after the first `keep` tokens of each text.

    They are [P, D], normal with `deviation`, and go through positions and blocks as a
    token's; outputs [B, P + T, ...] are given back without them. (The paper draws them
    uniformly from -0.5 to 0.5, which is a deviation of 0.29, or begins with the vectors
    of words.) keep 0 is the paper's; 1 suits BERT, whose pooled output is that of the
    first place. target: the token table. Raises ValueError for length < 1 and, when
    traced, for inputs that are addressed by place (masked positions, packed segments),
    which a prompt would shift.
    """
    if length < 1 or keep < 0:
        raise ValueError(
            f"prompt.length is {length}, 1 or more; keep is {keep}, 0 or more"
        )
    return Prompt(net, target, length, keep, deviation)


@dataclasses.dataclass(frozen=True)
class Prompt(transforms.Transformed):
    """See `transform`."""

    length: int
    keep: int
    deviation: float

    names: ClassVar[tuple[str, ...]] = (PROMPT,)

    def init(self, key: Any, inputs: Mapping[str, jax.Array], **kwargs: Any) -> Any:
        return super().init(key, self._with(inputs), **kwargs)

    def apply(self, variables: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("method") is not None:
            raise ValueError(
                "a net with a prompt has no cache for generation; merge is impossible "
                "too: use the transform prefix, which has"
            )
        out = super().apply(variables, self._with(inputs), *args, **kwargs)
        if "decoder_tokens" in inputs:
            return out
        longer, cut = inputs["tokens"].shape[-1] + self.length, self.keep

        def without(x: jax.Array) -> jax.Array:
            if x.ndim < 3 or x.shape[1] != longer:
                return x
            return jnp.concatenate([x[:, :cut], x[:, cut + self.length :]], axis=1)

        return jax.tree.map(without, out)

    def _with(self, inputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """The inputs with the prompt's ids: -1 is its first embedding, and so on."""
        if unknown := sorted(set(inputs) - KNOWN):
            raise ValueError(f"a prompt can't be with the inputs {', '.join(unknown)}")
        tokens = inputs["tokens"]
        if tokens.ndim != 2:
            raise ValueError(f"a prompt needs tokens [B, T], got shape {tokens.shape}")
        ids = -1 - jnp.arange(self.length, dtype=tokens.dtype)
        more = {"tokens": jnp.broadcast_to(ids, (len(tokens), self.length))}
        more["mask"] = jnp.ones(more["tokens"].shape, bool)
        more["types"] = jnp.zeros_like(more["tokens"])

        def put(name: str, x: jax.Array) -> jax.Array:
            if name not in more:
                return x
            return jnp.concatenate(
                [x[:, : self.keep], more[name], x[:, self.keep :]], axis=1
            )

        return {name: put(name, x) for name, x in inputs.items()}

    def changes(self, module: nn.Module) -> bool:
        return isinstance(module, nn.Embed)

    def call(self, module: nn.Module, call: Callable, ids: jax.Array, **kwargs) -> Any:
        assert isinstance(module, nn.Embed)
        y = call(jnp.maximum(ids, 0), **kwargs)
        table: jax.Array
        if module.has_variable("params", PROMPT):
            table = module.get_variable("params", PROMPT)
        else:
            # The token table is made in its setup; later `param` is not to be called.
            init = nn.initializers.normal(self.deviation)
            assert module.scope is not None
            table = module.scope.param(PROMPT, init, (self.length, module.features))
        virtual = table.astype(y.dtype)[jnp.clip(-1 - ids, 0)]
        return jnp.where((ids < 0)[..., None], virtual, y)
