"""GPT-2 and GPT-3 (Radford et al. 2019; Brown et al. 2020, arXiv:2005.14165)."""

# B batch, T tokens, L cache slots, D width, V vocabulary

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from fmjax.layers import check
from fmjax.layers.attention import Cache, empty, visible
from fmjax.layers.dense import dense
from fmjax.layers.dropout import Dropout
from fmjax.layers.norm import LayerNorm
from fmjax.layers.transformer import Block, stack


def _size(width: int, depth: int, heads: int, max_length: int) -> dict[str, int]:
    sizes = {"width": width, "depth": depth, "heads": heads, "max_length": max_length}
    return dict(vocab_size=50257, mlp_width=4 * width, **sizes)


# GPT-2: table 2 of the paper and the released files. GPT-3: table 2.1, with two of its
# numbers corrected to what its parameter counts and d_model = heads * d_head ask for
# (XL: 16 heads, printed 24; 13B: width 5120, printed 5140), and with dense attention
# in every layer where the paper alternates it with a banded one.
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": _size(768, 12, 12, 1024),
    "gpt2-medium": _size(1024, 24, 16, 1024),
    "gpt2-large": _size(1280, 36, 20, 1024),
    "gpt2-xl": _size(1600, 48, 25, 1024),
    "gpt3-small": _size(768, 12, 12, 2048),
    "gpt3-medium": _size(1024, 24, 16, 2048),
    "gpt3-large": _size(1536, 24, 16, 2048),
    "gpt3-xl": _size(2048, 24, 16, 2048),
    "gpt3-2.7b": _size(2560, 32, 32, 2048),
    "gpt3-6.7b": _size(4096, 32, 32, 2048),
    "gpt3-13b": _size(5120, 40, 40, 2048),
    "gpt3-175b": _size(12288, 96, 96, 2048),
}


class Model(nn.Module):
    """Token and position embeddings, pre-norm blocks, and the next token's logits.

    inputs: dict of
        tokens: int [B, T], T <= max_length;
        mask: bool [B, T], True is a real token, padding on either side: positions
            count real tokens only; absent: all are;
        segments: int [B, T], the number of a token's document in a packed window, from
            1, 0 is padding: tokens see their own document only, and positions run over
            the window; absent: one document;
        positions: int [B, T], in place of those above.
    Returns logits [B, T, V], float32 whatever `dtype` is, through the transposed token
    embedding where `tied`. An id outside its table gives nan. logits=False: the states
    [B, T, D] of which `read` makes them.

    `prepare` and `decode` compute the same a few tokens at a time.
    Raises ValueError, when traced, where T exceeds max_length or shapes or dtypes
    differ from the above.
    """

    vocab_size: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    max_length: int = 1024
    dropout: float = 0.1
    attention_dropout: float = 0.1
    embed_dropout: float = 0.1
    activation: str = "gelu_tanh"
    eps: float = 1e-5
    tied: bool = True
    scan: bool = False  # these two as in `layers.transformer.stack`
    remat: str | None = None
    implementation: str | None = None  # as in `layers.attend.attend`
    dtype: Dtype = "float32"

    def setup(self) -> None:
        init = nn.initializers.normal(0.02)
        self.embed = Embed(self.vocab_size, self.width, self.max_length, self.dtype)
        self.drop = Dropout(self.embed_dropout)
        for i in range(self.depth):
            block = Block(
                self.heads,
                self.mlp_width,
                order="pre",
                activation=self.activation,
                dropout=self.dropout,
                attention_dropout=self.attention_dropout,
                implementation=self.implementation,
                eps=self.eps,
                kernel_init=init,
                # Section 2.3: residual branches by 1/sqrt(N), N of them.
                out_init=nn.initializers.normal(0.02 * (2 * self.depth) ** -0.5),
                dtype=self.dtype,
            )
            setattr(self, f"layer{i}", block)
        self.norm = LayerNorm(self.eps, self.dtype)
        if not self.tied:
            self.head = dense(
                self.vocab_size, "float32", use_bias=False, kernel_init=init
            )

    def __call__(
        self,
        inputs: Mapping[str, jax.Array],
        *,
        train: bool = False,
        logits: bool = True,
    ) -> jax.Array:
        tokens, mask = inputs["tokens"], inputs.get("mask")
        segments, positions = inputs.get("segments"), inputs.get("positions")
        check.tokens(
            tokens, self.max_length, mask=mask, segments=segments, positions=positions
        )
        attended = None if mask is None else mask[:, None, None, :]
        if positions is None:
            positions = jnp.arange(tokens.shape[1])[None]
            if mask is not None:
                positions = (jnp.cumsum(mask, axis=1) - 1).clip(0)
        x = self.drop(self.embed(tokens, positions), train=train)
        drops = train and (self.dropout or self.attention_dropout)
        rng = self.make_rng("dropout") if drops else None
        x = stack(
            self._blocks(),
            x,
            rng=rng,
            scan=self.scan,
            remat=self.remat,
            mask=attended,
            segments=segments,
            causal=True,
        )
        x = self.norm(x)
        return self.read(x) if logits else x

    def prepare(
        self, inputs: Mapping[str, jax.Array], length: int
    ) -> tuple[Cache, ...]:
        """An empty cache of `length` slots, a block each; every leaf is [B, ...].

        Raises ValueError where there are not so many positions.
        """
        batch = inputs["tokens"].shape[0]
        if length > self.max_length:
            raise ValueError(
                f"{length} tokens were asked for, prompt included, but the model has "
                f"positions for {self.max_length}; shorten the prompt or ask for fewer"
            )
        head_width = self.width // self.heads
        return tuple(
            empty(batch, length, self.heads, head_width, self.dtype)
            for _ in range(self.depth)
        )

    def decode(
        self,
        tokens: jax.Array,
        cache: tuple[Cache, ...],
        *,
        index: jax.Array | int,
        mask: jax.Array,
        positions: jax.Array,
    ) -> tuple[jax.Array, tuple[Cache, ...]]:
        """Logits [B, T, V] after each of `tokens` [B, T], and the cache with them.

        They go to slots index .. index + T - 1; mask: bool [B, L], which slots hold
        real tokens, these included; positions: int [B, T].
        """
        x = self.embed(tokens, positions)
        attended = visible(mask, index, tokens.shape[1])
        kept = []
        for block, own in zip(self._blocks(), cache, strict=True):
            x, new = block(x, mask=attended, cache=own, index=index)
            kept.append(new["own"])
        return self.read(self.norm(x)), tuple(kept)

    def _blocks(self) -> list[Block]:
        return [getattr(self, f"layer{i}") for i in range(self.depth)]

    def read(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits [B, T, V] of the states that logits=False gives."""
        del train  # nothing is dropped here
        if not self.tied:
            return self.head(x)
        table = self.embed.tokens.embedding.astype(x.dtype)
        return jnp.einsum("btd,vd->btv", x, table, preferred_element_type="float32")


class Embed(nn.Module):
    """Token and position embeddings, added: int [B, T] twice to [B, T, D]."""

    vocab_size: int
    width: int
    max_length: int
    dtype: Dtype

    def setup(self) -> None:
        def table(rows: int, deviation: float) -> nn.Embed:
            init = nn.initializers.normal(deviation)
            return nn.Embed(rows, self.width, dtype=self.dtype, embedding_init=init)

        # The authors' code has these two deviations.
        self.tokens = table(self.vocab_size, 0.02)
        self.positions = table(self.max_length, 0.01)

    def __call__(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        return self.tokens(tokens) + self.positions(positions)
