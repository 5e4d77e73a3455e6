"""The small convolutional nets of every first tutorial (after LeCun et al. 1998)."""

# B batch, H height, W width, C channels, F features

from typing import Any

import jax
from flax import linen as nn
from flax.typing import Dtype

from fmjax.layers.conv import max_pool
from fmjax.layers.dropout import Dropout

# classic: 3x3x32, pool, dense 64. two: Keras' mnist_convnet (two 3x3 convolutions, each
# with its pool, dropout 0.5 before the output, no hidden dense layer). deep: the same
# convolutions with a hidden layer, and dropout on both sides of it.
SIZES: dict[str, dict[str, Any]] = {
    "classic": {"channels": (32,), "dense": 64, "dropout": 0.0},
    "two": {"channels": (32, 64), "dense": None, "dropout": 0.5},
    "two-dense": {"channels": (32, 64), "dense": 128, "dropout": 0.25},
}


class Model(nn.Module):
    """Convolution 3x3, ReLU, 2x2 max-pool for each of `channels`; dense, ReLU; classes.

    inputs: [B, H, W, C], floating. Returns logits [B, classes], float32.
    Convolutions are without padding ('VALID'), so each level takes H to (H - 2) // 2.
    dense None leaves the hidden layer out. dropout is on the flattened features and on
    the hidden layer, in training. Initialisers: He for layers before ReLU, else Glorot.

    Raises ValueError, when traced, where inputs are not 4-dimensional or floating, or
    are too small for this many levels.
    """

    classes: int = 10
    channels: tuple[int, ...] = (32,)
    dense: int | None = 64
    dropout: float = 0.0
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, inputs: jax.Array, *, train: bool = False) -> jax.Array:
        self._check(inputs)
        he, glorot = nn.initializers.he_normal(), nn.initializers.glorot_uniform()
        x = inputs
        for i, channels in enumerate(self.channels):
            x = nn.Conv(
                channels,
                (3, 3),
                padding="VALID",
                dtype=self.dtype,
                kernel_init=he,
                name=f"conv{i}",
            )(x)
            x = max_pool(nn.relu(x), 2, 2)
        x = x.reshape(x.shape[0], -1)
        x = Dropout(self.dropout)(x, train=train)
        if self.dense is not None:
            x = nn.Dense(self.dense, dtype=self.dtype, kernel_init=he, name="dense")(x)
            x = Dropout(self.dropout)(nn.relu(x), train=train)
        # Logits in float32: their softmax is where bfloat16 would show.
        return nn.Dense(self.classes, kernel_init=glorot, name="classify")(x)

    def _check(self, inputs: jax.Array) -> None:
        if inputs.ndim != 4:
            raise ValueError(
                f"inputs must be [B, H, W, C], got shape {inputs.shape}; a grey image "
                "needs a channel axis"
            )
        if not jax.numpy.issubdtype(inputs.dtype, jax.numpy.floating):
            raise ValueError(
                f"inputs must be floating, got {inputs.dtype}; scale images first"
            )
        side = min(inputs.shape[1:3])
        for level in range(len(self.channels)):
            side = (side - 2) // 2
            if side < 1:
                raise ValueError(
                    f"images of {inputs.shape[1]}x{inputs.shape[2]} are gone after "
                    f"level {level} of {len(self.channels)}; use fewer channels"
                )
