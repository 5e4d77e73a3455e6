"""Resizing: the reference is Pillow, whose filters widen when they shrink."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,  # Keys 1981, a = -0.5
    "lanczos": Image.Resampling.LANCZOS,
}


def resize(
    image: np.ndarray,
    size: Sequence[int],
    how: str = "bilinear",
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """The image, or the `box` (top, left, bottom, right) in it, at size (H, W).

    image: uint8 [h, w, C], C of 1, 3 or 4, or uint8 [h, w]. `how` is one of FILTERS;
    but for 'nearest' they are wide as the shrinking asks (antialiasing). Four channels
    are taken as RGBA: colour counts as much as it is opaque.
    Raises ValueError for an unknown filter, and for other types and shapes.
    """
    if how not in FILTERS:
        raise ValueError(f"no filter {how!r}: {', '.join(FILTERS)}")
    picture = to_pillow(image)
    height, width = size
    if box is not None:
        top, left, bottom, right = box
        window = (left, top, right, bottom)
    elif (height, width) == image.shape[:2]:
        return image
    else:
        window = None
    made = picture.resize((width, height), FILTERS[how], window)
    return from_pillow(made, image.ndim)


def to_pillow(image: np.ndarray) -> Image.Image:
    """uint8 [H, W] or [H, W, C], C of 1, 3 or 4. Raises ValueError for another."""
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError(
            f"an image is uint8 [H, W, C], not {image.dtype} {image.shape}"
        )
    if image.ndim == 3 and image.shape[2] not in (1, 3, 4):
        raise ValueError(f"an image has 1, 3 or 4 channels, not {image.shape[2]}")
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[1 if image.ndim == 2 else image.shape[2]]
    size = (image.shape[1], image.shape[0])
    # Half the time of Image.fromarray.
    data = np.ascontiguousarray(image)
    return Image.frombuffer(mode, size, data, "raw", mode, 0, 1)


def from_pillow(picture: Image.Image, rank: int = 3) -> np.ndarray:
    """The array of a Pillow image: uint8 [H, W] for rank 2, else [H, W, C]."""
    array = np.asarray(picture)
    return array[..., None] if rank == 3 and array.ndim == 2 else array
