"""Small pictures for reports: images beside one another, and masks over them."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

# Of classes 1, 2, ...: Okabe and Ito's colours, which most eyes tell apart.
COLOURS = np.array(
    [
        [230, 159, 0],
        [86, 180, 233],
        [0, 158, 115],
        [240, 228, 66],
        [0, 114, 178],
        [213, 94, 0],
        [204, 121, 167],
    ]
)


def grid(
    rows: Sequence[Sequence[np.ndarray]], *, scale: int = 2, gap: int = 2
) -> bytes:
    """PNG of rows of images, uint8 [H, W, 1 or 3], all of one size, on white.

    scale: screen pixels of a pixel; gap: white pixels between images.
    Raises ValueError where rows or images differ in size, or there is none.
    """
    shapes = {np.shape(image)[:2] for row in rows for image in row}
    if len({len(row) for row in rows}) != 1 or len(shapes) != 1:
        raise ValueError(f"a grid wants rows of one length and images of one: {shapes}")
    ((height, width),) = shapes
    down, across = height + gap, width + gap
    sheet = np.full((down * len(rows) - gap, across * len(rows[0]) - gap, 3), 255)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = i * down, j * across
            sheet[top : top + height, left : left + width] = image
    sheet = sheet.astype(np.uint8).repeat(scale, axis=0).repeat(scale, axis=1)
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "png", optimize=True)
    return file.getvalue()


def overlay(image: np.ndarray, mask: np.ndarray, share: float = 0.55) -> np.ndarray:
    """uint8 [H, W, 3] with the colour of each pixel's class over it; class 0 has none.

    mask: whole numbers [H, W]; share: of the colour in the mixture.
    """
    colours = COLOURS[(mask - 1) % len(COLOURS)]
    mixed = (1 - share) * image + share * colours
    return np.where(mask[..., None] > 0, mixed, image).round().astype(np.uint8)


def palette(numbers: np.ndarray) -> bytes:
    """PNG of class numbers, uint8 [H, W], which are the indices of its palette.

    Class 0 is black, 255 (no class) white, and the others have COLOURS.
    """
    colours = np.zeros((256, 3), np.uint8)
    colours[1:] = COLOURS[np.arange(255) % len(COLOURS)]
    colours[255] = 255
    picture = Image.fromarray(numbers)
    picture.putpalette(colours.tobytes())
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


def filters(kernel: np.ndarray) -> list[np.ndarray]:
    """Each filter of a kernel [h, w, 1 or 3, F] as uint8 [h, w, 1 or 3].

    Zero is grey, and a filter's weight that is furthest from it black or white.
    """
    largest = np.abs(kernel).max((0, 1, 2), keepdims=True)
    scaled = 127.5 * (1 + kernel / np.maximum(largest, np.finfo(np.float32).tiny))
    return [*np.moveaxis(scaled.round().astype(np.uint8), -1, 0)]


def stretched(images: np.ndarray) -> np.ndarray:
    """Numbers of any range to uint8: the smallest is black, the largest white."""
    low, high = images.min(), images.max()
    span = max(high - low, np.finfo(np.float32).tiny)
    return (255 * ((images - low) / span)).round().astype(np.uint8)


def heat(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3]: the image, dark where weights [rows, columns] are small.

    image: uint8 [H, W, 1 or 3], which rows and columns divide. The largest weight has
    the image's own brightness under orange, weight 0 a fifth of it.
    Raises ValueError where weights do not tile the image.
    """
    height, width = image.shape[:2]
    rows, columns = weights.shape
    if height % rows or width % columns:
        raise ValueError(
            f"{rows}x{columns} weights don't tile an image of {height}x{width}"
        )
    share = weights / max(float(weights.max()), np.finfo(np.float32).tiny)
    share = share.repeat(height // rows, 0).repeat(width // columns, 1)[..., None]
    dark = (0.2 + 0.8 * share) * image
    mixed = (1 - 0.5 * share) * dark + 0.5 * share * COLOURS[0]
    return mixed.round().astype(np.uint8)
