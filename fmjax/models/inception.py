"""Inception-v3 (Szegedy et al. 2016, arXiv:1512.00567), by torchvision's names.

And the small Inception of Zhang et al. 2017 (arXiv:1611.03530, figure 3), for images of
28x28, by the names of its modules.
"""

# B batch, H height, W width, C channels, F features

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.typing import Dtype

from fmjax.layers.conv import ConvNorm, begun, check_images, max_pool, mean_pool
from fmjax.layers.dropout import Dropout

# Of ImageNet's pixels in [0, 1], red, green and blue.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# A branch is a row of pools ('mean', which keeps the size, and 'max', of stride 2) and
# of convolutions (channels, kernel, stride); a pair of kernels makes two convolutions
# of the same input, side by side.
Branches = dict[str, tuple[Any, ...]]


def grid35(pool: int) -> Branches:
    """Figure 5: 5x5 kept, another factorised in two 3x3."""
    return {
        "branch1x1": ((64, 1, 1),),
        "branch5x5": ((48, 1, 1), (64, 5, 1)),
        "branch3x3dbl": ((64, 1, 1), (96, 3, 1), (96, 3, 1)),
        "branch_pool": ("mean", (pool, 1, 1)),
    }


def grid17(width: int) -> Branches:
    """Figure 6: 7x7 factorised in 1x7 and 7x1."""
    across, down = (width, (1, 7), 1), (width, (7, 1), 1)
    return {
        "branch1x1": ((192, 1, 1),),
        "branch7x7": ((width, 1, 1), across, (192, (7, 1), 1)),
        "branch7x7dbl": ((width, 1, 1), down, across, down, (192, (1, 7), 1)),
        "branch_pool": ("mean", (192, 1, 1)),
    }


def grid8() -> Branches:
    """Figure 7: 1x3 and 3x1 side by side."""
    both = (384, ((1, 3), (3, 1)), 1)
    return {
        "branch1x1": ((320, 1, 1),),
        "branch3x3": ((384, 1, 1), both),
        "branch3x3dbl": ((448, 1, 1), (384, 3, 1), both),
        "branch_pool": ("mean", (192, 1, 1)),
    }


# Figure 10: half the size with twice the channels, by stride 2.
HALVE35: Branches = {
    "branch3x3": ((384, 3, 2),),
    "branch3x3dbl": ((64, 1, 1), (96, 3, 1), (96, 3, 2)),
    "branch_pool": ("max",),
}
HALVE17: Branches = {
    "branch3x3": ((192, 1, 1), (320, 3, 2)),
    "branch7x7x3": ((192, 1, 1), (192, (1, 7), 1), (192, (7, 1), 1), (192, 3, 2)),
    "branch_pool": ("max",),
}
# Table 1. (channels, kernel, stride, padding), and the pools of stride 2.
STEM: dict[str, tuple[int, int, int, int]] = {
    "Conv2d_1a_3x3": (32, 3, 2, 0),
    "Conv2d_2a_3x3": (32, 3, 1, 0),
    "Conv2d_2b_3x3": (64, 3, 1, 1),
    "maxpool1": (0, 3, 2, 0),
    "Conv2d_3b_1x1": (80, 1, 1, 0),
    "Conv2d_4a_3x3": (192, 3, 1, 0),
    "maxpool2": (0, 3, 2, 0),
}
MIXED: dict[str, Branches] = {
    "Mixed_5b": grid35(32),
    "Mixed_5c": grid35(64),
    "Mixed_5d": grid35(64),
    "Mixed_6a": HALVE35,
    "Mixed_6b": grid17(128),
    "Mixed_6c": grid17(160),
    "Mixed_6d": grid17(160),
    "Mixed_6e": grid17(192),
    "Mixed_7a": HALVE17,
    "Mixed_7b": grid8(),
    "Mixed_7c": grid8(),
}


def both_sizes(one: int, three: int) -> Branches:
    """The small net's module: convolutions of 1x1 and of 3x3 side by side."""
    return {"branch1x1": ((one, 1, 1),), "branch3x3": ((three, 3, 1),)}


def downsample(channels: int) -> Branches:
    """The small net's: half the size, by a convolution and a pool side by side."""
    return {"branch3x3": ((channels, 3, 2),), "branch_pool": ("max",)}


# Figure 3 of Zhang et al., whose grids are 28x28, 14x14 and 7x7.
SMALL: dict[str, Branches] = {
    "Inception_1a": both_sizes(32, 32),
    "Inception_1b": both_sizes(32, 48),
    "Downsample_1": downsample(80),
    "Inception_2a": both_sizes(112, 48),
    "Inception_2b": both_sizes(96, 64),
    "Inception_2c": both_sizes(80, 80),
    "Inception_2d": both_sizes(48, 96),
    "Downsample_2": downsample(96),
    "Inception_3a": both_sizes(176, 160),
    "Inception_3b": both_sizes(176, 160),
}
BLOCKS = MIXED | SMALL
STEMS = {"large": STEM, "small": {"Conv2d_1a_3x3": (96, 3, 1, 1)}}

SIZES: dict[str, dict[str, Any]] = {
    "v3": {},
    "v3-plain": {"auxiliary": False},
    "small": {
        "stem": "small",
        "blocks": tuple(SMALL),
        "auxiliary": False,
        "dropout": 0.0,
    },
}


class Mixed(nn.Module):
    """Branches of one input, [B, H, W, C], their channels one after another.

    width: a factor on the channels. convolve: ConvNorm with its shared fields. padding:
    rows and columns on either side of what halves the size; 0 takes H to (H - 1) // 2,
    and 1 to (H + 1) // 2.
    """

    branches: Any
    width: float
    convolve: Any
    padding: int = 0

    @nn.compact
    def __call__(self, inputs: jax.Array, *, train: bool) -> jax.Array:
        outputs = []
        for branch, layers in self.branches.items():
            x = inputs
            for names, layer in named(branch, layers):
                if names:
                    x = self._convolve(x, names, *layer, train=train)
                else:
                    mean = layer == "mean"
                    halved = functools.partial(max_pool, x, 3, 2, self.padding)
                    x = mean_pool(x, 3, 1, 1) if mean else halved()
            outputs.append(x)
        return jnp.concatenate(outputs, -1)

    def _convolve(self, x, names, channels, kernel, stride, *, train):
        kernels = kernel if len(names) > 1 else (kernel,)
        outputs = [
            self.convolve(
                scaled(channels, self.width),
                size,
                stride,
                padding=self.padding if stride == 2 else None,
                name=name,
            )(x, train=train)
            for name, size in zip(names, kernels, strict=True)
        ]
        return jnp.concatenate(outputs, -1)


def named(branch: str, layers: Sequence[Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(names of its convolutions, the layer) of each in a branch; a pool has none."""
    convs = [layer for layer in layers if not isinstance(layer, str)]
    number = 0
    for layer in layers:
        if isinstance(layer, str):
            yield (), layer
            continue
        number += 1
        name = branch if len(convs) == 1 else f"{branch}_{number}"
        side_by_side = isinstance(layer[1], tuple) and isinstance(layer[1][0], tuple)
        yield ((f"{name}a", f"{name}b") if side_by_side else (name,)), layer


def scaled(channels: int, width: float) -> int:
    """So many channels of a net that is `width` times as wide; one at least."""
    return max(1, round(channels * width))


class Auxiliary(nn.Module):
    """Logits [B, classes] from the 17x17 grid (section 4; figure 8), [B, H, W, C]."""

    classes: int
    width: float
    convolve: Any

    @nn.compact
    def __call__(self, inputs: jax.Array, *, train: bool) -> jax.Array:
        if min(inputs.shape[1:3]) < 17:
            raise ValueError(
                "the auxiliary classifier needs a grid of 17x17, not "
                f"{inputs.shape[1]}x{inputs.shape[2]}: resize images to 299x299, or "
                "set auxiliary=False"
            )
        x = mean_pool(inputs, 5, 3)
        narrow, wide = (scaled(channels, self.width) for channels in (128, 768))
        x = self.convolve(narrow, 1, padding=0, name="conv0")(x, train=train)
        last = self.convolve(wide, 5, padding=0, kernel_init=begun(0.01), name="conv1")
        x = last(x, train=train)
        x = x.astype(jnp.float32).mean((1, 2))
        normal = nn.initializers.normal(0.001)
        return nn.Dense(self.classes, kernel_init=normal, name="classify")(x)


class Model(nn.Module):
    """Inception-v3 (table 1): a stem, eleven mixed blocks, mean, dropout, classes.

    inputs: [B, H, W, C], floating, of 75x75 at least; the paper's are 299x299. Returns
    logits [B, classes], float32; both=True: (logits, auxiliary logits), for training;
    features=True: the pooled features [B, F]; F is 2048 width, or the small net's
    336 width.

    stem: 'large', or 'small', one 3x3 convolution, after which whatever halves the size
    is padded by one, for images of any size. auxiliary: is there the second classifier,
    after Mixed_6e, which only training uses? width: a factor on all channels. blocks:
    which of BLOCKS. transform_input: inputs that are normalised by ImageNet's mean and
    deviation are turned into x / 127.5 - 1, which the first public weights were trained
    on. frozen_norm keeps the running statistics in training too.

    kernel_std: how kernels begin (`layers.conv.begun`); norm_momentum: of the running
    statistics. The authors' code and torchvision's have 0.1 for the former, the
    authors' 0.9997 for the latter, and no gains in the batch norms.

    Raises ValueError, when traced, where inputs are not 4-dimensional, floating, or
    large enough, where `stem` is neither, and where there is no auxiliary classifier to
    ask.
    """

    classes: int = 1000
    auxiliary: bool = True
    width: float = 1.0
    stem: str = "large"
    blocks: tuple[str, ...] = tuple(MIXED)
    dropout: float = 0.5
    transform_input: bool = False
    frozen_norm: bool = False
    kernel_std: float | None = None
    norm_momentum: float = 0.9
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(
        self,
        inputs: jax.Array,
        *,
        train: bool = False,
        features: bool = False,
        both: bool = False,
    ) -> Any:
        if self.stem not in STEMS:
            raise ValueError(f"stem is 'large' or 'small', not {self.stem!r}")
        small = self.stem == "small"
        check_images(inputs, smallest=1 if small else 75)
        if both and not (self.auxiliary and "Mixed_6e" in self.blocks):
            raise ValueError(
                "there is no auxiliary classifier; set auxiliary=True, and have "
                "Mixed_6e among blocks"
            )
        convolve = functools.partial(
            ConvNorm,
            eps=1e-3,
            momentum=self.norm_momentum,
            frozen=self.frozen_norm,
            kernel_init=begun(self.kernel_std),
            dtype=self.dtype,
        )
        x = between(inputs) if self.transform_input else inputs
        for name, (channels, kernel, stride, padding) in STEMS[self.stem].items():
            if not channels:
                x = max_pool(x, kernel, stride)
                continue
            channels = scaled(channels, self.width)
            layer = convolve(channels, kernel, stride, padding, name=name)
            x = layer(x, train=train)
        second = None
        for name in self.blocks:
            block = Mixed(BLOCKS[name], self.width, convolve, int(small), name=name)
            x = block(x, train=train)
            asked = self.auxiliary and (both or self.is_initializing())
            if name == "Mixed_6e" and asked:
                other = Auxiliary(self.classes, self.width, convolve, name="AuxLogits")
                second = other(x, train=train)
        x = x.astype(jnp.float32).mean((1, 2))
        if features:
            return x
        x = Dropout(self.dropout)(x, train=train)
        normal = nn.initializers.normal(0.01)
        logits = nn.Dense(self.classes, kernel_init=normal, name="classify")(x)
        return (logits, second) if both else logits


def between(x: jax.Array) -> jax.Array:
    """(image - mean) / deviation of ImageNet, [..., 3], as 2 image - 1, in [-1, 1]."""
    mean, std = (np.array(v, np.float32) for v in (MEAN, STD))
    return x * (std / np.float32(0.5)) + (mean - np.float32(0.5)) / np.float32(0.5)
