"""Made-up scenes with masks and captions, for runs without network or files."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fmjax.data import cache
from fmjax.data.source import SPLITS, Row, Source, check_split

CLASSES = ("background", "circle", "square", "triangle", "ring")
COLOURS = {
    "red": (220, 50, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 200, 40),
    "white": (245, 245, 245),
    "purple": (150, 60, 180),
}
PLACES = ("top left", "top right", "bottom left", "bottom right")


def load(
    split: str,
    *,
    size: int = 256,
    shape: Sequence[int] = (32, 32, 3),
    seed: int = 0,
) -> Source:
    """One coloured shape a scene, on a dark, noisy ground, in one of four corners.

    Rows of `image` (uint8 `shape`), `mask` (uint8 [H, W], classes by pixel, 0 the
    ground), `text` ('a red circle at the top left'), `label` (the shape's class) and
    `id`. size: scenes of the training split; validation and test have a quarter, one at
    least. shape: (H, W, 3), 8 pixels or more.
    """
    check_split(split)
    if size < 1 or len(shape) != 3 or shape[2] != 3 or min(shape[:2]) < 8:
        raise ValueError(
            f"size={size}, shape={tuple(shape)}: need one scene and a shape (H, W, 3) "
            "of 8 pixels at least"
        )
    number = size if split == "train" else max(size // 4, 1)
    facts = {
        "name": "synthetic_scenes",
        "origin": "made by a seeded generator",
        "licence": "none needed",
        "split": split,
        "rows": number,
        "fingerprint": cache.digest(
            "synthetic_scenes", 1, split, number, tuple(shape), seed
        ),
    }
    return Source(Scenes(split, number, (shape[0], shape[1]), seed), CLASSES, facts)


@dataclass(frozen=True)
class Scenes:
    """Scenes, each a function of its index."""

    split: str
    size: int
    sides: tuple[int, int]
    seed: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < self.size:
            raise IndexError(f"row {index} of {self.size:,}")
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        label = int(rng.integers(1, len(CLASSES)))
        colour = list(COLOURS)[rng.integers(len(COLOURS))]
        place = int(rng.integers(len(PLACES)))
        height, width = self.sides
        unit = min(self.sides) / 4 * rng.uniform(0.7, 0.95)
        y, x = np.mgrid[:height, :width]
        y = (y + 0.5 - height * (0.27 + 0.46 * (place // 2))) / unit
        x = (x + 0.5 - width * (0.27 + 0.46 * (place % 2))) / unit
        inside = {
            "circle": x**2 + y**2 < 1,
            "square": np.maximum(abs(x), abs(y)) < 0.85,
            "triangle": (y < 0.8) & (y > 2 * abs(x) - 0.9),
            "ring": (x**2 + y**2 < 1) & (x**2 + y**2 > 0.2),
        }[CLASSES[label]]
        image = rng.normal(50, 15, (*self.sides, 3))
        image = np.where(inside[..., None], COLOURS[colour], image)
        image += rng.normal(0, 6, image.shape)
        return {
            "image": np.clip(image, 0, 255).astype(np.uint8),
            "mask": (label * inside).astype(np.uint8),
            "text": f"a {colour} {CLASSES[label]} at the {PLACES[place]}",
            "label": label,
            "id": index,
        }
