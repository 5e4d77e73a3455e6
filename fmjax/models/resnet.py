"""ResNets (He et al. 2016, arXiv:1512.03385) and the plain nets beside them.

The large ones are "v1.5", as torchvision and most papers have them: a bottleneck's
stride is in its 3x3 convolution, not in the first 1x1. The small ones are those of
section 4.2, for images of 32x32.
"""

# B batch, H height, W width, C channels, F features

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from fmjax.layers.conv import ConvNorm, check_images, max_pool

# Table 1: four stages for ImageNet.
LARGE: dict[str, dict[str, Any]] = {
    "18": {"depths": (2, 2, 2, 2)},
    "34": {"depths": (3, 4, 6, 3)},
    "50": {"depths": (3, 4, 6, 3), "bottleneck": True},
    "101": {"depths": (3, 4, 23, 3), "bottleneck": True},
    "152": {"depths": (3, 8, 36, 3), "bottleneck": True},
}
# Section 4.2: 6n + 2 layers in three stages, shortcuts without parameters (option A).
SMALL: dict[str, dict[str, Any]] = {
    str(6 * n + 2): {
        "depths": (n, n, n),
        "width": 16,
        "stem": "small",
        "projection": False,
    }
    for n in (3, 5, 7, 9, 18)
}
SIZES = LARGE | SMALL


class Block(nn.Module):
    """Convolutions 3x3, 3x3, or 1x1, 3x3, 1x1 (bottleneck), and the shortcut around.

    inputs: [B, H, W, C]. Returns [B, H / stride, W / stride, F], rounded up; F is
    4 width for a bottleneck, else width (figure 5). Where shapes differ, the shortcut
    is a 1x1 convolution (option B), or without `projection` every stride-th pixel with
    zeros for the channels there are more of (option A).
    """

    width: int
    stride: int = 1
    bottleneck: bool = False
    shortcut: bool = True
    projection: bool = True
    zero_init: bool = False
    frozen_norm: bool = False
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, inputs: jax.Array, *, train: bool) -> jax.Array:
        features = self.width * (4 if self.bottleneck else 1)
        convolve = functools.partial(
            ConvNorm, frozen=self.frozen_norm, dtype=self.dtype
        )
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        last = functools.partial(
            convolve, features, act=None, scale_init=zeros if self.zero_init else ones
        )
        if self.bottleneck:
            layers = [
                convolve(self.width, 1, name="conv1"),
                convolve(self.width, 3, self.stride, name="conv2"),
                last(1, name="conv3"),
            ]
        else:
            layers = [
                convolve(self.width, 3, self.stride, name="conv1"),
                last(3, name="conv2"),
            ]
        x = inputs
        for layer in layers:
            x = layer(x, train=train)
        if not self.shortcut:
            return nn.relu(x)
        around = inputs
        if self.stride > 1 or inputs.shape[-1] != features:
            if self.projection:
                project = convolve(features, 1, self.stride, act=None, name="project")
                around = project(inputs, train=train)
            else:
                more = features - inputs.shape[-1]
                around = inputs[:, :: self.stride, :: self.stride]
                # As the paper's readers have it, zeros on both sides.
                pads = (more // 2, more - more // 2)
                around = jnp.pad(around, ((0, 0), (0, 0), (0, 0), pads))
        return nn.relu(x + around)


class Model(nn.Module):
    """Stem, stages of blocks, mean over the image, classes.

    inputs: [B, H, W, C], floating. Returns logits [B, classes], float32; with
    features=True the pooled features [B, F], float32, in their place. Stage i has
    depths[i] blocks of 2^i width channels, and from the second on begins with stride 2.

    stem: 'large' is a 7x7 convolution and a 3x3 max-pool, both of stride 2; 'small' is
    one 3x3 convolution. shortcut False is the plain net. projection False is option A.
    zero_init begins every block as its shortcut (Goyal et al. 2017, section 5.1).
    frozen_norm keeps the running statistics in training too.

    Raises ValueError, when traced, where inputs are not 4-dimensional or floating, or
    `stem` is neither.
    """

    classes: int = 1000
    depths: tuple[int, ...] = (2, 2, 2, 2)
    width: int = 64
    bottleneck: bool = False
    stem: str = "large"
    shortcut: bool = True
    projection: bool = True
    zero_init: bool = False
    frozen_norm: bool = False
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(
        self, inputs: jax.Array, *, train: bool = False, features: bool = False
    ) -> jax.Array:
        check_images(inputs)
        if self.stem not in ("large", "small"):
            raise ValueError(f"stem is 'large' or 'small', not {self.stem!r}")
        given: Any = {
            "bottleneck": self.bottleneck,
            "shortcut": self.shortcut,
            "projection": self.projection,
            "zero_init": self.zero_init,
            "frozen_norm": self.frozen_norm,
            "dtype": self.dtype,
        }
        kernel, stride = (7, 2) if self.stem == "large" else (3, 1)
        frozen, dtype = self.frozen_norm, self.dtype
        x = ConvNorm(
            self.width, kernel, stride, frozen=frozen, dtype=dtype, name="stem"
        )(inputs, train=train)
        if self.stem == "large":
            x = max_pool(x, 3, 2, padding=1)
        for i, depth in enumerate(self.depths):
            for j in range(depth):
                x = Block(
                    self.width * 2**i,
                    stride=2 if i and not j else 1,
                    **given,
                    name=f"stage{i + 1}_block{j}",
                )(x, train=train)
        x = x.astype(jnp.float32).mean((1, 2))
        if features:
            return x
        # In float32, as their softmax.
        normal = nn.initializers.normal(0.01)
        return nn.Dense(self.classes, kernel_init=normal, name="classify")(x)
