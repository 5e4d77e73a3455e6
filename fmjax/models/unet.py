"""U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597)."""

# B batch, H height, W width, C channels, K classes

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from fmjax.layers.conv import max_pool
from fmjax.layers.dropout import Dropout

SIZES: dict[str, dict[str, Any]] = {
    # Figure 1: 64 to 1024 channels, a grey image of 572 x 572 to a map of 388 x 388.
    "paper": {"channels": (64, 128, 256, 512, 1024), "padding": "valid"},
    "paper-same": {"channels": (64, 128, 256, 512, 1024), "padding": "same"},
}

he = nn.initializers.he_normal()  # section 3


class Model(nn.Module):
    """Down by 2x2 max-pools, up by 2x2 transposed convolutions, with crops beside.

    inputs: [B, H, W, C], floating. Returns logits [B, h, w, K], float32: of every pixel
    with padding 'same', of the middle ones with 'valid' (the paper's convolutions,
    which see no border; 572 gives 388), h and w being `output_size` of H and W.

    channels: of each level from the top; two 3x3 convolutions with ReLU at each.
    skip: False leaves the crops out, for an encoder and a decoder alone.
    dropout: at the end of the contracting path (section 3.1). The authors' released net
    has it one level higher too, and a ReLU after each transposed convolution, of which
    the paper says nothing. Transposed convolutions of C to F channels begin by a fan-in
    of 4 F, which is twice the C that a pixel sees.
    Raises ValueError, when traced, where inputs are not 4-dimensional and floating, or
    do not halve evenly at every level: it names the nearest sizes that do.
    """

    classes: int = 2
    channels: tuple[int, ...] = (64, 128, 256, 512, 1024)
    padding: str = "same"
    skip: bool = True
    dropout: float = 0.0
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(
        self, inputs: jax.Array, *, train: bool = False, features: bool = False
    ) -> jax.Array:
        self._check(inputs)
        kept, x = [], inputs
        for i, channels in enumerate(self.channels):
            if i:
                x = max_pool(x, 2, 2)
            x = self._twice(x, channels, f"down{i}")
            kept.append(x)
        x = Dropout(self.dropout)(x, train=train)
        if features:
            return x.astype(jnp.float32).mean((1, 2))
        for i, channels in reversed([*enumerate(self.channels[:-1])]):
            x = nn.ConvTranspose(
                channels,
                (2, 2),
                (2, 2),
                padding="VALID",
                transpose_kernel=True,
                kernel_init=he,
                dtype=self.dtype,
                name=f"up{i}",
            )(x)
            if self.skip:
                x = jnp.concatenate([crop(kept[i], *x.shape[1:3]), x], axis=-1)
            x = self._twice(x, channels, f"join{i}")
        return nn.Conv(self.classes, (1, 1), kernel_init=he, name="classify")(x)

    def _twice(self, x: jax.Array, channels: int, name: str) -> jax.Array:
        for part in ("a", "b"):
            x = nn.Conv(
                channels,
                (3, 3),
                padding=self.padding.upper(),
                kernel_init=he,
                dtype=self.dtype,
                name=f"{name}{part}",
            )(x)
            x = nn.relu(x)
        return x

    def _check(self, inputs: jax.Array) -> None:
        if inputs.ndim != 4 or not jnp.issubdtype(inputs.dtype, jnp.floating):
            raise ValueError(
                f"inputs must be floating [B, H, W, C], got {inputs.dtype} "
                f"{inputs.shape}"
            )
        for side in inputs.shape[1:3]:
            output_size(side, len(self.channels), self.padding)


def crop(x: jax.Array, height: int, width: int) -> jax.Array:
    """The middle [B, h, w, C] of x; of an odd rest the smaller half is cut in front."""
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    return x[:, top : top + height, left : left + width]


def output_size(side: int, levels: int, padding: str) -> int:
    """What height or width comes out where `side` goes in.

    Raises ValueError where it does not halve evenly `levels` - 1 times.
    """
    if padding not in ("same", "valid"):
        raise ValueError(f"padding is 'same' or 'valid', not {padding!r}")
    found = _through(side, levels, padding)
    if found is None:
        near = sorted(range(1, 2 * side + 1024), key=lambda s: (abs(s - side), s))
        fits = [s for s in near if _through(s, levels, padding) is not None][:2]
        raise ValueError(
            f"a side of {side} does not halve evenly over {levels} levels with padding "
            f"{padding!r}; the nearest that do: {', '.join(map(str, fits))}"
        )
    return found


def _through(side: int, levels: int, padding: str) -> int | None:
    lost = 0 if padding == "same" else 4  # by two 3x3 convolutions
    for level in range(levels):
        if level:
            if side % 2:
                return None
            side //= 2
        side -= lost
        if side < 1:
            return None
    for _ in range(levels - 1):
        side = 2 * side - lost
        if side < 1:
            return None
    return side
