"""Images as sequences: patches, positions on a grid, and their resampling."""

# B batch, H height, W width, C channels, p side of a patch, N patches, D width,
# E tokens in front of the patches (a class token)

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.typing import Dtype, Initializer

from fmjax.layers.dense import truncated_normal


def grid(image: Sequence[int], patch: int) -> tuple[int, int]:
    """(rows, columns) of the patches of an image (H, W).

    Raises ValueError where patches do not tile it.
    """
    height, width = image
    if patch < 1 or min(height, width) < patch or height % patch or width % patch:
        raise ValueError(
            f"patches of {patch}x{patch} do not tile an image of {height}x{width}; "
            "resize it, or choose a patch that divides both sides"
        )
    return height // patch, width // patch


def check_images(images: jax.Array, image: Sequence[int], channels: int) -> None:
    """Raises ValueError where images are not floating [B, H, W, C] of this size."""
    wanted = (*image, channels)
    if images.ndim != 4 or images.shape[1:] != wanted:
        raise ValueError(
            f"images must be [B, {', '.join(map(str, wanted))}], got {images.shape}; "
            "resize them, or set the model's image and channels"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"images must be floating, got {images.dtype}; scale them first"
        )


class Patches(nn.Module):
    """A linear map of each patch (Dosovitskiy et al. 2021, eq. 1).

    images: [B, H, W, C] to [B, N, D], row by row. The kernel is that of a convolution
    with stride p, [p, p, C, D], as public files have it.
    """

    patch: int
    width: int
    use_bias: bool = True
    kernel_init: Initializer = truncated_normal
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        p = self.patch
        shape = (p, p, images.shape[-1], self.width)
        # One matrix product: XLA's strided convolutions on a CPU are slower.
        kernel = self.param("kernel", self._flat_init, shape)
        x = patchify(images, p).astype(self.dtype)
        x = x @ kernel.reshape(-1, self.width).astype(self.dtype)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.width,))
            x += bias.astype(self.dtype)
        return x

    def _flat_init(self, key: jax.Array, shape: Sequence[int]) -> jax.Array:
        """Initialised as the matrix it is, whose fan-in is a patch's numbers."""
        flat = (int(np.prod(shape[:-1])), shape[-1])
        return self.kernel_init(key, flat, jnp.float32).reshape(shape)


class Embed(nn.Module):
    """Patches with their positions, after the class tokens: to [B, E + N, D].

    positions: 'learned', or 'sincos', which are no parameters.
    The parameters are patches/kernel [p, p, C, D] and bias, cls [E, D] and, where
    learned, positions [E + N, D].
    """

    patch: int
    width: int
    image: tuple[int, int]
    front: int = 1
    positions: str = "learned"
    use_bias: bool = True
    kernel_init: Initializer = truncated_normal
    cls_init: Initializer = truncated_normal
    positions_init: Initializer = truncated_normal
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        rows, columns = grid(self.image, self.patch)
        x = Patches(
            self.patch,
            self.width,
            use_bias=self.use_bias,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            name="patches",
        )(images)
        if self.front:
            shape = (self.front, self.width)
            cls = self.param("cls", self.cls_init, shape).astype(self.dtype)
            x = jnp.concatenate([jnp.broadcast_to(cls, (len(x), *shape)), x], axis=1)
        if self.positions == "sincos":
            table = jnp.asarray(sincos((rows, columns), self.width, front=self.front))
        else:
            shape = (self.front + rows * columns, self.width)
            table = self.param("positions", self.positions_init, shape)
        return x + table.astype(self.dtype)


def patchify(images: jax.Array, patch: int) -> jax.Array:
    """[B, H, W, C] to [B, N, p * p * C]: patches row by row, pixels in them likewise.

    Raises ValueError where patches do not tile the images.
    """
    batch, height, width, channels = images.shape
    rows, columns = grid((height, width), patch)
    x = images.reshape(batch, rows, patch, columns, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, -1)


def unpatchify(patches: jax.Array, image: Sequence[int], patch: int) -> jax.Array:
    """The inverse of `patchify`: [B, N, p * p * C] to [B, H, W, C]."""
    rows, columns = grid(image, patch)
    batch, channels = patches.shape[0], patches.shape[-1] // patch**2
    x = patches.reshape(batch, rows, columns, patch, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, *image, channels)


def sincos(shape: Sequence[int], width: int, *, front: int = 0) -> np.ndarray:
    """Fixed positions [E + N, D] on a grid of (rows, columns), zeros for `front`.

    Half of the channels are of the column, half of the row, each sines then cosines of
    D / 4 frequencies 10000^(-4 i / D): Vaswani et al. 2017 by axis, in the order of
    MAE's code (He et al. 2022). In big_vision they are 10000^(-i / (D / 4 - 1)). Raises
    ValueError where D is no multiple of 4.
    """
    if width % 4:
        raise ValueError(f"sin-cos positions need a width divisible by 4, not {width}")
    rows, columns = shape
    frequency = 10000.0 ** (-4 * np.arange(width // 4) / width)
    y, x = np.mgrid[:rows, :columns].reshape(2, -1, 1)
    parts = [f(axis * frequency) for axis in (x, y) for f in (np.sin, np.cos)]
    table = np.concatenate(parts, axis=1)
    return np.pad(table, ((front, 0), (0, 0))).astype(np.float32)


def resample(
    positions: jax.Array,
    old: Sequence[int],
    new: Sequence[int],
    *,
    front: int = 0,
) -> jax.Array:
    """Positions [E + N, D] of one grid (rows, columns) for another: [E + N', D].

    Cubic, with a wider kernel where the grid shrinks (timm's and big_vision's); `front`
    rows, of class tokens, stay. Raises ValueError where E + N does not fit `old`.
    """
    if len(positions) != front + old[0] * old[1]:
        raise ValueError(
            f"{len(positions)} positions are not {front} and a grid of "
            f"{old[0]}x{old[1]}"
        )
    if tuple(old) == tuple(new):
        return positions
    kept, rest = positions[:front], positions[front:]
    table = jnp.asarray(rest, jnp.float32).reshape(*old, -1)
    table = jax.image.resize(table, (*new, table.shape[-1]), "cubic", antialias=True)
    table = table.reshape(new[0] * new[1], -1)
    return jnp.concatenate([kept, table.astype(positions.dtype)])


def fit(positions: jax.Array, count: int) -> jax.Array:
    """Positions [E + n * n, D] of a square grid as `count` = E + m * m, resampled.

    E, 0 or 1, follows from the number of rows. Raises ValueError where either number
    is not that of a square grid, or E would change: name the grids by `resample`.
    """
    sides = {}
    for rows in (len(positions), count):
        side = int(np.sqrt(rows))
        if rows - side**2 > 1 or side < 1:
            raise ValueError(
                f"{rows} positions are no square grid with 0 or 1 token in front of it"
            )
        sides[rows] = (rows - side**2, (side, side))
    (front, old), (other, new) = sides[len(positions)], sides[count]
    if front != other:
        raise ValueError(
            f"{len(positions)} positions have {front} token in front of the grid, "
            f"{count} have {other}"
        )
    return resample(positions, old, new, front=front)
