"""T5 1.0 and 1.1 (Raffel et al. 2020, arXiv:1910.10683; Shazeer 2020)."""

# B batch, S source tokens, T target tokens, L cache slots, D width, H heads,
# V vocabulary

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from fmjax.layers import check
from fmjax.layers.attention import empty, visible
from fmjax.layers.dense import dense
from fmjax.layers.dropout import Dropout
from fmjax.layers.norm import norm
from fmjax.layers.transformer import Block, stack


def _size(
    width: int, depth: int, heads: int, mlp_width: int, head_width: int = 64
) -> dict[str, Any]:
    sizes = {"width": width, "depth": depth, "heads": heads, "mlp_width": mlp_width}
    own = {"head_width": head_width, "bias_deviation": None}
    return dict(vocab_size=32128, **sizes, **own)


def _later(*args: int) -> dict[str, Any]:
    return _size(*args) | {"gated": True, "activation": "gelu_tanh", "tied": False}


# 1.0: section 3.7 of the paper. 1.1: the authors' released checkpoints, with a gated
# GELU, an output map of its own, and pre-trained without dropout.
SIZES: dict[str, dict[str, Any]] = {
    "small": _size(512, 6, 8, 2048),
    "base": _size(768, 12, 12, 3072),
    "large": _size(1024, 24, 16, 4096),
    "3b": _size(1024, 24, 32, 16384, 128),
    "11b": _size(1024, 24, 128, 65536, 128),
    "1.1-small": _later(512, 8, 6, 1024),
    "1.1-base": _later(768, 12, 12, 2048),
    "1.1-large": _later(1024, 24, 16, 2816),
    "1.1-xl": _later(2048, 24, 32, 5120),
    "1.1-xxl": _later(4096, 24, 64, 10240),
}

# The authors' initialisers: by the width that a map reads, and for queries by the head
# width too, since the scores are not scaled. (Their code cuts the normal of MLPs and
# of `head`, and of no other, at two deviations, which leaves 0.88 of it.)
_fan_in = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class Model(nn.Module):
    """An encoder and a decoder with relative position biases, to next-token logits.

    inputs: dict of
        tokens: int [B, S]; mask: bool [B, S], True is a real token, absent: all are;
        decoder_tokens: int [B, T], the targets shifted right by a start token (the
            padding token).
    Returns logits [B, T, V], float32 whatever `dtype` is. Lengths are limited by
    max_length alone, since biases depend on distances. An id outside the table gives
    nan. logits=False: the states [B, T, D] of which `read` makes them.

    `prepare` and `decode` compute the same a few target tokens at a time.
    Raises ValueError, when traced, where shapes or dtypes differ from the above.
    """

    vocab_size: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    head_width: int = 64
    decoder_depth: int | None = None  # None: depth
    buckets: int = 32
    max_distance: int = 128
    max_length: int = 512
    activation: str = "relu"
    gated: bool = False
    tied: bool = True
    scale_output: bool | None = None  # by D^-0.5, before logits; None: where tied
    bias_deviation: float | None = 0.1  # of `Bias` at first, as there; None in SIZES
    dropout: float = 0.1
    eps: float = 1e-6
    scan: bool = False  # these two as in `layers.transformer.stack`
    remat: str | None = None
    implementation: str | None = None  # as in `layers.attend.attend`
    dtype: Dtype = "float32"

    def setup(self) -> None:
        self.embed = nn.Embed(
            self.vocab_size,
            self.width,
            dtype=self.dtype,
            embedding_init=nn.initializers.normal(1.0),
        )
        self.drop = Dropout(self.dropout)
        for side, depth in (("encoder", self.depth), ("decoder", self._decoder_depth)):
            for i in range(depth):
                setattr(self, f"{side}{i}", self._block(cross=side == "decoder"))
            bias = Bias(
                self.heads,
                self.buckets,
                self.max_distance,
                two_way=side == "encoder",
                deviation=self.bias_deviation,
            )
            setattr(self, f"{side}_bias", bias)
            setattr(self, f"{side}_norm", norm("rms", self.eps, self.dtype))
        if not self.tied:
            self.head = dense(
                self.vocab_size, "float32", use_bias=False, kernel_init=_fan_in
            )

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
        slots = jnp.arange(tokens.shape[1])
        x = self.drop(self.embed(tokens), train=train)
        x = stack(
            self._blocks("decoder"),
            x,
            rng=self._key(train),
            scan=self.scan,
            remat=self.remat,
            causal=True,
            bias=self.decoder_bias(slots, slots),
            source=source,
            source_mask=mask,
        )
        x = self._last(x, train)
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
        own = [
            empty(batch, length, self.heads, self.head_width, self.dtype) for _ in cross
        ]
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
        real tokens, these included. positions is not used: biases follow the slots.
        """
        del positions
        x = self.embed(tokens)
        slots = index + jnp.arange(tokens.shape[1])
        bias = self.decoder_bias(slots, jnp.arange(mask.shape[1]))
        attended, own = visible(mask, index, tokens.shape[1]), []
        for i, block in enumerate(self._blocks("decoder")):
            x, kept = block(
                x,
                mask=attended,
                bias=bias,
                source=cache["source"][i],
                source_mask=cache["mask"],
                cache=cache["own"][i],
                index=index,
            )
            own.append(kept["own"])
        return self.read(self._last(x, train=False)), cache | {"own": tuple(own)}

    def _encode(
        self, inputs: Mapping[str, jax.Array], train: bool
    ) -> tuple[jax.Array, jax.Array | None]:
        tokens, mask = inputs["tokens"], inputs.get("mask")
        check.tokens(tokens, self.max_length, mask=mask)
        attended = None if mask is None else mask[:, None, None, :]
        slots = jnp.arange(tokens.shape[1])
        x = self.drop(self.embed(tokens), train=train)
        x = stack(
            self._blocks("encoder"),
            x,
            rng=self._key(train),
            scan=self.scan,
            remat=self.remat,
            mask=attended,
            bias=self.encoder_bias(slots, slots),
        )
        return self.drop(self.encoder_norm(x), train=train), attended

    def _last(self, x: jax.Array, train: bool) -> jax.Array:
        x = self.drop(self.decoder_norm(x), train=train)
        if self.tied if self.scale_output is None else self.scale_output:
            # The embedding's deviation is 1, so what multiplies it is made small.
            x = x * self.width**-0.5
        return x

    def read(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits [B, T, V] of the states that logits=False gives."""
        del train  # nothing is dropped here
        if not self.tied:
            return self.head(x)
        table = self.embed.embedding.astype(x.dtype)
        return jnp.einsum("btd,vd->btv", x, table, preferred_element_type="float32")

    @property
    def _decoder_depth(self) -> int:
        return self.depth if self.decoder_depth is None else self.decoder_depth

    def _blocks(self, side: str) -> list[Block]:
        depth = self.depth if side == "encoder" else self._decoder_depth
        return [getattr(self, f"{side}{i}") for i in range(depth)]

    def _key(self, train: bool) -> jax.Array | None:
        return self.make_rng("dropout") if train and self.dropout else None

    def _block(self, *, cross: bool) -> Block:
        return Block(
            self.heads,
            self.mlp_width,
            order="pre",
            norm="rms",
            cross=cross,
            head_width=self.head_width,
            activation=self.activation,
            gated=self.gated,
            use_bias=False,
            scale=1.0,
            dropout=self.dropout,
            attention_dropout=self.dropout,
            mlp_dropout=self.dropout,
            implementation=self.implementation,
            eps=self.eps,
            kernel_init=_fan_in,
            query_init=nn.initializers.variance_scaling(
                1 / self.head_width, "fan_in", "normal"
            ),
            dtype=self.dtype,
        )


class Bias(nn.Module):
    """A learned bias for each head and bucket of distances (section 2.1).

    deviation: of the normal that it is drawn from (0.1 is ours, for small nets); None:
    Glorot's uniform of buckets and heads, the authors' (0.21 for base).
    """

    heads: int
    buckets: int
    max_distance: int
    two_way: bool
    deviation: float | None = 0.1

    @nn.compact
    def __call__(self, queries: jax.Array, keys: jax.Array) -> jax.Array:
        """Slots int [T] and [S] to biases [1, H, T, S], float32."""
        init = nn.initializers.xavier_uniform()
        if self.deviation is not None:
            init = nn.initializers.normal(self.deviation)
        table = self.param("embedding", init, (self.buckets, self.heads))
        distance = keys[None, :] - queries[:, None]
        found = bucket(
            distance,
            buckets=self.buckets,
            max_distance=self.max_distance,
            two_way=self.two_way,
        )
        return table[found].transpose(2, 0, 1)[None]


def bucket(
    distance: jax.Array, *, buckets: int, max_distance: int, two_way: bool
) -> jax.Array:
    """The bucket, in [0, buckets), of distances (key slot minus query slot).

    Half of the buckets are one distance each, the other half grow in logarithmic steps
    up to max_distance; all beyond share the last. two_way: half of them for keys that
    come after the query, else those are as distance 0.
    """
    first = jnp.zeros_like(distance)
    if two_way:
        buckets //= 2
        first = jnp.where(distance > 0, buckets, 0)
        distance = jnp.abs(distance)
    else:
        distance = (-distance).clip(0)
    exact = buckets // 2
    # Distances below `exact` take the other branch; 1 keeps their logarithm finite.
    steps = jnp.log(distance.clip(1).astype("float32") / exact)
    steps = steps / math.log(max_distance / exact) * (buckets - exact)
    far = jnp.minimum(exact + steps.astype("int32"), buckets - 1)
    return first + jnp.where(distance < exact, distance, far)
