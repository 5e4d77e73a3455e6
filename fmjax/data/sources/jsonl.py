"""The user's own JSON lines: one object a line."""

import json
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
    bad_rows: str = "refuse",
    holdout: Sequence[float] = (0.1, 0.1),
) -> Source:
    """Rows of `text`, perhaps `text2` and `label`, and `id` (the line number).

    The fields are those of `sources/csv`. Labels may be strings, numbers or true/false;
    `classes` then names them as JSON writes them. Bad rows are those which are no JSON
    object or no UTF-8, lack a field, or have a text that is empty or no string.
    """
    return tables.load(
        "jsonl",
        read,
        split,
        path=path,
        text=text,
        text2=text2,
        label=label,
        classes=classes,
        bad_rows=bad_rows,
        holdout=holdout,
    )


def read(path: Path) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
    """(line number, object) of a file of JSON lines; blank lines are passed over."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(
                    line.decode("utf-8-sig" if number == 1 else "utf-8")
                )
            except UnicodeDecodeError as error:
                yield number, Bad(f"byte 0x{line[error.start]:02x} is not UTF-8")
            except (ValueError, RecursionError) as error:
                yield number, Bad(f"not JSON: {error}")
            else:
                good = isinstance(record, dict)
                yield number, record if good else Bad("not a JSON object")
