"""What training does to an image, in one order, and what evaluation does instead."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fmjax.data.images import colour, geometry
from fmjax.data.images.erase import random_erase
from fmjax.data.images.randaugment import HIGHEST, randaugment
from fmjax.data.images.resize import FILTERS, resize
from fmjax.data.source import Row


class Changes(NamedTuple):
    """Settings of `train` and `evaluate`; the defaults change nothing.

    size: (H, W) that images of any size come to, None where they keep theirs.
    area: bounds of the share of the image in a random resized crop, ratio: of its
        width / height; without area, training cuts as evaluation does.
    centre: the side of evaluation's central crop over the scaled image's shorter side.
    resample: a filter of `resize.FILTERS`.
    crop: pixels by which training moves an image, zeros coming in. flip: mirrors half.
    jitter: (brightness, contrast, saturation, hue), applied with chance jitter_rate.
    grey, blur: chances of losing the colour and of a Gaussian blur, sigma in pixels
        uniform between those of `sigma`.
    randaugment: (n, m). erase: chance of a rectangle of noise, of a share within
        erase_area.
    """

    size: tuple[int, int] | None = None
    area: Sequence[float] | None = None
    ratio: Sequence[float] = geometry.RATIO
    centre: float = 1.0
    resample: str = "bilinear"
    crop: int = 0
    flip: bool = False
    jitter: Sequence[float] | None = None
    jitter_rate: float = 1.0
    grey: float = 0.0
    blur: float = 0.0
    sigma: Sequence[float] = (0.1, 2.0)
    randaugment: Sequence[float] | None = None
    erase: float = 0.0
    erase_area: Sequence[float] = (0.02, 1 / 3)


def train(image: np.ndarray, rng: np.random.Generator, c: Changes) -> np.ndarray:
    """A changed image, uint8 [H, W, C]: place, mirror, colour, noise, in this order."""
    if c.area is not None and c.size is not None:
        box = geometry.random_box(image.shape, rng, c.area, c.ratio)
        image = geometry.resized_crop(image, box, c.size, c.resample)
    else:
        image = evaluate(image, c)
    if c.flip:
        image = geometry.random_flip(image, rng)
    if c.crop:
        image = geometry.padded_crop(image, rng, c.crop)
    if c.randaugment:
        n, m = c.randaugment
        image = randaugment(image, rng, int(n), m)
    if c.jitter and (c.jitter_rate >= 1 or rng.random() < c.jitter_rate):
        image = colour.jitter(image, rng, c.jitter)
    if c.grey:
        image = colour.random_grey(image, rng, c.grey)
    if c.blur:
        image = colour.random_blur(image, rng, c.blur, c.sigma)
    if c.erase:
        image = random_erase(image, rng, c.erase, area=c.erase_area)
    return image


def evaluate(image: np.ndarray, c: Changes) -> np.ndarray:
    """The central crop at `size`, or the image where it has no other size."""
    if c.size is None or image.shape[:2] == c.size:
        return image
    return geometry.resized_centre(image, c.size, c.centre, c.resample)


def together(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator | None, c: Changes
) -> tuple[np.ndarray, np.ndarray]:
    """An image and its mask, uint8 [H, W], cut and mirrored alike.

    rng None: evaluation. The mask is resized by the nearest class; colours change in
    the image alone. The whole image is squeezed into `size` where no `area` says to
    cut. Raises ValueError for changes that a mask cannot follow.
    """
    if c.crop or c.randaugment or c.erase:
        raise ValueError("a mask can't follow crop, randaugment and erase")
    if c.size is not None and rng is not None and c.area is not None:
        box = geometry.random_box(image.shape, rng, c.area, c.ratio)
        image = geometry.resized_crop(image, box, c.size, c.resample)
        mask = geometry.resized_crop(mask, box, c.size, "nearest")
    elif c.size is not None:
        image = resize(image, c.size, c.resample)
        mask = resize(mask, c.size, "nearest")
    if rng is None:
        return image, mask
    if c.flip and rng.random() < 0.5:
        image, mask = geometry.flip(image), geometry.flip(mask)
    return train(image, rng, c._replace(size=None, area=None, flip=False)), mask


def changes(size: int | Sequence[int] | None, **fields: object) -> Changes:
    """Settings, `size` one number or (H, W). Raises ValueError for what is wrong."""
    sides = (size, size) if isinstance(size, int) else size
    made = Changes(None if sides is None else tuple(sides), **fields)  # type: ignore
    check(made)
    return made


def check(c: Changes) -> None:
    """Raises ValueError, naming the setting, where a value makes no sense."""
    wrong: Mapping[str, bool] = {
        "size": c.size is not None and (len(c.size) != 2 or min(c.size) < 1),
        "area": c.area is not None and not _bounds(c.area, 1.0),
        "ratio": not _bounds(c.ratio),
        "centre": not 0 < c.centre <= 1,
        "resample": c.resample not in FILTERS,
        "crop": c.crop < 0,
        "jitter": c.jitter is not None
        and (len(c.jitter) != 4 or min(c.jitter) < 0 or c.jitter[3] > 0.5),
        "jitter_rate": not 0 <= c.jitter_rate <= 1,
        "grey": not 0 <= c.grey <= 1,
        "blur": not 0 <= c.blur <= 1,
        "sigma": not _bounds(c.sigma),
        "randaugment": c.randaugment is not None
        and (
            len(c.randaugment) != 2
            or c.randaugment[0] < 0
            or not 0 <= c.randaugment[1] <= HIGHEST
        ),
        "erase": not 0 <= c.erase <= 1,
        "erase_area": not _bounds(c.erase_area, 1.0),
    }
    for name, bad in wrong.items():
        if bad:
            raise ValueError(f"inputs.{name}={getattr(c, name)!r}: {_MEANT[name]}")
    if c.area is not None and c.size is None:
        raise ValueError("inputs.area cuts windows of many sizes: set inputs.size too")


def _bounds(pair: Sequence[float], most: float = float("inf")) -> bool:
    return len(pair) == 2 and 0 < pair[0] <= pair[1] <= most


_MEANT = {
    "size": "one number or (H, W), each 1 or more",
    "area": "(low, high) shares of the image, 0 < low <= high <= 1",
    "ratio": "(low, high) of width / height",
    "centre": "a share, 0 < centre <= 1, such as 0.875",
    "resample": f"one of {', '.join(FILTERS)}",
    "crop": "pixels, not negative",
    "jitter": "(brightness, contrast, saturation, hue), none negative, hue <= 0.5",
    "jitter_rate": "a chance, 0 to 1",
    "grey": "a chance, 0 to 1",
    "blur": "a chance, 0 to 1",
    "sigma": "(low, high) in pixels, above 0",
    "randaugment": f"(n, m) with m from 0 to {HIGHEST}",
    "erase": "a chance, 0 to 1",
    "erase_area": "(low, high) shares of the image, 0 < low <= high <= 1",
}


def of_row(row: Row, shape: Sequence[int] | None = None) -> np.ndarray:
    """The row's `image`, uint8 [H, W, C].

    shape: (H, W, C) that it must have, where it must. Raises ValueError, naming the
    row, for others.
    """
    image = row.get("image")
    name = f"row {row.get('id', '(no id)')}"
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise ValueError(f"{name}: `image` is {kind}, not an array of uint8")
    if image.ndim != 3 or (shape is not None and image.shape != tuple(shape)):
        wanted = tuple(shape) if shape is not None else "[H, W, C]"
        raise ValueError(
            f"{name}: the image has shape {image.shape}, not {wanted}; resize the "
            "images (inputs.size, or size= of image_folder) or set inputs.shape"
        )
    return image
