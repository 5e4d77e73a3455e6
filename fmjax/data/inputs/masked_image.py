"""Images, and which of their patches are hidden (MAE: He et al. 2022)."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fmjax.data.images.normalise import Numbers
from fmjax.data.inputs import image
from fmjax.data.source import Row


def make(
    *,
    patch: int,
    shape: Sequence[int] | None = None,
    size: int | Sequence[int] | None = None,
    mean: Numbers = 0.0,
    std: Numbers = 1.0,
    area: Sequence[float] | None = None,
    centre: float = 1.0,
    resample: str = "bicubic",
    flip: bool = False,
) -> Callable[[Row, np.random.Generator | None], dict[str, Any]]:
    """Rows of `image`; settings but `patch` are those of `inputs/image`.

    patch: the side of the model's patches. Returns inputs {image float32 [H, W, C],
    order int32 [N]}, a random permutation of the patches, of which a model sees the
    first ones, and, where the row has a label, label int32. Since the order is the
    example's, a batch may be cut up without changing what is hidden. Without a
    generator (evaluation) it follows from the pixels alone. Raises ValueError where
    patches do not tile the image.
    """
    plain = image.make(
        shape=shape,
        size=size,
        mean=mean,
        std=std,
        area=area,
        centre=centre,
        resample=resample,
        flip=flip,
    )

    def inputs(row: Row, rng: np.random.Generator | None) -> dict[str, Any]:
        example = plain(row, rng)
        pixels = example["inputs"]
        height, width = pixels.shape[:2]
        if patch < 1 or height % patch or width % patch:
            raise ValueError(
                f"row {row.get('id', '(no id)')}: inputs.patch={patch} does not tile "
                f"an image of {height}x{width}; set inputs.size to a multiple of it"
            )
        if rng is None:
            seed = hashlib.blake2b(pixels.tobytes(), digest_size=8).digest()
            rng = np.random.default_rng(int.from_bytes(seed, "big"))
        count = (height // patch) * (width // patch)
        order = rng.permutation(count).astype(np.int32)
        return example | {"inputs": {"image": pixels, "order": order}}

    return inputs
