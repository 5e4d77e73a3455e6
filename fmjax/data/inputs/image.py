"""Scaled and, in training, slightly moved images."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fmjax.data.source import Row


def make(
    *,
    shape: Sequence[int] | None = None,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    flip: bool = False,
    crop: int = 0,
) -> Callable[[Row, np.random.Generator | None], dict[str, Any]]:
    """Images uint8 [H, W, C] to float32 [H, W, C], (x / 255 - mean) / std.

    shape: (H, W, C) that every image must have. mean, std: for all channels or by
    channel. flip: mirror half of the training images left to right. crop: pad a
    training image by so many pixels (value 0) and cut its old size out at random.

    Returns inputs and, where the row has a label, label int32. Without a generator
    (evaluation) nothing moves. Raises ValueError on another shape or type.
    """
    centre, scale = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    if not np.all(scale > 0) or crop < 0:
        raise ValueError(f"std={std} must be positive and crop={crop} not negative")

    def inputs(row: Row, rng: np.random.Generator | None) -> dict[str, Any]:
        image = row.get("image")
        name = f"row {row.get('id', '(no id)')}"
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            kind = getattr(image, "dtype", type(image).__name__)
            raise ValueError(f"{name}: `image` is {kind}, not an array of uint8")
        if image.ndim != 3 or (shape is not None and image.shape != tuple(shape)):
            wanted = tuple(shape) if shape is not None else "[H, W, C]"
            raise ValueError(
                f"{name}: the image has shape {image.shape}, not {wanted}; resize the "
                "images (image_folder: size=...) or set inputs.shape"
            )
        if rng is not None and flip and rng.random() < 0.5:
            image = image[:, ::-1]
        if rng is not None and crop:
            height, width, _ = image.shape
            top, left = rng.integers(0, 2 * crop + 1, 2)
            padded = np.pad(image, ((crop, crop), (crop, crop), (0, 0)))
            image = padded[top : top + height, left : left + width]
        example: dict[str, Any] = {
            "inputs": (image.astype(np.float32) / np.float32(255) - centre) / scale
        }
        if row.get("label") is not None:
            example["label"] = np.int32(row["label"])
        return example

    return inputs
