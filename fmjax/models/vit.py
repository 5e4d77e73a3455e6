"""Vision transformers (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929)."""

# B batch, H height, W width, C channels, N patches, E 1 with a class token or 0,
# D width

import difflib
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from fmjax.layers.attention import Attention
from fmjax.layers.dense import dense, truncated_normal
from fmjax.layers.dropout import Dropout
from fmjax.layers.norm import norm
from fmjax.layers.patches import Embed, check_images
from fmjax.layers.transformer import MLP, Block, stack

xavier = nn.initializers.xavier_uniform()
POOLS = ("cls", "mean", "map")
POSITIONS = ("learned", "sincos")


def _size(patch: int, width: int, depth: int, heads: int, mlp: int) -> dict[str, int]:
    return dict(patch=patch, width=width, depth=depth, heads=heads, mlp_width=mlp)


# B, L, H: table 1 of the paper; Ti, S: Touvron et al. 2021, table 1; g, G: Zhai et al.
# 2022, table 2. 22B: Dehghani et al. 2023, table 1 and section 2: attention and MLP in
# parallel, normalised queries and keys, norms that neither centre nor shift, and no
# bias in attention.
SIZES: dict[str, dict[str, Any]] = {
    "Ti/16": _size(16, 192, 12, 3, 768),
    "S/32": _size(32, 384, 12, 6, 1536),
    "S/16": _size(16, 384, 12, 6, 1536),
    "B/32": _size(32, 768, 12, 12, 3072),
    "B/16": _size(16, 768, 12, 12, 3072),
    "L/32": _size(32, 1024, 24, 16, 4096),
    "L/16": _size(16, 1024, 24, 16, 4096),
    "H/14": _size(14, 1280, 32, 16, 5120),
    "g/14": _size(14, 1408, 40, 16, 6144),
    "G/14": _size(14, 1664, 48, 16, 8192),
    "22B/14": _size(14, 6144, 48, 48, 24576)
    | dict(order="parallel", norm="rms", qk_norm="rms", use_bias=False, mlp_bias=True),
}


class Model(nn.Module):
    """Patches and positions, pre-norm blocks, a pooled feature and its classes.

    inputs: floating [B, H, W, C] with (H, W) = image and C = channels.
    Returns logits [B, classes], float32; with head None, or features=True, the pooled
    features [B, D], float32.

    pool: 'cls' is the state of a learned token in front of the patches; 'mean' of the
        patches (Beyer et al. 2022); 'map' is one head of attention by a learned query,
        then an MLP (Zhai et al. 2022, section 3.4).
    cls_token: is there such a token; None: where pool is 'cls'. 'mean' and 'map' leave
        it out of what they pool.
    norm_last: mean, then norm, as MAE's fine-tuning has it, and not norm, then mean.
    positions: 'learned' table, or 'sincos' on the grid, fixed and no parameter.
    order, norm, qk_norm, use_bias, mlp_bias: as in `layers.transformer.Block`.

    Parameters begin as in the authors' code: kernels by Glorot and Bengio 2010, eq. 16,
    the patches' by their fan-in, the classes' and a class token that is pooled at zero;
    one that is not begins as MAE's. Learned positions have its deviation of 0.02, but
    are cut off at two. Theirs has the tanh form of the activation ('gelu_tanh'; public
    torch files are of the exact one), and one dropout more, in the middle of the MLP.

    Raises ValueError, when traced, where inputs have another shape or type, patches do
    not tile the image, or a field has no meaning.
    """

    patch: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    classes: int = 1000
    image: tuple[int, int] = (224, 224)
    channels: int = 3
    head: str | None = "classify"
    pool: str = "cls"
    cls_token: bool | None = None
    norm_last: bool = False
    positions: str = "learned"
    order: str = "pre"
    norm: str = "layer"
    qk_norm: str | None = None
    use_bias: bool = True
    mlp_bias: bool | None = None
    dropout: float = 0.0  # after the embedding and at the end of each branch
    attention_dropout: float = 0.0
    activation: str = "gelu"
    eps: float = 1e-6
    scan: bool = False  # these two as in `layers.transformer.stack`
    remat: str | None = None
    implementation: str | None = None  # as in `layers.attend.attend`
    dtype: Dtype = "float32"

    @property
    def front(self) -> int:
        """E: tokens in front of the patches."""
        return int(self.pool == "cls" if self.cls_token is None else self.cls_token)

    @nn.compact
    def __call__(
        self, inputs: jax.Array, *, train: bool = False, features: bool = False
    ) -> jax.Array:
        self._check(inputs)
        x = Embed(
            self.patch,
            self.width,
            self.image,
            front=self.front,
            positions=self.positions,
            kernel_init=nn.initializers.lecun_normal(),
            cls_init=nn.initializers.zeros if self.pool == "cls" else truncated_normal,
            dtype=self.dtype,
            name="embed",
        )(inputs)
        x = Dropout(self.dropout)(x, train=train)
        blocks = [
            Block(
                self.heads,
                self.mlp_width,
                order=self.order,
                norm=self.norm,
                activation=self.activation,
                use_bias=self.use_bias,
                mlp_bias=self.mlp_bias,
                qk_norm=self.qk_norm,
                dropout=self.dropout,
                attention_dropout=self.attention_dropout,
                implementation=self.implementation,
                eps=self.eps,
                kernel_init=xavier,
                dtype=self.dtype,
                name=f"layer{i}",
            )
            for i in range(self.depth)
        ]
        drops = train and (self.dropout or self.attention_dropout)
        rng = self.make_rng("dropout") if drops else None
        x = stack(blocks, x, rng=rng, scan=self.scan, remat=self.remat)
        x = self._pool(x)
        if features or self.head is None:
            return x.astype(jnp.float32)
        zeros = nn.initializers.zeros
        return dense(self.classes, "float32", "classify", kernel_init=zeros)(x)

    def _pool(self, x: jax.Array) -> jax.Array:
        """[B, E + N, D] to [B, D], normalised before or after."""
        normalise = norm(self.norm, self.eps, self.dtype, "norm")
        if self.norm_last:
            return normalise(x[:, self.front :].mean(1))
        x = normalise(x)
        if self.pool == "cls":
            return x[:, 0]
        x = x[:, self.front :]
        if self.pool == "mean":
            return x.mean(1)
        return AttentionPool(
            self.heads,
            self.mlp_width,
            norm=self.norm,
            activation=self.activation,
            eps=self.eps,
            dtype=self.dtype,
            name="pool",
        )(x)

    def _check(self, inputs: jax.Array) -> None:
        known = {"pool": POOLS, "positions": POSITIONS, "head": ("classify", None)}
        for field, names in known.items():
            value = getattr(self, field)
            if value not in names:
                near = difflib.get_close_matches(str(value), [n for n in names if n])
                hint = f"; did you mean {near[0]!r}?" if near else ""
                text = ", ".join(map(repr, names))
                raise ValueError(f"unknown {field} {value!r}{hint} (known: {text})")
        if self.pool == "cls" and not self.front:
            raise ValueError("pool 'cls' needs cls_token, which is False")
        if self.norm_last and self.pool != "mean":
            raise ValueError(f"norm_last is for pool 'mean', not {self.pool!r}")
        check_images(inputs, self.image, self.channels)


class AttentionPool(nn.Module):
    """Attention of one learned query to all, then an MLP: [B, N, D] to [B, D]."""

    heads: int
    mlp_width: int
    norm: str = "layer"
    activation: str = "gelu"
    eps: float = 1e-6
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        query = self.param("query", xavier, (1, width))
        query = jnp.broadcast_to(query.astype(x.dtype), (len(x), 1, width))
        attention = Attention(
            self.heads, kernel_init=xavier, dtype=self.dtype, name="attention"
        )
        y, _ = attention(query, x)
        normalise = norm(self.norm, self.eps, self.dtype, "norm")
        mlp = MLP(
            self.mlp_width,
            self.activation,
            kernel_init=xavier,
            dtype=self.dtype,
            name="mlp",
        )
        return (y + mlp(normalise(y)))[:, 0]
