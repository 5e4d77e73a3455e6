"""The Transformer for translation (Vaswani et al. 2017, arXiv:1706.03762)."""

# B batch, S source tokens, T target tokens, L cache slots, D width, V vocabulary

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from fmjax.layers import check
from fmjax.layers.attention import empty, visible
from fmjax.layers.dropout import Dropout
from fmjax.layers.transformer import Block, stack

# Table 3 of the paper, with the 37,000 pieces of its section 5.1.
SIZES: dict[str, dict[str, Any]] = {
    "base": dict(
        vocab_size=37000, width=512, depth=6, heads=8, mlp_width=2048, dropout=0.1
    ),
    "big": dict(
        vocab_size=37000, width=1024, depth=6, heads=16, mlp_width=4096, dropout=0.3
    ),
}

LAYOUTS = ("interleaved", "halves")


class Model(nn.Module):
    """Encoder and decoder of post-norm blocks over one vocabulary, to logits.

    inputs: dict of
        tokens: int [B, S]; mask: bool [B, S], True is a real token, absent: all are;
        decoder_tokens: int [B, T], the targets shifted right by a start token.
    Returns next-token logits [B, T, V], float32 whatever `dtype` is, through the
    transposed embedding (section 3.4) and, with output_bias, a bias [V] (Marian). An
    id outside the table gives nan. logits=False: the states [B, T, D] of which `read`
    makes them.

    layout: of sines and cosines in the positions, by turns ('interleaved', section
    3.5) or sines first ('halves': the authors' code, Marian). scale_embedding: by
    sqrt(D), section 3.4. eps: fairseq's and Marian's; the authors' code has 1e-6.
    `prepare` and `decode` compute the same a few target tokens at a time.
    Raises ValueError, when traced, where shapes or dtypes differ from the above or a
    field has no meaning.
    """

    vocab_size: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    decoder_depth: int | None = None  # these three: None for the encoder's
    decoder_heads: int | None = None
    decoder_mlp_width: int | None = None
    max_length: int = 1024
    activation: str = "relu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    mlp_dropout: float = 0.0
    eps: float = 1e-5
    layout: str = "interleaved"
    scale_embedding: bool = True
    output_bias: bool = False
    scan: bool = False  # these two as in `layers.transformer.stack`
    remat: str | None = None
    implementation: str | None = None  # as in `layers.attend.attend`
    dtype: Dtype = "float32"

    def setup(self) -> None:
        if self.layout not in LAYOUTS:
            known = ", ".join(LAYOUTS)
            raise ValueError(f"unknown layout {self.layout!r} (known: {known})")
        self.embed = nn.Embed(
            self.vocab_size,
            self.width,
            dtype=self.dtype,
            embedding_init=nn.initializers.normal(self.width**-0.5),
        )
        self.drop = Dropout(self.dropout)
        for side in ("encoder", "decoder"):
            depth, heads, mlp_width = self._shape(side)
            for i in range(depth):
                block = self._block(heads, mlp_width, cross=side == "decoder")
                setattr(self, f"{side}{i}", block)
        if self.output_bias:
            self.bias = self.param("bias", nn.initializers.zeros, (self.vocab_size,))

    def __call__(
        self,
        inputs: Mapping[str, jax.Array],
        *,
        train: bool = False,
        logits: bool = True,
    ) -> jax.Array:
        source, mask = self._encode(inputs, train)
        tokens = inputs["decoder_tokens"]
        check.tokens(tokens, self.max_length, name="decoder_tokens")
        x = stack(
            self._blocks("decoder"),
            self._embedded(tokens, jnp.arange(tokens.shape[1])[None], train),
            rng=self._key(train),
            scan=self.scan,
            remat=self.remat,
            causal=True,
            source=source,
            source_mask=mask,
        )
        return self.read(x) if logits else x

    def prepare(self, inputs: Mapping[str, jax.Array], length: int) -> dict[str, Any]:
        """The encoded source and `length` empty slots; every leaf is [B, ...]."""
        source, mask = self._encode(inputs, train=False)
        batch = source.shape[0]
        # A pass over one token, for the keys and values that the source gives.
        x = self.embed(jnp.zeros((batch, 1), jnp.int32))
        cross = []
        for block in self._blocks("decoder"):
            x, kept = block(x, source=source, source_mask=mask)
            cross.append(kept["source"])
        heads = self._shape("decoder")[1]
        head_width = self.width // heads
        own = [empty(batch, length, heads, head_width, self.dtype) for _ in cross]
        if mask is None:
            mask = jnp.ones((batch, 1, 1, source.shape[1]), bool)
        return {"own": tuple(own), "source": tuple(cross), "mask": mask}

    def decode(
        self,
        tokens: jax.Array,
        cache: dict[str, Any],
        *,
        index: jax.Array | int,
        mask: jax.Array,
        positions: jax.Array,
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Logits [B, T, V] after each of `tokens` [B, T], and the cache with them.

        They go to slots index .. index + T - 1; mask: bool [B, L], which slots hold
        real tokens, these included; positions: int [B, T].
        """
        x = self._embedded(tokens, positions, train=False)
        attended, own = visible(mask, index, tokens.shape[1]), []
        for i, block in enumerate(self._blocks("decoder")):
            x, kept = block(
                x,
                mask=attended,
                source=cache["source"][i],
                source_mask=cache["mask"],
                cache=cache["own"][i],
                index=index,
            )
            own.append(kept["own"])
        return self.read(x), cache | {"own": tuple(own)}

    def _encode(
        self, inputs: Mapping[str, jax.Array], train: bool
    ) -> tuple[jax.Array, jax.Array | None]:
        tokens, mask = inputs["tokens"], inputs.get("mask")
        check.tokens(tokens, self.max_length, mask=mask)
        attended = None if mask is None else mask[:, None, None, :]
        x = stack(
            self._blocks("encoder"),
            self._embedded(tokens, jnp.arange(tokens.shape[1])[None], train),
            rng=self._key(train),
            scan=self.scan,
            remat=self.remat,
            mask=attended,
        )
        return x, attended

    def _embedded(
        self, tokens: jax.Array, positions: jax.Array, train: bool
    ) -> jax.Array:
        x = self.embed(tokens)
        if self.scale_embedding:
            x = x * self.width**0.5
        x += sinusoids(positions, self.width, self.layout).astype(x.dtype)
        return self.drop(x, train=train)

    def read(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits [B, T, V] of the states that logits=False gives."""
        del train  # nothing is dropped here
        table = self.embed.embedding.astype(x.dtype)
        logits = jnp.einsum("btd,vd->btv", x, table, preferred_element_type="float32")
        return logits + self.bias if self.output_bias else logits

    def _shape(self, side: str) -> tuple[int, int, int]:
        """Depth, heads and MLP width of the encoder or the decoder."""
        own = (self.depth, self.heads, self.mlp_width)
        if side == "encoder":
            return own
        other = (self.decoder_depth, self.decoder_heads, self.decoder_mlp_width)
        depth, heads, mlp_width = (
            a if b is None else b for a, b in zip(own, other, strict=True)
        )
        return depth, heads, mlp_width

    def _blocks(self, side: str) -> list[Block]:
        return [getattr(self, f"{side}{i}") for i in range(self._shape(side)[0])]

    def _key(self, train: bool) -> jax.Array | None:
        drops = self.dropout or self.attention_dropout or self.mlp_dropout
        return self.make_rng("dropout") if train and drops else None

    def _block(self, heads: int, mlp_width: int, *, cross: bool) -> Block:
        return Block(
            heads,
            mlp_width,
            order="post",
            cross=cross,
            activation=self.activation,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            mlp_dropout=self.mlp_dropout,
            implementation=self.implementation,
            eps=self.eps,
            kernel_init=nn.initializers.xavier_uniform(),
            dtype=self.dtype,
        )


def sinusoids(positions: jax.Array, width: int, layout: str) -> jax.Array:
    """Position encodings (section 3.5): int [...] to float32 [..., width].

    Wavelengths from 2 pi to 10000 * 2 pi; layout as in `Model`.
    """
    rates = 10000.0 ** (-jnp.arange(0, width, 2, dtype="float32") / width)
    angles = positions[..., None].astype("float32") * rates
    sines, cosines = jnp.sin(angles), jnp.cos(angles)[..., : width // 2]
    if layout == "halves":
        return jnp.concatenate([sines, cosines], axis=-1)
    out = jnp.zeros((*positions.shape, width))
    return out.at[..., 0::2].set(sines).at[..., 1::2].set(cosines)
