"""RandAugment (Cubuk et al. 2020, arXiv:1909.13719): n random changes of strength m.

The 14 changes are those of the paper's figure 2, and the ranges at m = 10 are
AutoAugment's (Cubuk et al. 2019, table 6), each growing from no change at m = 0.
"""

import numpy as np
from PIL import Image, ImageOps

from fmjax.data.images.colour import enhance
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
_ENHANCE = ("saturation", "contrast", "brightness", "sharpness")


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
    if operation in _ENHANCE:
        return enhance(image, operation, 1 + (0.9 * most if share > 0 else -0.9 * most))
    height, width, channels = image.shape
    picture = to_pillow(image)
    if operation == "autocontrast":
        picture = ImageOps.autocontrast(picture)
    elif operation == "equalize":
        picture = ImageOps.equalize(picture)
    elif operation == "solarize":
        picture = ImageOps.solarize(picture, round(256 * (1 - most)))
    elif operation == "posterize":
        picture = ImageOps.posterize(picture, 8 - round(4 * most))
    else:
        fill = (FILL,) * channels if channels > 1 else FILL
        if operation == "rotate":
            how = Image.Resampling.BILINEAR
            picture = picture.rotate(30 * share, how, fillcolor=fill)
        else:
            shear, move = 0.3 * share, 150 / 331 * share
            matrix = {
                "shear_x": (1, shear, -shear * height / 2, 0, 1, 0),
                "shear_y": (1, 0, 0, shear, 1, -shear * width / 2),
                "translate_x": (1, 0, move * width, 0, 1, 0),
                "translate_y": (1, 0, 0, 0, 1, move * height),
            }[operation]
            picture = picture.transform(
                picture.size,
                Image.Transform.AFFINE,
                matrix,
                Image.Resampling.BILINEAR,
                fillcolor=fill,
            )
    return from_pillow(picture)
