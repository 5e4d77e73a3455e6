"""The user's own images with masks: two folders with files of the same names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmjax.data import cache, tables
from fmjax.data.images import decode
from fmjax.data.images.pack import Packed, pack, sides
from fmjax.data.source import SPLITS, Row, Source, check_split, split_of

IGNORED = 255


def load(
    split: str,
    *,
    path: str,
    classes: Sequence[str],
    size: int | Sequence[int] | None,
    channels: int = 3,
    images: str = "images",
    masks: str = "masks",
    bad_rows: str = "refuse",
    holdout: Sequence[float] = (0.1, 0.1),
) -> Source:
    """Rows of `image` (uint8 [H, W, channels]), `mask` (uint8 [H, W]) and `id`.

    path: PATH/images/NAME.jpg and PATH/masks/NAME.png (split by `holdout`, by sha256 of
        the image file) or the same in PATH/{train,validation,test}. Suffixes may
        differ; folders within are followed. images, masks: the two folders' names.
    classes: names by number, the first that of 0; a mask is a palette or grey image
        whose values are these numbers, or 255 for what does not count.
    size: H and W, or one number, that both are resized to, once; None keeps theirs.
    bad_rows: 'refuse' or 'skip' images that have no mask, or a mask of another size or
        with other numbers, or that cannot be read.

    Raises ValueError on bad pairs with their names, FileNotFoundError without images.
    """
    check_split(split)
    shares, shape = tables.check_holdout(holdout), sides(size)
    if not 2 <= len(classes) <= IGNORED:
        raise ValueError(f"classes={list(classes)}: 2 to {IGNORED} names, 0 first")
    root = Path(path).expanduser()
    by_split = any((root / name).is_dir() for name in SPLITS)
    folder = root / split if by_split else root
    found, given = _files(folder / images), _files(folder / masks)
    if not found:
        raise FileNotFoundError(
            f"no images in {folder / images}; PATH holds folders {images} and {masks}, "
            "or such in train, validation, test"
        )
    bad = tables.BadRows(bad_rows)
    lonely = sorted(set(found) - set(given))
    for name in lonely:
        bad.add(f"{images}/{name}", f"no mask of this name in {folder / masks}")
    names = sorted(set(found) & set(given))
    pictures = pack([found[name] for name in names], shape, channels)
    numbers = pack([given[name] for name in names], shape, None)
    good = []
    for place, name in enumerate(names):
        why = pictures.bad.get(place) or numbers.bad.get(place)
        if why is None and pictures.shapes[place] != numbers.shapes[place]:
            one, other = pictures.shapes[place], numbers.shapes[place]
            why = f"the image is {one} (H, W) and the mask {other}"
        if why is None:
            mask = numbers[place]
            odd = mask[(mask >= len(classes)) & (mask != IGNORED)]
            if len(odd):
                why = f"class {odd[0]} in the mask, and there are {len(classes)}"
        if why is None:
            good.append(place)
        else:
            bad.add(name, why)
    facts = bad.settle(str(folder), len(found))
    chosen = [
        place
        for place in good
        if by_split or split_of(pictures.sha256[place], *shares) == split
    ]
    if not chosen:
        raise ValueError(
            f"{folder} gives no images for the split {split!r} with holdout={shares}: "
            "give more images, another holdout, or folders train, validation, test"
        )
    pixels = np.zeros(256, np.int64)
    for place in chosen:
        pixels += np.bincount(numbers[place].ravel(), minlength=256)
    return Source(
        Pairs(pictures, numbers, chosen, [names[place] for place in chosen]),
        tuple(classes),
        {
            "name": "image_masks",
            "origin": str(folder),
            "split": split,
            "rows": len(chosen),
            "bad rows": facts,
            "pixels": {name: int(pixels[i]) for i, name in enumerate(classes)},
            "fingerprint": cache.digest(
                *("image_masks", shape, channels, list(classes)),
                [(pictures.sha256[p], numbers.sha256[p]) for p in chosen],
            ),
        },
    )


@dataclass(frozen=True)
class Pairs:
    """Images and masks by index."""

    images: Packed
    masks: Packed
    places: list[int]
    names: list[str]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Row:
        place = self.places[index]
        return {
            "image": self.images[place],
            "mask": self.masks[place],
            "id": self.names[index],
        }


def _files(folder: Path) -> dict[str, Path]:
    """Place without suffix -> image file. Raises ValueError where two have one name."""
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in decode.SUFFIXES and file.is_file():
            name = file.relative_to(folder).with_suffix("").as_posix()
            if name in found:
                raise ValueError(f"{found[name]} and {file} have one name; remove one")
            found[name] = file
    return found
