"""The user's own images: a folder for each class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fmjax.data import cache, tables
from fmjax.data.images import decode
from fmjax.data.images.pack import Packed, pack, sides
from fmjax.data.source import SPLITS, Row, Source, check_split, split_of


def load(
    split: str,
    *,
    path: str,
    size: int | Sequence[int] | None,
    channels: int = 3,
    classes: Sequence[str] | None = None,
    bad_rows: str = "refuse",
    holdout: Sequence[float] = (0.1, 0.1),
) -> Source:
    """Rows of `image` (uint8 [H, W, channels]), `label`, `id` (the file's place).

    path: PATH/CLASS/*.png (split by `holdout`, by sha256 of the file, so that copies
        fall together) or PATH/{train,validation,test}/CLASS/*.png.
    size: H and W, or one number for both; images are resized to it, once, into home().
        None: images keep their sizes and are decoded when they are asked for, and
        inputs.size is for the inputs to set.
    channels: 3 (RGB) or 1 (grey). classes: names by label, each with a folder in one
        split at least; without them the folders'.
    bad_rows: 'refuse' or 'skip' files that `images.decode` does not read.

    Raises ValueError on bad files with their names and on classes without a folder,
    FileNotFoundError without images.
    """
    check_split(split)
    shares, shape = tables.check_holdout(holdout), sides(size)
    if channels not in (1, 3):
        raise ValueError(f"channels={channels}: channels is 1 or 3")
    root = Path(path).expanduser()
    by_split = any((root / name).is_dir() for name in SPLITS)
    folder = root / split if by_split else root
    named = root / "train" if by_split else root
    names = tuple(classes) if classes else _folders(named)
    odd = sorted(set(_folders(folder)) - set(names))
    if odd and not classes:
        raise ValueError(f"{folder} has classes that {named} has not: {', '.join(odd)}")
    roots = [p for x in SPLITS if (p := root / x).is_dir()] if by_split else [root]
    if missing := [x for x in names if not any((p / x).is_dir() for p in roots)]:
        there = sorted({name for p in roots for name in _folders(p)})
        raise ValueError(
            f"no folder in {root} for classes={', '.join(missing)}; there are "
            f"{', '.join(there) or 'none'}"
        )
    files = [
        (file, label)
        for label, name in enumerate(names)
        for file in sorted((folder / name).rglob("*"))
        if file.suffix.lower() in decode.SUFFIXES and file.is_file()
    ]
    if not files:
        raise FileNotFoundError(
            f"no images in {folder}/CLASS (classes: {', '.join(names) or 'none'}; "
            f"kinds: {', '.join(sorted(decode.SUFFIXES))})"
        )
    packed = pack([file for file, _ in files], shape, channels)
    ids = [file.relative_to(folder).as_posix() for file, _ in files]
    bad = tables.BadRows(bad_rows)
    for place, why in packed.bad.items():
        bad.add(ids[place], why)
    bad_facts = bad.settle(str(folder), len(files))
    chosen = [
        place
        for place, sha in packed.sha256.items()
        if by_split or split_of(sha, *shares) == split
    ]
    if not chosen:
        raise ValueError(
            f"{folder} gives no images for the split {split!r} with holdout={shares}: "
            "give more images, another holdout, or folders train, validation, test"
        )
    labels = [files[place][1] for place in chosen]
    facts = {
        "name": "image_folder",
        "origin": str(folder),
        "split": split,
        "rows": len(chosen),
        "bad rows": bad_facts,
        "counts": {name: labels.count(i) for i, name in enumerate(names)},
        "fingerprint": cache.digest(
            *("images", shape, channels, names),
            [(packed.sha256[p], files[p][1]) for p in chosen],
        ),
    }
    return Source(
        Images(packed, chosen, labels, [ids[p] for p in chosen]), names, facts
    )


@dataclass(frozen=True)
class Images:
    """Rows of images by index."""

    images: Packed
    places: list[int]
    labels: list[int]
    names: list[str]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Row:
        image = self.images[self.places[index]]
        return {"image": image, "label": self.labels[index], "id": self.names[index]}


def _folders(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {folder}; it must hold a folder for each class"
        )
    found = (p.name for p in folder.iterdir() if p.is_dir())
    return tuple(sorted(name for name in found if not name.startswith(".")))
