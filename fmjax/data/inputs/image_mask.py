"""An image and the class of each of its pixels (segmentation)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fmjax.data.images import augment
from fmjax.data.images.normalise import Numbers, scaler
from fmjax.data.images.threads import threaded
from fmjax.data.source import Row

IGNORED = 255  # of a mask: a pixel that counts for nothing (PASCAL VOC's convention)


def make(
    *,
    size: int | Sequence[int] | None = None,
    mean: Numbers = 0.0,
    std: Numbers = 1.0,
    area: Sequence[float] | None = None,
    resample: str = "bilinear",
    flip: bool = False,
    jitter: Sequence[float] | None = None,
    classes: int | Sequence[str] | None = None,
    threads: int = 1,
) -> Callable[[Row, np.random.Generator | None], dict[str, Any]]:
    """Rows of `image` uint8 [h, w, C] and `mask` uint8 [h, w] of class numbers.

    size: H and W, or one number, that both come to (None: their own): in training by a
        random resized crop with a share of the image within `area`; in evaluation, and
        without `area`, whole, whatever that does to the proportions. The mask goes
        along, by its nearest pixel, and is mirrored with the image (`flip`).
    jitter: of colours, as in `images.augment.Changes`. classes: how many, or their
        names; where given, a mask must have no number from there up but 255. threads:
        as in `inputs/image`.

    Returns inputs float32 [H, W, C], (x / 255 - mean) / std; targets int32 [H, W] and
    weights float32 [H, W], which are 0 where the mask says 255. A row without a mask
    (prediction) has weights 0. Raises ValueError, naming the row, for other masks.
    """
    number = classes if isinstance(classes, int) or not classes else len(classes)
    scaled = scaler(mean, std)
    changes = augment.changes(
        size, area=area, resample=resample, flip=flip, jitter=jitter
    )

    def inputs(row: Row, rng: np.random.Generator | None) -> dict[str, Any]:
        image = augment.of_row(row)
        mask = row.get("mask")
        if mask is None:
            mask = np.full(image.shape[:2], IGNORED, np.uint8)
        name = f"row {row.get('id', '(no id)')}"
        if mask.dtype != np.uint8 or mask.shape != image.shape[:2]:
            raise ValueError(
                f"{name}: `mask` is {mask.dtype} {mask.shape}, not uint8 "
                f"{image.shape[:2]} like its image"
            )
        if number:
            odd = np.unique(mask[(mask >= number) & (mask != IGNORED)])
            if len(odd):
                raise ValueError(
                    f"{name}: class {odd[0]} in the mask, and there are {number}"
                )
        image, mask = augment.together(image, mask, rng, changes)
        real = mask != IGNORED
        return {
            "inputs": scaled(image),
            "targets": np.where(real, mask, 0).astype(np.int32),
            "weights": real.astype(np.float32),
        }

    return threaded(inputs, threads)
