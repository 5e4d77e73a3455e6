"""The user's own images: a folder for each class."""

import functools
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from fmjax.data import cache, tables
from fmjax.data.source import SPLITS, Row, Source, check_split, split_of

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"}


def load(
    split: str,
    *,
    path: str,
    size: int | Sequence[int],
    channels: int = 3,
    classes: Sequence[str] | None = None,
    bad_rows: str = "refuse",
    holdout: Sequence[float] = (0.1, 0.1),
) -> Source:
    """Rows of `image` (uint8 [H, W, channels]), `label`, `id` (the file's place).

    path: PATH/CLASS/*.png (split by `holdout`, by sha256 of the file, so that copies
        fall together) or PATH/{train,validation,test}/CLASS/*.png.
    size: H and W, or one number for both; images are resized to it, once, into home().
    channels: 3 (RGB) or 1 (grey). classes: names by label; without them the folders'.
    bad_rows: 'refuse' or 'skip' files that cannot be read as images.

    Raises ValueError on bad files with their names, FileNotFoundError without images.
    """
    check_split(split)
    shares = tables.check_holdout(holdout)
    height, width = (size, size) if isinstance(size, int) else size
    if channels not in (1, 3) or min(height, width) < 1:
        raise ValueError(f"size={size}, channels={channels}: channels is 1 or 3")
    root = Path(path).expanduser()
    by_split = any((root / name).is_dir() for name in SPLITS)
    folder = root / split if by_split else root
    named = root / "train" if by_split else root
    names = tuple(classes) if classes else _folders(named)
    odd = sorted(set(_folders(folder)) - set(names))
    if odd and not classes:
        raise ValueError(f"{folder} has classes that {named} has not: {', '.join(odd)}")
    files = [
        (file, label)
        for label, name in enumerate(names)
        for file in sorted((folder / name).rglob("*"))
        if file.suffix.lower() in _SUFFIXES and file.is_file()
    ]
    if not files:
        raise FileNotFoundError(
            f"no images in {folder}/CLASS (classes: {', '.join(names) or 'none'}; "
            f"kinds: {', '.join(sorted(_SUFFIXES))})"
        )
    listing = [
        (
            file.relative_to(folder).as_posix(),
            file.stat().st_size,
            file.stat().st_mtime_ns,
        )
        for file, _ in files
    ]
    key = cache.digest(
        "images", 1, str(folder.resolve()), listing, height, width, channels
    )
    target = cache.once(
        cache.home() / "images" / key[:24],
        functools.partial(_pack, [f for f, _ in files], (height, width), channels),
    )
    note = json.loads((target / "files.json").read_text())
    bad = tables.BadRows(bad_rows)
    for place, why in note["bad"].items():
        bad.add(listing[int(place)][0], why)
    facts = bad.settle(str(folder), len(files))
    good = {place: i for i, place in enumerate(note["good"])}
    chosen = [
        place
        for place, sha in zip(note["good"], note["sha256"], strict=True)
        if by_split or split_of(sha, *shares) == split
    ]
    if not chosen:
        raise ValueError(
            f"{folder} gives no images for the split {split!r} with holdout={shares}: "
            "give more images, another holdout, or folders train, validation, test"
        )
    labels = [files[place][1] for place in chosen]
    rows = Images(
        np.load(target / "images.npy", mmap_mode="r"),
        [good[place] for place in chosen],
        labels,
        [listing[place][0] for place in chosen],
    )
    shas = dict(zip(note["good"], note["sha256"], strict=True))
    facts = {
        "name": "image_folder",
        "origin": str(folder),
        "split": split,
        "rows": len(chosen),
        "bad rows": facts,
        "counts": {name: labels.count(i) for i, name in enumerate(names)},
        "fingerprint": cache.digest(
            *("images", height, width, channels, names),
            [(shas[p], files[p][1]) for p in chosen],
        ),
    }
    return Source(rows, names, facts)


@dataclass(frozen=True)
class Images:
    """Images in one array on disk, mapped into memory."""

    images: np.ndarray
    places: list[int]
    labels: list[int]
    names: list[str]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Row:
        image = np.array(self.images[self.places[index]])
        return {"image": image, "label": self.labels[index], "id": self.names[index]}


def _folders(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {folder}; it must hold a folder for each class"
        )
    found = (p.name for p in folder.iterdir() if p.is_dir())
    return tuple(sorted(name for name in found if not name.startswith(".")))


def _pack(
    files: list[Path], size: tuple[int, int], channels: int, target: Path
) -> None:
    """Write images.npy uint8 [N, H, W, C] of the readable files, and files.json."""
    target.mkdir()
    note: dict[str, Any] = {"good": [], "sha256": [], "bad": {}}
    shape = (len(files), *size, channels)
    images = np.lib.format.open_memmap(
        target / "images.npy", mode="w+", dtype=np.uint8, shape=shape
    )
    for place, file in enumerate(files):
        try:
            images[len(note["good"])] = _decode(file, size, channels)
        except (
            OSError,
            ValueError,
            SyntaxError,
            Image.DecompressionBombError,
        ) as error:
            note["bad"][str(place)] = f"not readable as an image: {error}"
        except Image.DecompressionBombWarning as error:
            note["bad"][str(place)] = f"too large: {error}"
        else:
            note["good"].append(place)
            note["sha256"].append(cache.sha256(file))
    images.flush()
    (target / "files.json").write_text(json.dumps(note))


def _decode(file: Path, size: tuple[int, int], channels: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(file) as image:
            turned = ImageOps.exif_transpose(image).convert(
                "RGB" if channels == 3 else "L"
            )
    if turned.size != (size[1], size[0]):
        turned = turned.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(turned, np.uint8).reshape(*size, channels)
