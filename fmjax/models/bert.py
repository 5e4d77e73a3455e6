"""BERT (Devlin et al. 2019, https://arxiv.org/abs/1810.04805)."""

# B batch, N texts an example, T tokens, P positions to predict, D width, V vocabulary,
# C classes

import difflib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from fmjax.layers import check
from fmjax.layers.activation import activation
from fmjax.layers.dense import dense, truncated_normal
from fmjax.layers.dropout import Dropout
from fmjax.layers.norm import LayerNorm
from fmjax.layers.transformer import Block, stack

HEADS = (None, "pretrain", "mlm", "classify", "choose", "tag", "span", "embed")
POOLED = (None, "pretrain", "classify", "choose")  # what reads the pooler
GROUPED = ("choose", "embed")  # what may take several texts an example


def _size(width: int, depth: int, heads: int) -> dict[str, int]:
    sizes = {"width": width, "depth": depth, "heads": heads, "mlp_width": 4 * width}
    return dict(vocab_size=30522, **sizes)


# base and large: table 1 of the paper's section 3; tiny to medium: Turc et al. 2019,
# table 1; minilm-l6: Wang et al. 2020 by way of sentence-transformers' all-MiniLM-L6.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": _size(128, 2, 2),
    "mini": _size(256, 4, 4),
    "small": _size(512, 4, 8),
    "medium": _size(512, 8, 8),
    "base": _size(768, 12, 12),
    "large": _size(1024, 24, 16),
    "minilm-l6": _size(384, 6, 12),
}


class Model(nn.Module):
    """Token, position and segment embeddings, then post-norm blocks, then a head.

    inputs: dict of
        tokens: int [B, T], T <= max_length;
        types: int [B, T] in [0, types), the segment of each token; absent: all 0;
        mask: bool [B, T], True is a real token; absent: all are;
        positions: int [B, P], heads 'pretrain' and 'mlm' only: where to predict;
            absent: every position, P = T.
    Returns, by head:
        None: (hidden [B, T, D], pooled [B, D]), pooled = tanh of a linear map of the
            first token's state (appendix A.1);
        'pretrain': (masked-token logits [B, P, V], next-sentence logits [B, 2] with
            class 0 "is next"), the former through the transposed token embedding;
        'mlm': the former of these alone, without a pooler.
        'classify': logits [B, C].
        'choose': logits [B, N] for inputs [B, N, T]: a score for each text (section
            4.4).
        'tag': logits [B, T, C] (section 5.3).
        'span': logits [B, T, 2], start and end of an answer (section 4.2).
        'embed': [B, N, D] for inputs [B, N, T], or [B, D] for [B, T]: the mean over
            real tokens, of length 1 (Reimers and Gurevych 2019, section 3).
    Logits are float32 whatever `dtype` is. An id outside its table gives nan. With
    logits=False, 'pretrain' and 'mlm' give the states [B, P, D] of which `read` makes
    the masked-token logits.
    The encoder's parameters have the same paths under every head; the pooler is there
    for None, 'pretrain', 'classify' and 'choose'.

    Raises ValueError, when traced, where T exceeds max_length, shapes or dtypes differ
    from the above, or a field has no meaning.
    """

    vocab_size: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    max_length: int = 512
    types: int = 2
    dropout: float = 0.1
    attention_dropout: float = 0.1
    head_dropout: float | None = None  # on pooled, before 'classify'; None: dropout
    activation: str = "gelu"
    eps: float = 1e-12
    head: str | None = None
    classes: int | None = None
    scan: bool = False  # these two as in `layers.transformer.stack`
    remat: str | None = None
    implementation: str | None = None  # as in `layers.attend.attend`
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(
        self,
        inputs: Mapping[str, jax.Array],
        *,
        train: bool = False,
        logits: bool = True,
    ) -> Any:
        self._check(inputs)
        several = inputs["tokens"].shape[:-1]
        if len(several) == 2:
            inputs = {k: x.reshape(-1, x.shape[-1]) for k, x in inputs.items()}
        tokens, mask = inputs["tokens"], inputs.get("mask")
        attended = None if mask is None else mask[:, None, None, :]

        embed = Embed(
            vocab_size=self.vocab_size,
            width=self.width,
            max_length=self.max_length,
            types=self.types,
            dropout=self.dropout,
            eps=self.eps,
            dtype=self.dtype,
            name="embed",
        )
        x = embed(tokens, inputs.get("types"), train=train)
        blocks = [
            Block(
                self.heads,
                self.mlp_width,
                activation=self.activation,
                dropout=self.dropout,
                attention_dropout=self.attention_dropout,
                implementation=self.implementation,
                eps=self.eps,
                dtype=self.dtype,
                name=f"layer{i}",
            )
            for i in range(self.depth)
        ]
        drops = train and (self.dropout or self.attention_dropout)
        rng = self.make_rng("dropout") if drops else None
        x = stack(blocks, x, rng=rng, scan=self.scan, remat=self.remat, mask=attended)
        return self._head(x, embed, inputs, several, train, logits)

    def read(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits [B, P, V] of the states that logits=False gives."""
        del train  # nothing is dropped here
        params = self.variables["params"]
        return token_logits(
            x, params["embed"]["tokens"]["embedding"], params["mlm"]["bias"]
        )

    def _head(
        self,
        x: jax.Array,
        embed: "Embed",
        inputs: Mapping[str, jax.Array],
        several: tuple[int, ...],
        train: bool,
        logits: bool,
    ) -> Any:
        rate = self.dropout if self.head_dropout is None else self.head_dropout
        dropout = Dropout(rate)
        pooled = x[:, 0]
        if self.head in POOLED:
            pooled = jnp.tanh(dense(self.width, self.dtype, "pooler")(pooled))
        match self.head:
            case "pretrain" | "mlm":
                if "positions" in inputs:
                    x = jnp.take_along_axis(x, inputs["positions"][:, :, None], axis=1)
                mlm = MaskedTokens(self.activation, self.eps, self.dtype, name="mlm")
                said = mlm(x, embed.tokens.embedding, logits)
                if self.head == "mlm":
                    return said
                return said, dense(2, "float32", "nsp")(pooled)
            case "classify":
                pooled = dropout(pooled, train=train)
                return dense(self.classes or 0, "float32", "classify")(pooled)
            case "choose":
                pooled = dropout(pooled, train=train)
                return dense(1, "float32", "choose")(pooled).reshape(several)
            case "tag":
                x = dropout(x, train=train)
                return dense(self.classes or 0, "float32", "tag")(x)
            case "span":
                return dense(2, "float32", "span")(x)
            case "embed":
                mean = _mean(x.astype("float32"), inputs.get("mask"))
                return mean.reshape(*several, self.width)
            case _:
                return x, pooled

    def _check(self, inputs: Mapping[str, jax.Array]) -> None:
        if self.head not in HEADS:
            near = difflib.get_close_matches(str(self.head), HEADS[1:], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(map(repr, HEADS))
            raise ValueError(f"unknown head {self.head!r}{hint} (known: {known})")
        if self.head in ("classify", "tag") and not (self.classes or 0) > 0:
            raise ValueError(
                f"head {self.head!r} needs classes, 1 or more; got {self.classes}"
            )
        check.tokens(
            inputs["tokens"],
            self.max_length,
            ranks=(2, 3) if self.head in GROUPED else (2,),
            types=inputs.get("types"),
            mask=inputs.get("mask"),
        )


class Embed(nn.Module):
    """Token, position and segment embeddings, added and normalised: to [B, T, D]."""

    vocab_size: int
    width: int
    max_length: int
    types: int
    dropout: float
    eps: float
    dtype: Dtype

    def setup(self) -> None:
        def table(rows: int) -> nn.Embed:
            return nn.Embed(
                rows, self.width, dtype=self.dtype, embedding_init=truncated_normal
            )

        self.tokens = table(self.vocab_size)
        self.positions = table(self.max_length)
        self.segments = table(self.types)
        self.norm = LayerNorm(self.eps, self.dtype)
        self.drop = Dropout(self.dropout)

    def __call__(
        self, tokens: jax.Array, types: jax.Array | None, *, train: bool
    ) -> jax.Array:
        types = jnp.zeros_like(tokens) if types is None else types
        x = self.tokens(tokens) + self.segments(types)
        x += self.positions(jnp.arange(tokens.shape[1]))
        return self.drop(self.norm(x), train=train)


def _mean(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """The mean of x [B, T, D] over what is in mask [B, T], of length 1: [B, D]."""
    weight = jnp.ones(x.shape[:2]) if mask is None else mask.astype(x.dtype)
    # As the reference does: a text without tokens gives zeros and not nan.
    mean = (x * weight[:, :, None]).sum(1) / weight.sum(1).clip(1e-9)[:, None]
    return mean / jnp.sqrt((mean**2).sum(-1, keepdims=True)).clip(1e-12)


class MaskedTokens(nn.Module):
    """The masked-LM head: [B, P, D] and the token table [V, D] to logits [B, P, V]."""

    activation: str
    eps: float
    dtype: Dtype

    @nn.compact
    def __call__(
        self, x: jax.Array, table: jax.Array, logits: bool = True
    ) -> jax.Array:
        x = dense(x.shape[-1], self.dtype, "dense")(x)
        x = activation(self.activation)(x)
        x = LayerNorm(self.eps, self.dtype, name="norm")(x)
        if not logits:
            return x
        bias = self.param("bias", nn.initializers.zeros, (table.shape[0],))
        return token_logits(x, table, bias)


def token_logits(x: jax.Array, table: jax.Array, bias: jax.Array) -> jax.Array:
    """[B, P, D], the table [V, D] and a bias [V] to logits [B, P, V], float32."""
    table = table.astype(x.dtype)
    logits = jnp.einsum("bpd,vd->bpv", x, table, preferred_element_type="float32")
    return logits + bias
