"""Changes of colour and sharpness. The reference for each is Pillow's own enhancement.

Images are uint8 [H, W, C], C of 1 or 3; grey images have neither saturation nor hue,
which leave them as they are.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from fmjax.data.images.resize import from_pillow, to_pillow

ENHANCEMENTS = ("brightness", "contrast", "saturation", "sharpness")
_LEVELS = np.arange(256, dtype=np.float32)


def enhance(image: np.ndarray, what: str, factor: float) -> np.ndarray:
    """The image blended with one that lacks `what`: 1 changes nothing, 0 takes it away.

    what: one of ENHANCEMENTS; lacking brightness is black, contrast the mean grey,
    saturation the grey image, sharpness a smoothed one.
    """
    if what == "brightness":
        return by_table(image, _blend(0, factor))
    if what == "contrast":
        mean = int(_luma(image).mean() + 0.5)
        return by_table(image, _blend(mean, factor))
    if what == "sharpness":
        sharp = ImageEnhance.Sharpness(to_pillow(image)).enhance(factor)
        return from_pillow(sharp)
    if what != "saturation":
        raise ValueError(f"no enhancement {what!r}: {', '.join(ENHANCEMENTS)}")
    if image.shape[-1] == 1:
        return image
    return from_pillow(ImageEnhance.Color(to_pillow(image)).enhance(factor))


def by_table(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """table[x] for every byte x of the image; table: uint8 [256]."""
    # By far the fastest of the ways to write this; no byte is ever clipped.
    return table.take(image, mode="clip")


def _blend(start: int, factor: float) -> np.ndarray:
    """The table of Pillow's blend between the level `start` and a level."""
    levels = np.float32(start) + np.float32(factor) * (_LEVELS - np.float32(start))
    return np.clip(levels, 0, 255).astype(np.uint8)


def _luma(image: np.ndarray) -> np.ndarray:
    if image.shape[-1] == 1:
        return image
    return np.asarray(to_pillow(image).convert("L"))


def shift_hue(image: np.ndarray, turn: float) -> np.ndarray:
    """Hue turned by `turn` of the whole circle, -0.5 to 0.5, in steps of 1 / 256."""
    step = round(turn * 256) % 256
    if image.shape[-1] == 1 or step == 0:
        return image
    bands = to_pillow(image).convert("HSV").split()
    hue = bands[0].point([(i + step) % 256 for i in range(256)])
    return from_pillow(Image.merge("HSV", (hue, *bands[1:])).convert("RGB"))


def grey(image: np.ndarray) -> np.ndarray:
    """The grey image (ITU-R 601-2 luma), with as many channels as before."""
    if image.shape[-1] == 1:
        return image
    return np.asarray(to_pillow(image).convert("L").convert("RGB"))


def jitter(
    image: np.ndarray, rng: np.random.Generator, strength: Sequence[float]
) -> np.ndarray:
    """Brightness, contrast, saturation and hue changed at random, in random order.

    strength: (b, c, s, h). The first three are factors, uniform in [max(0, 1 - x),
    1 + x]; hue turns by a uniform part of [-h, h], h <= 0.5. As in the appendix A of
    Chen et al. 2020 (SimCLR; its PyTorch form) and in what torchvision calls
    ColorJitter.
    """
    draws = rng.random(4)
    for place in rng.permutation(4):
        x, draw = strength[place], draws[place]
        if not x:
            continue
        if place == 3:
            image = shift_hue(image, x * (2 * draw - 1))
        else:
            low = max(0.0, 1 - x)
            what = ("brightness", "contrast", "saturation")[place]
            image = enhance(image, what, low + (1 + x - low) * draw)
    return image


def random_grey(
    image: np.ndarray, rng: np.random.Generator, rate: float = 0.2
) -> np.ndarray:
    """Without colour, with probability `rate`."""
    return grey(image) if rng.random() < rate else image


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of standard deviation `sigma` pixels.

    Pillow's three passes of boxes, which are within two levels of a true Gaussian.
    """
    return from_pillow(to_pillow(image).filter(ImageFilter.GaussianBlur(sigma)))


def random_blur(
    image: np.ndarray,
    rng: np.random.Generator,
    rate: float = 0.5,
    sigma: Sequence[float] = (0.1, 2.0),
) -> np.ndarray:
    """Blurred with probability `rate`, sigma uniform between the two (SimCLR, A)."""
    chance, draw = rng.random(2)
    low, high = sigma
    return blur(image, float(low + (high - low) * draw)) if chance < rate else image
