"""RandAugment (Cubuk et al. 2020, arXiv:1909.13719): n random changes of strength m.

The 14 changes are those of the paper's figure 2, and the ranges at m = 10 are
AutoAugment's (Cubuk et al. 2019, table 6), each growing from no change at m = 0.
"""

import numpy as np
from PIL import Image

from fmjax.data.images.colour import ENHANCEMENTS, by_table, enhance
from fmjax.data.images.resize import from_pillow, to_pillow

OPERATIONS = (
    "identity",
    "autocontrast",
    "equalize",
    "rotate",
    "solarize",
    "saturation",
    "posterize",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
HIGHEST = 30  # of m: the paper's largest
FILL = 128  # of what comes in at the border, as in the authors' code


def randaugment(
    image: np.ndarray, rng: np.random.Generator, n: int = 2, m: float = 9
) -> np.ndarray:
    """`n` operations, drawn with equal chances and with replacement, at strength `m`.

    image: uint8 [H, W, C], C of 1 or 3. Directions and signs are a coin's throw.
    """
    signs = rng.random(n) < 0.5
    for place, negative in zip(rng.integers(0, len(OPERATIONS), n), signs, strict=True):
        image = apply(image, OPERATIONS[place], -m if negative else m)
    return image


def apply(image: np.ndarray, operation: str, m: float) -> np.ndarray:
    """One operation at strength |m|; m < 0 takes the other direction, where one is.

    At |m| = 10: rotation by 30 degrees, shear by 0.3, translation by 150 / 331 of the
    side, factors 1.9 or 0.1, 4 bits kept, every pixel inverted. Beyond 10 the first
    three go on; factors, bits and thresholds have come to their end.
    """
    if operation not in OPERATIONS:
        raise ValueError(f"no operation {operation!r}: {', '.join(OPERATIONS)}")
    share = m / 10
    most = min(abs(share), 1.0)
    if operation == "identity":
        return image
    if operation in ENHANCEMENTS:
        return enhance(image, operation, 1 + (0.9 * most if share > 0 else -0.9 * most))
    if operation in ("autocontrast", "equalize"):
        table = _autocontrast if operation == "autocontrast" else _equalize
        bands = [
            by_table(band, table(np.bincount(band.ravel(), minlength=256)))
            for band in np.moveaxis(image, -1, 0)
        ]
        return np.stack(bands, -1)
    if operation == "solarize":
        return by_table(image, _solarize(round(256 * (1 - most))))
    if operation == "posterize":
        return by_table(image, _posterize(8 - round(4 * most)))
    return _moved(image, operation, share)


def _moved(image: np.ndarray, operation: str, share: float) -> np.ndarray:
    """Rotated, sheared or translated by a share of what there is at m = 10."""
    height, width, channels = image.shape
    picture = to_pillow(image)
    fill = (FILL,) * channels if channels > 1 else FILL
    how = Image.Resampling.BILINEAR
    if operation == "rotate":
        return from_pillow(picture.rotate(30 * share, how, fillcolor=fill))
    shear, move = 0.3 * share, 150 / 331 * share
    matrix = {
        "shear_x": (1, shear, -shear * height / 2, 0, 1, 0),
        "shear_y": (1, 0, 0, shear, 1, -shear * width / 2),
        "translate_x": (1, 0, move * width, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, move * height),
    }[operation]
    affine = Image.Transform.AFFINE
    moved = picture.transform(picture.size, affine, matrix, how, fillcolor=fill)
    return from_pillow(moved)


_LEVELS = np.arange(256)


def _solarize(threshold: int) -> np.ndarray:
    return np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS).astype(np.uint8)


def _posterize(bits: int) -> np.ndarray:
    return (_LEVELS & ~(2 ** (8 - bits) - 1)).astype(np.uint8)


def _autocontrast(counts: np.ndarray) -> np.ndarray:
    """The table that takes the darkest level to 0 and the brightest to 255."""
    found = counts.nonzero()[0]
    low, high = int(found[0]), int(found[-1])
    if high <= low:
        return _LEVELS.astype(np.uint8)
    scale = 255 / (high - low)
    return np.clip(np.trunc(_LEVELS * scale - low * scale), 0, 255).astype(np.uint8)


def _equalize(counts: np.ndarray) -> np.ndarray:
    """The table that spreads levels evenly, with Pillow's rounding."""
    found = counts[counts > 0]
    step = int(found.sum() - found[-1]) // 255
    if len(found) <= 1 or not step:
        return _LEVELS.astype(np.uint8)
    before = np.concatenate([[0], counts.cumsum()[:-1]])
    return np.minimum((step // 2 + before) // step, 255).astype(np.uint8)
