"""Random erasing (Zhong et al. 2020, arXiv:1708.04896): a rectangle of noise."""

import math
from collections.abc import Sequence

import numpy as np

_TRIES = 10


def random_erase(
    image: np.ndarray,
    rng: np.random.Generator,
    rate: float = 0.5,
    *,
    area: Sequence[float] = (0.02, 0.4),
    ratio: Sequence[float] = (0.3, 1 / 0.3),
) -> np.ndarray:
    """With probability `rate`, a rectangle of uniform random bytes; else the image.

    image: uint8 [H, W, C]. area: bounds of the rectangle's share, uniform; ratio: of
    its height / width, uniform as in the paper's algorithm 1. The defaults are the
    paper's. A rectangle that does not fit is drawn again, up to ten times.
    """
    if rng.random() >= rate:
        return image
    height, width, channels = image.shape
    for share, shape, y, x in rng.random((_TRIES, 4)):
        pixels = height * width * (area[0] + (area[1] - area[0]) * share)
        aspect = ratio[0] + (ratio[1] - ratio[0]) * shape
        h, w = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < h < height and 0 < w < width:
            top, left = int(y * (height - h + 1)), int(x * (width - w + 1))
            image = image.copy()
            noise = rng.integers(0, 256, (h, w, channels), np.uint8)
            image[top : top + h, left : left + w] = noise
            break
    return image
