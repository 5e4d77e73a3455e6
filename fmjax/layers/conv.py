"""Convolutions and pools as torch pads them, and a convolution with its batch norm."""

# B batch, H height, W width, C channels

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.typing import Dtype, Initializer

from fmjax.layers.batch_norm import BatchNorm

# He et al. 2015, eq. 14, as torchvision draws it: the variance of gradients is kept.
he_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def begun(std: float | None) -> Initializer:
    """Kernels at the start: normal, cut off at two of `std`, or by he_out for None.

    Not rescaled for the cut, as TensorFlow's truncated normal is not.
    """
    return he_out if std is None else nn.initializers.truncated_normal(std)


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of what may be one number for both."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def conv(
    features: int,
    kernel: int | Sequence[int],
    *,
    stride: int = 1,
    padding: int | Sequence[int] | None = None,
    groups: int = 1,
    use_bias: bool = False,
    kernel_init: Initializer = he_out,
    dtype: Dtype = "float32",
    name: str | None = None,
) -> nn.Conv:
    """A convolution of [B, H, W, C], made inside a module.

    padding: rows and columns of zeros on either side; None takes (kernel - 1) // 2, by
    which stride 1 keeps the size. 'SAME' would pad unevenly at stride 2, unlike torch.
    """
    size = pair(kernel)
    around = pair(padding) if padding is not None else [(k - 1) // 2 for k in size]
    return nn.Conv(
        features,
        size,
        strides=(stride, stride),
        padding=[(p, p) for p in around],
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=kernel_init,
        dtype=dtype,
        name=name,
    )


class ConvNorm(nn.Module):
    """Convolution without bias, batch normalisation, activation (None: none).

    inputs: [B, H, W, C]; arguments as of `conv` and `BatchNorm`.
    """

    features: int
    kernel: int | Sequence[int] = 3
    stride: int = 1
    padding: int | Sequence[int] | None = None
    groups: int = 1
    act: Callable[[jax.Array], jax.Array] | None = nn.relu
    eps: float = 1e-5
    momentum: float = 0.9
    frozen: bool = False
    kernel_init: Initializer = he_out
    scale_init: Initializer = nn.initializers.ones
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, inputs: jax.Array, *, train: bool) -> jax.Array:
        x = conv(
            self.features,
            self.kernel,
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            name="conv",
        )(inputs)
        norm: Any = BatchNorm(
            eps=self.eps,
            momentum=self.momentum,
            frozen=self.frozen,
            scale_init=self.scale_init,
            dtype=self.dtype,
            name="norm",
        )
        x = norm(x, train=train)
        return self.act(x) if self.act else x


def max_pool(x: jax.Array, size: int, stride: int, padding: int = 0) -> jax.Array:
    """The largest of each window of [B, H, W, C]; padding is never the largest.

    The gradient goes to the first of equals. On a CPU the backward pass of XLA's own
    pool takes several times as long as all else of a small net; there, the same is
    computed by comparing views of x.
    """
    around = ((padding, padding),) * 2

    def own(x: jax.Array) -> jax.Array:
        return nn.max_pool(x, (size, size), (stride, stride), around)

    def compared(x: jax.Array) -> jax.Array:
        for axis in (2, 1):  # the first of equals by rows, as XLA has it
            edges = [(0, 0)] * 4
            edges[axis] = (padding, padding)
            x = jnp.pad(x, edges, constant_values=-jnp.inf) if padding else x
            last = (x.shape[axis] - size) // stride * stride
            views = [
                jax.lax.slice_in_dim(x, i, i + last + 1, stride, axis)
                for i in range(size)
            ]
            x = views[0]
            for view in views[1:]:
                x = jnp.where((x >= view) | jnp.isnan(x), x, view)
        return x

    return jax.lax.platform_dependent(x, cpu=compared, default=own)


def mean_pool(x: jax.Array, size: int, stride: int, padding: int = 0) -> jax.Array:
    """The mean of each window of [B, H, W, C]; padding counts as zeros, as in torch."""
    around = ((padding, padding),) * 2
    return nn.avg_pool(x, (size, size), (stride, stride), around)


def mean_to(x: jax.Array, size: int) -> jax.Array:
    """[B, H, W, C] to [B, size, size, C] by means, whatever H and W are.

    Place i is the mean from floor(i H / size) to ceil((i + 1) H / size), as in torch's
    adaptive pooling; places overlap where size does not divide H.
    """

    def means(side: int) -> np.ndarray:
        places, rows = np.arange(size)[:, None], np.arange(side)
        inside = (rows >= places * side // size) & (
            rows < -(-(places + 1) * side // size)
        )
        return inside / inside.sum(1, keepdims=True)

    down, across = (jnp.asarray(means(side), x.dtype) for side in x.shape[1:3])
    return jnp.einsum("ih,jw,bhwc->bijc", down, across, x)


def check_images(inputs: jax.Array, smallest: int = 1) -> None:
    """Raises ValueError where inputs are not floating [B, H, W, C] of a size that fits.

    smallest: of H and W, what the pools and strides of the net leave something of.
    """
    if inputs.ndim != 4:
        raise ValueError(
            f"inputs must be [B, H, W, C], got shape {inputs.shape}; a grey image "
            "needs a channel axis"
        )
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise ValueError(
            f"inputs must be floating, got {inputs.dtype}; scale images first"
        )
    if min(inputs.shape[1:3]) < smallest:
        raise ValueError(
            f"images of {inputs.shape[1]}x{inputs.shape[2]} are too small for this "
            f"net; resize them to {smallest}x{smallest} at least"
        )
