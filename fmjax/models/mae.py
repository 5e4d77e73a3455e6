"""Masked autoencoders (He et al. 2022, https://arxiv.org/abs/2111.06377)."""

# B batch, H height, W width, C channels, p side of a patch, N patches, K visible ones,
# D width

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from fmjax.layers.dense import dense, truncated_normal
from fmjax.layers.norm import LayerNorm
from fmjax.layers.patches import Embed, check_images, grid, sincos
from fmjax.layers.transformer import Block, stack


def _size(patch: int, width: int, depth: int, heads: int) -> dict[str, int]:
    return dict(patch=patch, width=width, depth=depth, heads=heads, mlp_width=4 * width)


# Section 4.1 and appendix A.1; the decoder of 8 blocks, 512 wide, is that of all sizes.
SIZES: dict[str, dict[str, Any]] = {
    "B/16": _size(16, 768, 12, 12),
    "L/16": _size(16, 1024, 24, 16),
    "H/14": _size(14, 1280, 32, 16),
}


class Model(nn.Module):
    """An encoder of the visible patches, and a decoder that paints all of them.

    inputs: floating [B, H, W, C], or a dict of
        image: the same;
        order: int [B, N], a permutation of the patches for each image, of which the
            first K = int(N * (1 - masked)) are visible; absent: drawn from the
            'dropout' stream in training, and always the same for the same row of a
            batch otherwise.
    Returns (pixels [B, N, p * p * C], float32, ordered as by `layers.patches.patchify`,
    and hidden bool [B, N], True for patches that the encoder did not see). With
    features=True nothing is hidden, and the mean state of all patches [B, D], float32,
    comes back.

    The encoder's parameters have the paths of models/vit.py's, with sin-cos positions,
    which are fixed and no parameters. Maps begin by Glorot and Bengio 2010, as the
    paper says of ViT's code: query, key and value each by its own shape. In the
    authors' code the three are one matrix, whose shape makes them 1 / sqrt(2) of that.
    Raises ValueError, when traced, where inputs have another shape or type, or masking
    leaves no patch visible or none hidden.
    """

    patch: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    decoder_mlp_width: int = 2048
    masked: float = 0.75
    image: tuple[int, int] = (224, 224)
    channels: int = 3
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation: str = "gelu"
    eps: float = 1e-6
    scan: bool = False  # these two as in `layers.transformer.stack`
    remat: str | None = None
    implementation: str | None = None  # as in `layers.attend.attend`
    dtype: Dtype = "float32"

    pool = "mean"
    positions = "sincos"
    front = 1

    @property
    def patches(self) -> int:
        """N."""
        rows, columns = grid(self.image, self.patch)
        return rows * columns

    @property
    def visible(self) -> int:
        """K."""
        return int(self.patches * (1 - self.masked))

    def setup(self) -> None:
        xavier = nn.initializers.xavier_uniform()
        self.embed = Embed(
            self.patch,
            self.width,
            self.image,
            positions="sincos",
            kernel_init=xavier,
            dtype=self.dtype,
        )
        for name, depth, heads, mlp_width in (
            ("layer", self.depth, self.heads, self.mlp_width),
            ("decoder", self.decoder_depth, self.decoder_heads, self.decoder_mlp_width),
        ):
            for i in range(depth):
                block = Block(
                    heads,
                    mlp_width,
                    order="pre",
                    activation=self.activation,
                    dropout=self.dropout,
                    attention_dropout=self.attention_dropout,
                    implementation=self.implementation,
                    eps=self.eps,
                    kernel_init=xavier,
                    dtype=self.dtype,
                )
                setattr(self, f"{name}{i}", block)
        self.norm = LayerNorm(self.eps, self.dtype)
        width = self.decoder_width
        self.decoder_embed = dense(width, self.dtype, kernel_init=xavier)
        self.mask_token = self.param("mask_token", truncated_normal, (1, width))
        self.decoder_norm = LayerNorm(self.eps, self.dtype)
        pixels = self.patch**2 * self.channels
        self.decoder_pred = dense(pixels, "float32", kernel_init=xavier)

    def __call__(
        self,
        inputs: jax.Array | Mapping[str, jax.Array],
        *,
        train: bool = False,
        features: bool = False,
    ) -> Any:
        given = inputs if isinstance(inputs, Mapping) else {"image": inputs}
        image, order = given["image"], given.get("order")
        check_images(image, self.image, self.channels)
        if features:
            return self.encode(image, train=train)[:, 1:].mean(1).astype(jnp.float32)
        if not 0 < self.visible < self.patches:
            raise ValueError(
                f"masked={self.masked} leaves {self.visible} of {self.patches} patches "
                "visible: there must be some, and some hidden"
            )
        if order is None:
            key = self.make_rng("dropout") if train else jax.random.key(0)
            order = jax.random.uniform(key, (len(image), self.patches)).argsort(axis=1)
        elif order.shape != (len(image), self.patches):
            raise ValueError(
                f"order has shape {order.shape}, not {(len(image), self.patches)}: a "
                "permutation of the patches for each image"
            )
        x = self.encode(image, order[:, : self.visible], train=train)
        restore = order.argsort(axis=1)
        return self._decode(x, restore, train), restore >= self.visible

    def encode(
        self, image: jax.Array, keep: jax.Array | None = None, *, train: bool = False
    ) -> jax.Array:
        """States [B, 1 + K, D] of the class token and of the patches `keep` [B, K].

        All patches, in order, where keep is None.
        """
        x = self.embed(image)
        if keep is not None:
            seen = jnp.take_along_axis(x[:, 1:], keep[..., None], axis=1)
            x = jnp.concatenate([x[:, :1], seen], axis=1)
        return self.norm(self._through("layer", self.depth, x, train))

    def _decode(self, x: jax.Array, restore: jax.Array, train: bool) -> jax.Array:
        """[B, 1 + K, D] and the patches' places in the order to [B, N, p * p * C]."""
        x = self.decoder_embed(x)
        batch, seen, width = x.shape
        blank = self.mask_token.astype(x.dtype)
        blanks = jnp.broadcast_to(blank, (batch, self.patches + 1 - seen, width))
        shuffled = jnp.concatenate([x[:, 1:], blanks], axis=1)
        painted = jnp.take_along_axis(shuffled, restore[..., None], axis=1)
        x = jnp.concatenate([x[:, :1], painted], axis=1)
        positions = sincos(grid(self.image, self.patch), width, front=1)
        x += jnp.asarray(positions, x.dtype)
        x = self._through("decoder", self.decoder_depth, x, train)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]

    def _through(self, name: str, depth: int, x: jax.Array, train: bool) -> jax.Array:
        drops = train and (self.dropout or self.attention_dropout)
        rng = self.make_rng("dropout") if drops else None
        blocks = [getattr(self, f"{name}{i}") for i in range(depth)]
        return stack(blocks, x, rng=rng, scan=self.scan, remat=self.remat)
