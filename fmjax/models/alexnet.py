"""AlexNet (Krizhevsky et al. 2012) in one tower (Krizhevsky 2014, arXiv:1404.5997).

The widths are torchvision's. There is no local response normalisation.
"""

# B batch, H height, W width, C channels, F features

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from fmjax.layers.conv import check_images, conv, max_pool, mean_to
from fmjax.layers.dropout import Dropout

SIZES: dict[str, dict[str, Any]] = {"base": {}}

# (kernel, stride, padding, is there a pool after it?) of each convolution.
LAYERS = (
    (11, 4, 2, True),
    (5, 1, 2, True),
    (3, 1, 1, False),
    (3, 1, 1, False),
    (3, 1, 1, True),
)


class Model(nn.Module):
    """Five convolutions, three of them with a 3x3 max-pool of stride 2; three dense.

    inputs: [B, H, W, C], floating, of 63x63 at least. Returns logits [B, classes],
    float32; with features=True the second dense layer's output [B, dense], float32.
    What the last pool leaves is brought to 6x6 by means (at 224x224 it is), and
    flattened channel by channel as in the public weights. Dropout is before the first
    two dense layers, in training.

    Raises ValueError, when traced, where inputs are not 4-dimensional, floating, or
    large enough.
    """

    classes: int = 1000
    channels: tuple[int, ...] = (64, 192, 384, 256, 256)
    dense: int = 4096
    dropout: float = 0.5
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(
        self, inputs: jax.Array, *, train: bool = False, features: bool = False
    ) -> jax.Array:
        check_images(inputs, smallest=63)
        he, glorot = nn.initializers.he_normal(), nn.initializers.glorot_uniform()
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=he)
        x = inputs
        for i, (channels, layer) in enumerate(zip(self.channels, LAYERS, strict=True)):
            kernel, stride, padding, pool = layer
            x = conv(
                channels,
                kernel,
                stride=stride,
                padding=padding,
                use_bias=True,
                kernel_init=he,
                dtype=self.dtype,
                name=f"conv{i}",
            )(x)
            x = max_pool(nn.relu(x), 3, 2) if pool else nn.relu(x)
        x = mean_to(x, 6).transpose(0, 3, 1, 2).reshape(len(x), -1)
        for i in range(2):
            x = Dropout(self.dropout)(x, train=train)
            x = nn.relu(dense(self.dense, name=f"dense{i}")(x))
        if features:
            return x.astype(jnp.float32)
        return nn.Dense(self.classes, kernel_init=glorot, name="classify")(x)
