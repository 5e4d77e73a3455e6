"""The user's own CSV (or, with delimiter='\\t', TSV) file with a header."""

import csv
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmjax.data import tables
from fmjax.data.source import Source
from fmjax.data.tables import Bad


def load(
    split: str,
    *,
    path: str | Mapping[str, str],
    text: str = "text",
    text2: str | None = None,
    label: str | None = "label",
    classes: Sequence[str] | None = None,
    delimiter: str = ",",
    bad_rows: str = "refuse",
    holdout: Sequence[float] = (0.1, 0.1),
) -> Source:
    """Rows of `text`, perhaps `text2` and `label`, and `id` (the line it starts on).

    path: one file (split by `holdout`), a pattern with {split}, or {split: file}.
    text, text2, label: the columns' names; label=None where there are no labels.
    classes: names by label; without them, the training rows' labels, sorted.
    bad_rows: 'refuse' or 'skip' rows with a wrong number of columns, bad quoting, bytes
        that are not UTF-8, an empty text or an unknown label.
    holdout: (validation, test) shares of a single file, by sha256 of the row's text, so
        that equal texts fall together.

    Raises ValueError on bad rows with their lines, FileNotFoundError on a missing file.
    """
    return tables.load(
        "csv",
        functools.partial(read, delimiter=delimiter),
        split,
        path=path,
        text=text,
        text2=text2,
        label=label,
        classes=classes,
        bad_rows=bad_rows,
        holdout=holdout,
    )


def read(
    path: Path, delimiter: str = ","
) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
    """(line a row starts on, row) of a CSV file; quoted fields may hold line breaks."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header = next(reader, None)
        if not header:
            raise ValueError(f"{path} is empty; its first line must name the columns")
        if len(set(header)) < len(header):
            raise ValueError(f"{path}: two columns have one name: {', '.join(header)}")
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, Bad(f"not CSV: {error}")
                continue
            if not row:  # a blank line
                continue
            wrong = next(
                (w for w in map(tables.whole, row) if isinstance(w, Bad)), None
            )
            if wrong is not None:
                yield line, wrong
            elif len(row) != len(header):
                yield line, Bad(f"{len(row)} columns, and the header has {len(header)}")
            else:
                yield line, dict(zip(header, row, strict=True))
