"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381)."""

# B batch, H height, W width, C channels, F features

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from fmjax.layers.conv import ConvNorm, begun, check_images
from fmjax.layers.dropout import Dropout

# Section 6.1's multipliers of the width.
SIZES: dict[str, dict[str, Any]] = {
    "1.0": {"width": 1.0},
    "0.5": {"width": 0.5},
    "1.4": {"width": 1.4},
}

# Table 2: (expansion t, channels c, repetitions n, stride s of the first).
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def scaled(channels: int, width: float, divisor: int = 8) -> int:
    """channels x width as a multiple of `divisor`, less by no more than a tenth."""
    wanted = channels * width
    near = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * wanted else near


class Block(nn.Module):
    """Inverted residual with a linear bottleneck (section 3.3; table 1).

    inputs: [B, H, W, C]. Returns [B, H / stride, W / stride, F], rounded up. The
    shortcut is there where the shape stays.
    """

    features: int
    stride: int
    expansion: int
    convolve: Any  # ConvNorm with its shared fields

    @nn.compact
    def __call__(self, inputs: jax.Array, *, train: bool) -> jax.Array:
        wide = inputs.shape[-1] * self.expansion
        convolve, x = self.convolve, inputs
        if self.expansion > 1:
            x = convolve(wide, 1, name="expand")(x, train=train)
        depthwise = convolve(wide, 3, self.stride, groups=wide, name="depthwise")
        x = depthwise(x, train=train)
        x = convolve(self.features, 1, act=None, name="project")(x, train=train)
        same = self.stride == 1 and inputs.shape[-1] == self.features
        return inputs + x if same else x


class Model(nn.Module):
    """3x3 stem of stride 2, inverted residuals, 1x1 head, mean, dropout, classes.

    inputs: [B, H, W, C], floating. Returns logits [B, classes], float32; with
    features=True the pooled features [B, F], float32, in their place. width multiplies
    all channels, and those of the head where it is above 1; `divisor` is what they are
    multiples of. stages: as in table 2, fewer for a smaller net. frozen_norm keeps the
    running statistics in training too.

    kernel_std, norm_momentum, norm_eps: how kernels begin (`layers.conv.begun`), and of
    the batch norms. The defaults are torchvision's; the authors' code has 0.09, 0.997
    and 1e-3.

    Raises ValueError, when traced, where inputs are not 4-dimensional or floating.
    """

    classes: int = 1000
    width: float = 1.0
    divisor: int = 8
    head: int = 1280
    dropout: float = 0.2
    stages: tuple[tuple[int, int, int, int], ...] = STAGES
    frozen_norm: bool = False
    kernel_std: float | None = None
    norm_momentum: float = 0.9
    norm_eps: float = 1e-5
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(
        self, inputs: jax.Array, *, train: bool = False, features: bool = False
    ) -> jax.Array:
        check_images(inputs)
        convolve = functools.partial(
            ConvNorm,
            act=nn.relu6,
            eps=self.norm_eps,
            momentum=self.norm_momentum,
            frozen=self.frozen_norm,
            kernel_init=begun(self.kernel_std),
            dtype=self.dtype,
        )
        stem = scaled(32, self.width, self.divisor)
        x = convolve(stem, 3, 2, name="stem")(inputs, train=train)
        number = 0
        for expansion, channels, repeats, first in self.stages:
            for i in range(repeats):
                number += 1
                x = Block(
                    scaled(channels, self.width, self.divisor),
                    first if i == 0 else 1,
                    expansion,
                    convolve,
                    name=f"block{number}",
                )(x, train=train)
        head = scaled(self.head, max(1.0, self.width), self.divisor)
        x = convolve(head, 1, name="head")(x, train=train)
        x = x.astype(jnp.float32).mean((1, 2))
        if features:
            return x
        x = Dropout(self.dropout)(x, train=train)
        own = self.kernel_std is not None
        init = begun(self.kernel_std) if own else nn.initializers.normal(0.01)
        return nn.Dense(self.classes, kernel_init=init, name="classify")(x)
