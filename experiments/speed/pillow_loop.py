"""The reference of `experiments.speed.input`: what people write with Pillow and numpy.

torchvision cannot be installed beside the versions of PyTorch here, and timm's
transforms import it; these are its usual transforms, on Pillow images, written out.
"""

from __future__ import annotations

import math
import pathlib
import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Picture = Image.Image


def tensor(picture: Picture, mean, std) -> np.ndarray:
    """float32 [H, W, C], scaled and normalised."""
    array = np.asarray(picture, np.float32) / 255
    array = array[..., None] if array.ndim == 2 else array
    return (array - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


def crop_resized(picture: Picture, side: int, low: float, how: int) -> Picture:
    """RandomResizedCrop."""
    width, height = picture.size
    for _ in range(10):
        area = width * height * random.uniform(low, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            part = picture.crop((left, top, left + w, top + h))
            return part.resize((side, side), how)
    return centre(picture, side, 1.0)


def centre(picture: Picture, side: int, share: float) -> Picture:
    """Resize of the shorter side, and CenterCrop."""
    width, height = picture.size
    scale = side / share / min(width, height)
    sized = picture.resize((round(width * scale), round(height * scale)))
    left, top = (sized.width - side) // 2, (sized.height - side) // 2
    return sized.crop((left, top, left + side, top + side))


def mirror(picture: Picture) -> Picture:
    return ImageOps.mirror(picture) if random.random() < 0.5 else picture


def distort(picture: Picture, s: float, blur: bool) -> Picture:
    """SimCLR's ColorJitter with chance 0.8, grey with 0.2, blur with 0.5."""
    if random.random() < 0.8:
        changes: list[Callable[[Picture], Picture]] = [
            lambda p: ImageEnhance.Brightness(p).enhance(
                random.uniform(max(0, 1 - 0.8 * s), 1 + 0.8 * s)
            ),
            lambda p: ImageEnhance.Contrast(p).enhance(
                random.uniform(max(0, 1 - 0.8 * s), 1 + 0.8 * s)
            ),
        ]
        if picture.mode == "RGB":
            changes += [
                lambda p: ImageEnhance.Color(p).enhance(
                    random.uniform(max(0, 1 - 0.8 * s), 1 + 0.8 * s)
                ),
                lambda p: hue(p, random.uniform(-0.2 * s, 0.2 * s)),
            ]
        random.shuffle(changes)
        for change in changes:
            picture = change(picture)
    if picture.mode == "RGB" and random.random() < 0.2:
        picture = picture.convert("L").convert("RGB")
    if blur and random.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2)))
    return picture


def hue(picture: Picture, turn: float) -> Picture:
    h, s, v = picture.convert("HSV").split()
    turned = np.asarray(h).astype(np.int16) + round(255 * turn)
    h = Image.fromarray((turned % 256).astype(np.uint8))
    return Image.merge("HSV", (h, s, v)).convert("RGB")


def padded(picture: Picture, pad: int) -> Picture:
    """RandomCrop of the picture's own size with padding."""
    wide = ImageOps.expand(picture, pad)
    left, top = random.randint(0, 2 * pad), random.randint(0, 2 * pad)
    return wide.crop((left, top, left + picture.width, top + picture.height))


def opened(file: pathlib.Path) -> Picture:
    with Image.open(file) as picture:
        return picture.convert("RGB")
