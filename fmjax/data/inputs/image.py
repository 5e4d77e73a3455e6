"""Scaled and, in training, changed images: for classification and masked images."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fmjax.data.images import augment, mix
from fmjax.data.images.normalise import Numbers, scaler
from fmjax.data.images.threads import threaded
from fmjax.data.source import Row


def make(
    *,
    shape: Sequence[int] | None = None,
    size: int | Sequence[int] | None = None,
    mean: Numbers = 0.0,
    std: Numbers = 1.0,
    area: Sequence[float] | None = None,
    centre: float = 1.0,
    resample: str = "bilinear",
    flip: bool = False,
    crop: int = 0,
    jitter: Sequence[float] | None = None,
    randaugment: Sequence[float] | None = None,
    erase: float = 0.0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    threads: int = 1,
) -> Callable[[Row, np.random.Generator | None], dict[str, Any]]:
    """Images uint8 [h, w, C] to float32 [H, W, C], (x / 255 - mean) / std.

    shape: (H, W, C) that every image must have. size: H and W, or one number for both,
        that images of any size come to: in training by a random resized crop with a
        share of the image within `area`, in evaluation, and without `area`, by their
        centre: scaled so that it is `centre` of the shorter side (0.875 for ImageNet).
    flip: mirror half of the training images left to right. crop: pad a training image
        by so many pixels (value 0) and cut its old size out at random.
    jitter, randaugment, erase: as in `images.augment.Changes`.
    mixup, cutmix: alpha of the mixing of neighbours in a training batch (`images.mix`);
        examples then have `label2` and `share` too.
    threads: on which a batch's examples are made; worth it for files and large images.

    Returns inputs and, where the row has a label, label int32. Without a generator
    (evaluation) nothing moves. Raises ValueError on another shape or type.
    """
    scaled = scaler(mean, std)
    changes = augment.changes(
        size,
        area=area,
        centre=centre,
        resample=resample,
        flip=flip,
        crop=crop,
        jitter=jitter,
        randaugment=randaugment,
        erase=erase,
    )

    def inputs(row: Row, rng: np.random.Generator | None) -> dict[str, Any]:
        image = augment.of_row(row, shape)
        if rng is None:
            image = augment.evaluate(image, changes)
        else:
            image = augment.train(image, rng, changes)
        return {"inputs": scaled(image)} | labelled(row)

    once = threaded(inputs, threads)
    return mix.Paired(once, mixup, cutmix, threads) if mixup or cutmix else once


def labelled(row: Row) -> dict[str, Any]:
    """{'label': int32} where the row has one."""
    given = row.get("label") is not None
    return {"label": np.int32(row["label"])} if given else {}
