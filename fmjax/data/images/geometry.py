"""Where an image is cut and mirrored, decided by a generator; masks go along.

A geometry is drawn first and then applied, so that an image and its mask, or any two
arrays of one height and width, are cut alike.
"""

import math
from collections.abc import Sequence

import numpy as np

from fmjax.data.images.resize import resize

Box = tuple[int, int, int, int]  # top, left, bottom, right in pixels
RATIO = (3 / 4, 4 / 3)
_TRIES = 10
_LONGEST = 1 << 14  # pixels of a scaled image's side, of which a crop takes the middle


def random_box(
    shape: Sequence[int],
    rng: np.random.Generator,
    area: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = RATIO,
) -> Box:
    """A window for a random resized crop (Szegedy et al. 2015, section 6).

    shape: (H, W, ...). area: bounds of the window's share of the image, uniform; ratio:
    bounds of width / height, log-uniform. After ten windows that do not fit, the
    largest central one whose ratio is within bounds.
    """
    height, width = shape[:2]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for share, log_ratio, y, x in rng.random((_TRIES, 4)):
        pixels = height * width * (area[0] + (area[1] - area[0]) * share)
        aspect = math.exp(low + (high - low) * log_ratio)
        w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(y * (height - h + 1)), int(x * (width - w + 1))
            return top, left, top + h, left + w
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w = min(width, max(1, round(height * aspect)))
    h = min(height, max(1, round(width / aspect)))
    top, left = (height - h) // 2, (width - w) // 2
    return top, left, top + h, left + w


def resized_crop(
    image: np.ndarray, box: Box, size: Sequence[int], how: str = "bilinear"
) -> np.ndarray:
    """The window `box` of the image at `size` (H, W).

    The filter sees the window alone: pixels beyond its border have no part in it.
    """
    top, left, bottom, right = box
    return resize(image[top:bottom, left:right], size, how)


def random_resized_crop(
    image: np.ndarray,
    rng: np.random.Generator,
    size: Sequence[int],
    *,
    area: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = RATIO,
    how: str = "bilinear",
) -> np.ndarray:
    """A window of random place, area and shape at `size`: random_box, resized_crop."""
    return resized_crop(image, random_box(image.shape, rng, area, ratio), size, how)


def centre_box(shape: Sequence[int], size: Sequence[int]) -> Box:
    """The central window of `size` (H, W). Raises ValueError where it does not fit."""
    height, width = shape[:2]
    if size[0] > height or size[1] > width:
        raise ValueError(
            f"no centre of {size[0]} x {size[1]} in an image of {height} x {width}"
        )
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return top, left, top + size[0], left + size[1]


def centre_crop(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """The central window of `size`, unscaled; see centre_box."""
    top, left, bottom, right = centre_box(image.shape, size)
    return image[top:bottom, left:right]


def resized_centre(
    image: np.ndarray, size: Sequence[int], share: float = 0.875, how: str = "bilinear"
) -> np.ndarray:
    """The usual evaluation crop: scaled, then the centre of `size` (H, W).

    share: the side of the crop over the shorter side of the scaled image, 224 / 256 for
    ImageNet. For a `size` that is no square, scaled so that the crop fits. Of an image
    that is all but a line, what lies far from the centre is cut off first.
    """
    scaled = [max(side, round(side / share)) for side in size]
    scale = max(a / b for a, b in zip(scaled, image.shape, strict=False))
    image = centre_crop(image, [_near(n, scale, scaled) for n in image.shape[:2]])
    height, width = image.shape[:2]
    image = resize(image, (round(height * scale), round(width * scale)), how)
    return centre_crop(image, size)


def _near(side: int, scale: float, scaled: Sequence[int]) -> int:
    """How many of a side's pixels may be scaled: all, if that makes no giant of them.

    As many are left out at one end as at the other.
    """
    enough = math.ceil(max(_LONGEST, 2 * max(scaled)) / scale)
    return side if side <= enough else enough + (side - enough) % 2


def padded_crop(image: np.ndarray, rng: np.random.Generator, pad: int) -> np.ndarray:
    """The image moved by up to `pad` pixels each way; zeros come in at the border."""
    height, width = image.shape[:2]
    down, right = (int(x * (2 * pad + 1)) - pad for x in rng.random(2))
    made = np.zeros_like(image)  # np.pad takes ten times as long
    seen = (_overlap(down, height), _overlap(right, width))
    made[_overlap(-down, height), _overlap(-right, width)] = image[seen]
    return made


def _overlap(move: int, side: int) -> slice:
    """What of 0 .. side - 1 is there still when it is moved by so much."""
    return slice(min(max(move, 0), side), max(min(side + move, side), 0))


def flip(image: np.ndarray) -> np.ndarray:
    """The image mirrored left to right."""
    return image[:, ::-1]


def random_flip(
    image: np.ndarray, rng: np.random.Generator, rate: float = 0.5
) -> np.ndarray:
    """Mirrored left to right with probability `rate`."""
    return flip(image) if rng.random() < rate else image
