"""CLIP: images and texts in one space (Radford et al. 2021, arXiv:2103.00020)."""

# B batch, H height, W width, C channels, T tokens, E joint space, D width

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from fmjax.layers import check
from fmjax.layers.dense import dense
from fmjax.layers.norm import LayerNorm
from fmjax.layers.patches import Embed, check_images
from fmjax.layers.transformer import Block, stack

LIMIT = math.log(100)  # of the logit scale: section 2.5

# The patches', in the authors' code: what torch gives a convolution by itself, uniform
# within 1 / sqrt(fan-in).
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _size(
    patch: int, width: int, depth: int, heads: int, joint: int, side: int = 224
) -> dict[str, Any]:
    text = joint if joint > 512 else 512
    image = dict(
        patch=patch, width=width, depth=depth, heads=heads, mlp_width=4 * width
    )
    words = dict(text_width=text, text_depth=12, text_heads=text // 64)
    words |= dict(text_mlp_width=4 * text, vocab_size=49408, max_length=77, eos=49407)
    return image | words | dict(joint=joint, image=(side, side))


# Table 20 of the paper, and the released files.
SIZES: dict[str, dict[str, Any]] = {
    "B/32": _size(32, 768, 12, 12, 512),
    "B/16": _size(16, 768, 12, 12, 512),
    "L/14": _size(14, 1024, 24, 16, 768),
    "L/14-336": _size(14, 1024, 24, 16, 768, 336),
}


class Model(nn.Module):
    """A vision transformer and a causal text transformer, each with a linear map to E.

    inputs: dict of
        image: floating [B, H, W, C];
        tokens: int [B, T], T <= max_length;
        mask: bool [B, T], True is a real token; absent: all are.
    Returns a dict of image and text, unit vectors [B, E], and scale, the inverse
    temperature exp(logit_scale), at most 100; all float32. With features=True the image
    tower's states [B, D] before their linear map, float32.

    A text is its state at the first token `eos`; where that is 'highest', at its
    highest id (the authors' code, whose end of text is the last word of the
    vocabulary); where None, at its last real token. `encode_image` and `encode_text`
    are the towers.
    Raises ValueError, when traced, where inputs have another shape or type.
    """

    patch: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    text_width: int
    text_depth: int
    text_heads: int
    text_mlp_width: int
    vocab_size: int
    joint: int = 512
    max_length: int = 77
    eos: int | str | None = None
    image: tuple[int, int] = (224, 224)
    channels: int = 3
    activation: str = "gelu_sigmoid"
    attention_dropout: float = 0.0
    text_attention_dropout: float = 0.0
    temperature: float = 0.07  # at the start
    eps: float = 1e-5
    scan: bool = False  # these two as in `layers.transformer.stack`
    remat: str | None = None
    implementation: str | None = None  # as in `layers.attend.attend`
    dtype: Dtype = "float32"

    def setup(self) -> None:
        both: dict[str, Any] = dict(
            activation=self.activation,
            eps=self.eps,
            scan=self.scan,
            remat=self.remat,
            implementation=self.implementation,
            dtype=self.dtype,
        )
        self.vision = Vision(
            self.patch,
            self.width,
            self.depth,
            self.heads,
            self.mlp_width,
            image=self.image,
            attention_dropout=self.attention_dropout,
            **both,
        )
        self.text = Text(
            self.vocab_size,
            self.text_width,
            self.text_depth,
            self.text_heads,
            self.text_mlp_width,
            max_length=self.max_length,
            attention_dropout=self.text_attention_dropout,
            **both,
        )

        def project(width: int) -> nn.Dense:
            init = nn.initializers.normal(width**-0.5)
            return dense(self.joint, "float32", use_bias=False, kernel_init=init)

        self.vision_project = project(self.width)
        self.text_project = project(self.text_width)
        start = nn.initializers.constant(-math.log(self.temperature))
        self.logit_scale = self.param("logit_scale", start, ())

    def __call__(
        self,
        inputs: Mapping[str, jax.Array],
        *,
        train: bool = False,
        features: bool = False,
    ) -> Any:
        if features:
            image = inputs["image"]
            check_images(image, self.image, self.channels)
            return self.vision(image, train=train).astype(jnp.float32)
        return {
            "image": self.encode_image(inputs["image"], train=train),
            "text": self.encode_text(inputs, train=train),
            "scale": jnp.exp(ceiling(self.logit_scale, LIMIT)),
        }

    def encode_image(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, C] to unit vectors [B, E]."""
        check_images(image, self.image, self.channels)
        return unit(self.vision_project(self.vision(image, train=train)))

    def encode_text(
        self, inputs: Mapping[str, jax.Array], *, train: bool = False
    ) -> jax.Array:
        """tokens, and mask where there is one, to unit vectors [B, E]."""
        tokens, mask = inputs["tokens"], inputs.get("mask")
        check.tokens(tokens, self.max_length, mask=mask)
        x = self.text(tokens, mask, train=train)
        if isinstance(self.eos, int):
            end = jnp.equal(tokens, self.eos).argmax(axis=1)
        elif self.eos == "highest":
            end = tokens.argmax(axis=1)
        elif self.eos is not None:
            raise ValueError(f"eos={self.eos!r} is no id, nor 'highest', nor None")
        else:
            real = jnp.ones(tokens.shape, bool) if mask is None else mask
            end = tokens.shape[1] - 1 - real[:, ::-1].argmax(axis=1)
        state = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]
        return unit(self.text_project(state))


class Vision(nn.Module):
    """Images [B, H, W, C] to the normalised states [B, D] of their class tokens."""

    patch: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    image: tuple[int, int]
    activation: str
    attention_dropout: float
    eps: float
    scan: bool
    remat: str | None
    implementation: str | None
    dtype: Dtype

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        normal = nn.initializers.normal(self.width**-0.5)
        x = Embed(
            self.patch,
            self.width,
            self.image,
            use_bias=False,
            kernel_init=torch_uniform,
            cls_init=normal,
            positions_init=normal,
            dtype=self.dtype,
            name="embed",
        )(images)
        x = LayerNorm(self.eps, self.dtype, name="pre_norm")(x)
        x = _blocks(self, x, train)[:, 0]
        return LayerNorm(self.eps, self.dtype, name="norm")(x)


class Text(nn.Module):
    """Tokens [B, T] to normalised states [B, T, D], each seeing those before it."""

    vocab_size: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    max_length: int
    activation: str
    attention_dropout: float
    eps: float
    scan: bool
    remat: str | None
    implementation: str | None
    dtype: Dtype

    @nn.compact
    def __call__(
        self, tokens: jax.Array, mask: jax.Array | None, *, train: bool
    ) -> jax.Array:
        def table(rows: int, deviation: float, name: str) -> nn.Embed:
            init = nn.initializers.normal(deviation)
            return nn.Embed(
                rows, self.width, dtype=self.dtype, embedding_init=init, name=name
            )

        x = table(self.vocab_size, 0.02, "tokens")(tokens)
        positions = jnp.arange(tokens.shape[1])
        x += table(self.max_length, 0.01, "positions")(positions)
        attended = None if mask is None else mask[:, None, None, :]
        x = _blocks(self, x, train, mask=attended, causal=True)
        return LayerNorm(self.eps, self.dtype, name="norm")(x)


def _blocks(own: Any, x: jax.Array, train: bool, **given: Any) -> jax.Array:
    """x through a tower's blocks, which begin as the authors' code has the text's.

    It leaves the image tower's to torch's defaults, which are not these.
    """
    blocks = [
        Block(
            own.heads,
            own.mlp_width,
            order="pre",
            activation=own.activation,
            attention_dropout=own.attention_dropout,
            implementation=own.implementation,
            eps=own.eps,
            kernel_init=nn.initializers.normal(own.width**-0.5),
            mlp_init=nn.initializers.normal((2 * own.width) ** -0.5),
            out_init=nn.initializers.normal((2 * own.depth * own.width) ** -0.5),
            dtype=own.dtype,
            name=f"layer{i}",
        )
        for i in range(own.depth)
    ]
    rng = own.make_rng("dropout") if train and own.attention_dropout else None
    return stack(blocks, x, rng=rng, scan=own.scan, remat=own.remat, **given)


def unit(x: jax.Array) -> jax.Array:
    """x [..., E] in float32 and of length 1."""
    x = x.astype(jnp.float32)
    # The small number keeps the gradient at zero finite.
    return x * jax.lax.rsqrt((x**2).sum(-1, keepdims=True) + 1e-24)


@jax.custom_vjp
def ceiling(x: jax.Array, limit: float) -> jax.Array:
    """min(x, limit), whose gradient above the limit passes only if it leads back.

    The paper cuts the parameter off after each step; a mere minimum would hold it there
    for ever.
    """
    return jnp.minimum(x, limit)


def _ceiling_forward(x: jax.Array, limit: float) -> tuple[jax.Array, Any]:
    return ceiling(x, limit), (x, limit)


def _ceiling_backward(kept: Any, gradient: jax.Array) -> tuple[jax.Array, None]:
    x, limit = kept
    return jnp.where((x <= limit) | (gradient > 0), gradient, 0.0), None


ceiling.defvjp(_ceiling_forward, _ceiling_backward)
