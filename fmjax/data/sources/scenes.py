"""Scenes composed from real cut-outs on real textures, with masks and boxes.

One to three of Tux Paint's stamps (`sources/stamps`) on a window of one of
scikit-image's pictures. Not photographs of scenes: composed from real cut-outs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fmjax.data import cache
from fmjax.data.images import cutouts, rendered
from fmjax.data.source import SPLITS, Row, Source, check_split
from fmjax.data.sources import photos, stamps

SIZES = {"train": 2000, "validation": 200, "test": 500}
VISIBLE = 0.5  # the least share of a stamp that later ones leave to see
_TRIES = 20
_RECIPE = 1


def load(
    split: str,
    *,
    size: int | None = None,
    side: int = 96,
    most: int = 3,
    scale: Sequence[float] = (0.3, 0.6),
    categories: Sequence[str] = stamps.OBJECTS,
    seed: int = 0,
) -> Source:
    """Rows of a scene, made once into home(), each a function of its index and `seed`.

    image: uint8 [side, side, 3]. mask: uint8 [side, side], 0 the ground, else the
    class of what is seen there. instances: the same with 0, 1, 2, ... for the stamps.
    boxes: lists [top, left, bottom, right] in pixels, bottom and right exclusive, of
    what is seen of each stamp; labels: their classes; text: the stamps' captions; id.

    size: scenes in the split; without, SIZES. most: stamps in a scene, 1 to `most`
    with equal chances. scale: bounds of a stamp's longer side over the scene's.
    categories: classes 1, 2, ...; 0 is 'background'. A stamp is in the scenes of one
    split alone, and of each at least half is seen. The ground is of another part of a
    picture in training than in the other splits.
    """
    check_split(split)
    number = SIZES[split] if size is None else size
    low, high = scale
    if number < 1 or side < 16 or most < 1 or not 0 < low <= high <= 1:
        raise ValueError(
            f"size={size}, side={side}, most={most}, scale={tuple(scale)}: one scene, "
            "16 pixels, one stamp, and shares 0 < low <= high <= 1 at least"
        )
    held, _ = stamps.collection()
    names = stamps.chosen(held, categories)
    places = stamps.in_split(held, split, names)
    made = Scenes(held, places, names, split, number, side, most, (low, high), seed)
    fingerprint = cache.digest(
        *("scenes", _RECIPE, stamps.FACTS["sha256"], photos.FACTS["sha256"], split),
        *(number, side, most, low, high, names, seed, places),
    )
    facts = {
        "name": "scenes",
        "title": "Scenes composed from real cut-outs",
        "origin": f"{stamps.FACTS['origin']}; {photos.FACTS['origin']}",
        "licence": f"{stamps.FACTS['licence']}; {photos.FACTS['licence']}",
        "citation": f"{stamps.FACTS['citation']}; {photos.FACTS['citation']}",
        "split": split,
        "rows": number,
        "stamps": len(places),
        "fingerprint": fingerprint,
    }
    return Source(rendered.once(made, fingerprint), ("background", *names), facts)


@dataclass(frozen=True)
class Scenes:
    """Scenes by index, composed when asked for."""

    held: cutouts.Cutouts
    places: list[int]
    names: tuple[str, ...]
    split: str
    size: int
    side: int
    most: int
    scale: tuple[float, float]
    seed: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < self.size:
            raise IndexError(f"row {index} of {self.size:,}")
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        image = stamps.texture(self.split, rng, (self.side, self.side))
        instances = np.zeros((self.side, self.side), np.uint8)
        notes: list[dict] = []
        areas: list[int] = []
        for place in rng.choice(self.places, int(rng.integers(1, self.most + 1))):
            stamp = self._sized(int(place), rng)
            for _ in range(_TRIES):
                rest = np.array([self.side, self.side]) - stamp.shape[:2]
                top, left = (int(rng.integers(r + 1)) for r in rest)
                tried, inside = cutouts.paste(image, stamp, top, left)
                after = np.where(inside, len(notes) + 1, instances).astype(np.uint8)
                seen = np.bincount(after.ravel(), minlength=len(notes) + 2)[1:]
                whole = [*areas, int(inside.sum())]
                if all(s >= VISIBLE * w for s, w in zip(seen, whole, strict=True)):
                    image, instances, areas = tried, after, whole
                    notes.append(self.held.notes[int(place)])
                    break
        labels = [1 + self.names.index(note["category"]) for note in notes]
        return {
            "image": image,
            "mask": np.array([0, *labels], np.uint8)[instances],
            "instances": instances,
            "boxes": [cutouts.box(instances == i + 1) for i in range(len(notes))],
            "labels": labels,
            "text": " ".join(note["captions"].get("en", "") for note in notes),
            "id": index,
        }

    def _sized(self, place: int, rng: np.random.Generator) -> np.ndarray:
        """A stamp at a random size, half of the time mirrored, with a solid pixel."""
        low, high = self.scale
        longest = round(self.side * float(low + (high - low) * rng.random()))
        whole = self.held[place]
        if rng.random() < 0.5:
            whole = whole[:, ::-1]
        small = cutouts.trimmed(cutouts.fitted(whole, longest))
        return whole[:longest, :longest] if small is None else small
