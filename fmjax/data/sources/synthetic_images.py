"""Made-up images that can be learned from, for runs without network or files."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fmjax.data import cache
from fmjax.data.source import SPLITS, Row, Source, check_split


def load(
    split: str,
    *,
    size: int = 256,
    classes: int = 10,
    shape: Sequence[int] = (28, 28, 1),
    seed: int = 0,
) -> Source:
    """Rows of `image` (uint8 `shape`), `label` (the angle of its stripes), `id`.

    size: images of the training split; validation and test have a quarter, one at
    least.
    """
    check_split(split)
    if classes < 2 or size < 1 or len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            f"classes={classes}, size={size}, shape={tuple(shape)}: need two classes, "
            "one image and a shape (H, W, C) at least"
        )
    number = size if split == "train" else max(size // 4, 1)
    facts = {
        "name": "synthetic_images",
        "origin": "made by a seeded generator",
        "licence": "none needed",
        "split": split,
        "rows": number,
        "fingerprint": cache.digest(
            "synthetic_images", 1, split, number, classes, tuple(shape), seed
        ),
    }
    height, width, channels = shape
    rows = Images(split, number, classes, (height, width, channels), seed)
    names = tuple(f"{round(180 * i / classes)} degrees" for i in range(classes))
    return Source(rows, names, facts)


@dataclass(frozen=True)
class Images:
    """Rows of images, each a function of its index."""

    split: str
    size: int
    classes: int
    shape: tuple[int, int, int]
    seed: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < self.size:
            raise IndexError(f"row {index} of {self.size:,}")
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        label = int(rng.integers(self.classes))
        angle = np.pi * label / self.classes
        y, x = np.mgrid[: self.shape[0], : self.shape[1]]
        along = x * np.cos(angle) + y * np.sin(angle)
        wave = np.sin(along * 0.9 + rng.uniform(0, 2 * np.pi))[..., None]
        noisy = 127.5 + 80 * wave + rng.normal(0, 20, self.shape)
        return {
            "image": np.clip(noisy, 0, 255).astype(np.uint8),
            "label": label,
            "id": index,
        }
