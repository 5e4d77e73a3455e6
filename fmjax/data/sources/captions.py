"""The user's own images with texts: a table of files and captions, as for CLIP."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmjax.data import cache, tables
from fmjax.data.images.pack import Packed, pack, sides
from fmjax.data.source import Row, Source, check_split, split_of
from fmjax.data.sources import csv, jsonl
from fmjax.data.tables import Bad


@dataclass
class _Image:
    """What the lines of a table say about one image."""

    name: str
    lines: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)


def load(
    split: str,
    *,
    path: str | Mapping[str, str],
    size: int | Sequence[int] | None,
    image: str = "image",
    text: str = "text",
    label: str | None = None,
    classes: Sequence[str] | None = None,
    channels: int = 3,
    delimiter: str = ",",
    bad_rows: str = "refuse",
    holdout: Sequence[float] = (0.1, 0.1),
) -> Source:
    """Rows of `image` (uint8 [H, W, channels]), `text`, perhaps `label`, and `id`.

    path: a .csv, .tsv or .jsonl file (split by `holdout`, by sha256 of the image file,
        so that copies fall together), a pattern with {split}, or {split: file}.
    image, text, label: its columns or fields; image has names of files relative to the
        table's own folder, which they must not leave. Lines with one image make one
        row, whose `text` is then a list of captions.
    size: H and W, or one number, that images are resized to, once; None keeps theirs.
    classes: names by label; without, the labels of the training table, sorted.
    bad_rows: 'refuse' or 'skip' lines without a text or an image that can be read.

    Raises ValueError on bad rows with their lines, FileNotFoundError on a missing file.
    """
    check_split(split)
    files, shares = tables.split_files(path), tables.check_holdout(holdout)
    shape, bad = sides(size), tables.BadRows(bad_rows)
    read = functools.partial(
        _read, columns=(image, text, *([label] if label else [])), delimiter=delimiter
    )
    file = tables.choose(files, split)
    found, total = read(file, bad)
    names: tuple[str, ...] = ()
    if label:
        training = found
        if split != "train" and classes is None and "" not in files:
            training, _ = read(tables.choose(files, "train"), tables.BadRows("skip"))
        known = {name for one in training.values() for name in one.labels}
        names = tuple(classes) if classes else tuple(sorted(known))
    packed = pack(list(found), shape, channels)
    images = list(found.values())
    for place, why in packed.bad.items():
        for line in images[place].lines:
            bad.add(f"{file.name} line {line}", f"{images[place].name}: {why}")
    for place in packed.sha256:
        if label and (len(images[place].labels) > 1 or images[place].labels - {*names}):
            said = ", ".join(sorted(images[place].labels))
            for line in images[place].lines:
                bad.add(
                    f"{file.name} line {line}",
                    f"{images[place].name} has the labels {said}; it takes one of "
                    f"{', '.join(names[:8])}",
                )
            images[place].texts.clear()
    facts = bad.settle(str(file), total)
    chosen = [
        place
        for place, sha in packed.sha256.items()
        if images[place].texts and ("" not in files or split_of(sha, *shares) == split)
    ]
    if not chosen:
        raise ValueError(
            f"{file} gives no rows for the split {split!r} with holdout={shares}: give "
            "more rows, another holdout, or a file for each split"
        )
    rows = Captioned(packed, chosen, images, names)
    content = [
        (packed.sha256[p], images[p].texts, sorted(images[p].labels)) for p in chosen
    ]
    return Source(
        rows,
        names,
        {
            "name": "captions",
            "origin": str(file),
            "split": split,
            "rows in the file": total,
            "rows": len(chosen),
            "captions": sum(len(images[p].texts) for p in chosen),
            "bad rows": facts,
            "fingerprint": cache.digest("captions", shape, channels, names, content),
        },
    )


@dataclass(frozen=True)
class Captioned:
    """Rows of images and their texts, by index."""

    packed: Packed
    places: list[int]
    images: list[_Image]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Row:
        place = self.places[index]
        one = self.images[place]
        row: Row = {"image": self.packed[place], "id": one.name}
        row["text"] = one.texts[0] if len(one.texts) == 1 else list(one.texts)
        if self.classes:
            row["label"] = self.classes.index(next(iter(one.labels)))
        return row


def _read(
    file: Path, bad: tables.BadRows, *, columns: tuple[str, ...], delimiter: str
) -> tuple[dict[Path, _Image], int]:
    """(image file -> what its lines say, number of lines) of a table."""
    kind = file.suffix.lower()
    if kind not in (".csv", ".tsv", ".jsonl"):
        raise ValueError(f"{file}: a table of captions is a .csv, .tsv or .jsonl file")
    tab = "\t" if kind == ".tsv" else delimiter
    records: Any = jsonl.read(file) if kind == ".jsonl" else csv.read(file, tab)
    found: dict[Path, _Image] = {}
    total = 0
    for number, record in records:
        total += 1
        why = record if isinstance(record, Bad) else _wrong(record, columns)
        place = why or tables.beside(file, record[columns[0]])
        if isinstance(place, Bad):
            bad.add(f"{file.name} line {number}", place)
            continue
        one = found.setdefault(place, _Image(record[columns[0]]))
        one.lines.append(number)
        one.texts.append(record[columns[1]].strip())
        one.labels |= {str(record[name]) for name in columns[2:]}
    return found, total


def _wrong(record: Mapping[str, Any], columns: Sequence[str]) -> Bad | None:
    for place, name in enumerate(columns):
        if name not in record:
            return Bad(f"no field {name!r} (the fields are {', '.join(record)})")
        value = record[name]
        if value is None or (isinstance(value, str) and not value.strip()):
            return Bad(f"field {name!r} is empty")
        if place < 2 and not isinstance(value, str):
            return Bad(f"field {name!r} is {type(value).__name__}, not text")
    return None
