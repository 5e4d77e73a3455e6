"""Tux Paint's stamps: drawings and photos of things, cut out, with captions (Debian).

Real cut-outs with captions in up to a hundred languages; the first folder of a stamp's
path is its category.
"""

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.data import cache, fetch
from fmjax.data.images import cutouts, decode, rendered
from fmjax.data.images.geometry import random_resized_crop
from fmjax.data.source import SPLITS, Row, Source, check_split, fraction
from fmjax.data.sources import photos

OBJECTS = ("animals", "food", "household", "plants", "vehicles")
GROUNDS = (  # photos that show none of the OBJECTS
    "brick.png",
    "cell.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "retina.jpg",
)
SHARES = (0.1, 0.2)  # of the stamps: validation, test
SOLID = 0.05  # the least share of its box that a stamp fills; a glass is refused
LONGEST = 224  # pixels kept of a stamp's longer side
_VERSION = "2022.06.04-1"
_SHA256 = "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34"
_FOLDER = "usr/share/tuxpaint/stamps"
_RECIPE = 1
FACTS = {
    "origin": f"Debian package tuxpaint-stamps-default {_VERSION}",
    "sha256": _SHA256,
    "licence": "GPL-2, copyright 2002-2022 Bill Kendrick and contributors (the "
    "package's copyright file)",
    "citation": "Kendrick et al., Tux Paint Stamps 2022.06.04",
}


def load(
    split: str,
    *,
    size: int = 64,
    ground: str = "photos",
    categories: Sequence[str] | None = OBJECTS,
    language: str = "en",
    copies: int = 1,
    seed: int = 0,
) -> Source:
    """Rows of `image` (uint8 [size, size, 3]), `label` (category), `text`, `id`.

    ground: 'white', or 'photos': a random window of one of scikit-image's pictures of
        textures, tissue and the sky. categories: which, in label order; None: all.
    language: of `text`, such as 'en', 'fr', 'zh_CN'; stamps without a caption in it are
        left out. copies: rows a training stamp, each on a ground of its own.

    Split by stamp, in each category for itself, by sha256 of the path without a number
    at its end (lion-1 and lion-2 fall together). A row is a function of its index and
    the seed, made once into home(). What is there as SVG alone is not read.
    """
    check_split(split)
    if size < 8 or copies < 1 or ground not in ("white", "photos"):
        raise ValueError(
            f"size={size}, copies={copies}, ground={ground!r}: size is 8 or more, "
            "copies 1 or more, ground 'white' or 'photos'"
        )
    held, left_out = collection()
    names = chosen(held, categories)
    places = in_split(held, split, names)
    spoken = [p for p in places if language in held.notes[p]["captions"]]
    if not spoken:
        known = sorted({code for note in held.notes for code in note["captions"]})
        raise ValueError(f"no caption in {language!r}; there are {', '.join(known)}")
    times = copies if split == "train" else 1
    made = Stamps(held, spoken, names, size, ground, language, times, split, seed)
    labels = [names.index(held.notes[p]["category"]) for p in spoken]
    fingerprint = cache.digest(
        *("stamps", _RECIPE, _SHA256, photos.FACTS["sha256"], split, size, ground),
        *(names, language, times, seed, spoken),
    )
    rows = rendered.once(made, fingerprint)
    facts = {
        "name": "stamps",
        "split": split,
        "rows": len(rows),
        "stamps": len(spoken),
        "left out": left_out,
        "without a caption in the language": len(places) - len(spoken),
        "counts": {name: labels.count(i) for i, name in enumerate(names)},
        "fingerprint": fingerprint,
    }
    return Source(rows, names, facts | FACTS)


@dataclass(frozen=True)
class Stamps:
    """Stamps on their grounds, by index, composed when asked for."""

    stamps: cutouts.Cutouts
    places: list[int]
    classes: tuple[str, ...]
    size: int
    ground: str
    language: str
    copies: int
    split: str
    seed: int

    def __len__(self) -> int:
        return len(self.places) * self.copies

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self):,}")
        place = self.places[index // self.copies]
        note, size = self.stamps.notes[place], self.size
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        if self.ground == "white":
            under = np.full((size, size, 3), 255, np.uint8)
        else:
            under = texture(self.split, rng, (size, size))
        stamp = cutouts.fitted(self.stamps[place], size - 2 * (size // 16))
        top, left = (size - stamp.shape[0]) // 2, (size - stamp.shape[1]) // 2
        image, _ = cutouts.paste(under, stamp, top, left)
        return {
            "image": image,
            "label": self.classes.index(note["category"]),
            "text": note["captions"][self.language],
            "id": note["id"] if self.copies == 1 else f"{note['id']} {index}",
        }


def collection() -> tuple[cutouts.Cutouts, dict[str, int]]:
    """All stamps with a caption and some transparency; and counts of the others."""
    key = cache.digest("stamps", _RECIPE, _SHA256, LONGEST, SOLID)[:24]
    target = cache.once(cache.home() / "images" / f"stamps-{key}", _prepare)
    note = json.loads((target / "stamps.json").read_text("utf-8"))
    held = np.load(target / "stamps.npy", mmap_mode="r")
    return cutouts.Cutouts(held, note["stamps"]), note["left out"]


def chosen(held: cutouts.Cutouts, categories: Sequence[str] | None) -> tuple[str, ...]:
    """The categories' names, all or those given. Raises ValueError on unknown ones."""
    known = sorted({note["category"] for note in held.notes})
    names = tuple(categories) if categories is not None else tuple(known)
    odd = sorted(set(names) - set(known))
    if odd or not names:
        raise ValueError(f"categories={list(names)}; they are {', '.join(known)}")
    return names


def in_split(held: cutouts.Cutouts, split: str, names: Sequence[str]) -> list[int]:
    """Places of a split's stamps of these categories.

    In each category the families with the lowest sha256 are for the test, until its
    share is full, and the next ones for validation. A family that is larger than the
    share of validation is trained on.
    """
    found: list[int] = []
    for name in names:
        families: dict[str, list[int]] = {}
        for place, note in enumerate(held.notes):
            if note["category"] == name:
                families.setdefault(family(note["id"]), []).append(place)
        total, before = sum(map(len, families.values())), 0

        def order(item: tuple[str, list[int]], most: float = total * SHARES[0]) -> Any:
            return len(item[1]) > most, fraction(item[0])

        for _, places in sorted(families.items(), key=order):
            share = before / total
            part = "train" if share >= sum(SHARES) else "validation"
            if ("test" if share < SHARES[1] else part) == split:
                found += places
            before += len(places)
    return sorted(found)


def family(path: str) -> str:
    """A stamp's path without suffix and a number at its end."""
    return re.sub(r"[-_ ]?\d+$", "", path.removesuffix(".png")) or path


def texture(split: str, rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A random window of one of GROUNDS, uint8 [H, W, 3].

    Training takes it from the left three quarters of a picture, the others from the
    right quarter.
    """
    photo = photos.read(GROUNDS[int(rng.integers(len(GROUNDS)))])
    border = photo.shape[1] * 3 // 4
    part = photo[:, :border] if split == "train" else photo[:, border:]
    window = random_resized_crop(part, rng, size, area=(0.1, 0.6))
    return window[:, ::-1] if rng.random() < 0.5 else window


def _prepare(target: Path) -> None:
    package = fetch.package(
        "debian",
        "tuxpaint-stamps-default",
        _VERSION,
        _SHA256,
        members=[f"{_FOLDER}/*.png", f"{_FOLDER}/*.txt"],
        max_bytes=1 << 31,
    )
    target.mkdir()
    notes, pictures, left_out = read(package / _FOLDER)
    np.save(target / "stamps.npy", np.concatenate([p.reshape(-1) for p in pictures]))
    (target / "stamps.json").write_text(
        json.dumps({"stamps": notes, "left out": left_out}, ensure_ascii=False)
    )


def read(root: Path) -> tuple[list[dict], list[np.ndarray], dict[str, int]]:
    """(notes, pictures uint8 [h, w, 4], counts of what was left out) of a folder."""
    notes: list[dict] = []
    pictures: list[np.ndarray] = []
    seen, place = set(), 0
    left_out = {"no caption": 0, "no transparency": 0}
    left_out |= {"hardly solid": 0, "pixels of another": 0}
    for file in sorted(root.rglob("*.png")):
        captions = file.with_suffix(".txt")
        if not captions.is_file():
            left_out["no caption"] += 1
            continue
        image = decode.decode(file, channels=4)
        picture = cutouts.trimmed(image)
        if image[..., 3].min() == 255:
            left_out["no transparency"] += 1
            continue
        if picture is None or (picture[..., 3] >= cutouts.SOLID).mean() < SOLID:
            left_out["hardly solid"] += 1
            continue
        if max(picture.shape[:2]) > LONGEST:
            picture = cutouts.fitted(picture, LONGEST)
        pixels = cache.digest(picture.shape, picture.tobytes().hex())
        if pixels in seen:
            left_out["pixels of another"] += 1
            continue
        seen.add(pixels)
        path = file.relative_to(root).as_posix()
        notes.append(
            {
                "id": path,
                "category": path.split("/")[0],
                "captions": caption_lines(captions.read_bytes()),
                "place": place,
                "shape": picture.shape[:2],
            }
        )
        pictures.append(picture)
        place += picture.size
    return notes, pictures, left_out


@functools.lru_cache(maxsize=1024)
def caption_lines(data: bytes) -> dict[str, str]:
    """{language: caption} of a stamp's text: English first, then `xx.utf8=` lines."""
    first, *others = data.decode("utf-8-sig", "replace").splitlines() or [""]
    found = {"en": first.strip()}
    for line in others:
        match = re.match(r"([A-Za-z@_]+)\.utf8=(.*)", line)
        if match and match[2].strip():
            found[match[1]] = match[2].strip()
    return {code: text for code, text in found.items() if text}
