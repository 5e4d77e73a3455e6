"""The user's own JSON lines with any fields: pairs, tagged words, choices."""

from collections.abc import Mapping, Sequence
from typing import Any

from fmjax.data import cache, tables
from fmjax.data.source import Row, Source, check_split, split_of
from fmjax.data.sources import jsonl
from fmjax.data.tables import Bad

_CLASSES = ("label", "tags")  # fields that hold classes, one or a list


def load(
    split: str,
    *,
    path: str | Mapping[str, str],
    rename: Mapping[str, str] | None = None,
    needs: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    bad_rows: str = "refuse",
    holdout: Sequence[float] = (0.1, 0.1),
) -> Source:
    """Rows as the lines have them, and `id` (the line number where there is none).

    path: a file (split by `holdout`, by hash of the whole line), a pattern with
        {split}, or {split: file}.
    rename: field in the file -> field of the row, such as {'en': 'source'}.
    needs: fields that every row must have, not empty.
    classes: what the strings in `label` or in the list `tags` stand for, which become
        numbers; without, all that occur in the training rows, sorted. Numbers stay.
    bad_rows: 'refuse' or 'skip' lines that are no JSON object, not UTF-8, lack a field
        or have an unknown class.

    Raises ValueError on bad rows with their lines, FileNotFoundError.
    """
    check_split(split)
    files, shares = tables.split_files(path), tables.check_holdout(holdout)
    names = dict(rename or {})

    def rows_of(part: str, bad: tables.BadRows) -> tuple[list[Row], int]:
        file, rows, total = tables.choose(files, part), list[Row](), 0
        for number, record in jsonl.read(file):
            total += 1
            row = record if isinstance(record, Bad) else _row(record, names, needs)
            if isinstance(row, Bad):
                bad.add(f"{file.name} line {number}", row)
            elif "" not in files or split_of(cache.digest(record), *shares) == part:
                rows.append({"id": number} | row)
        return rows, total

    bad, file = tables.BadRows(bad_rows), tables.choose(files, split)
    rows, total = rows_of(split, bad)
    known = [str(c) for c in classes or ()]
    if not known:
        training = (
            rows if split == "train" else rows_of("train", tables.BadRows("skip"))[0]
        )
        known = sorted({c for row in training for c in _strings(row)})
    numbers = {name: i for i, name in enumerate(known)}
    kept = []
    for row in rows:
        strange = sorted(set(_strings(row)) - set(numbers))
        if strange:
            shown = ", ".join(known[:8])
            bad.add(f"line {row['id']}", f"class {strange[0]!r} is none of {shown}")
        else:
            kept.append(row | _numbered(row, numbers))
    facts = bad.settle(str(file), total)
    if not kept:
        raise ValueError(
            f"{file} gives no rows for the split {split!r}: give more rows, another "
            "holdout, or a file for each split"
        )
    sha256 = cache.sha256(file)
    return Source(
        kept,
        tuple(known),
        {
            "name": "records",
            "origin": str(file),
            "split": split,
            "sha256": sha256,
            "rows in the file": total,
            "rows": len(kept),
            "bad rows": facts,
            "fingerprint": cache.digest(
                *("records", sha256, split, "" in files and shares, names, known)
            ),
        },
    )


def _row(record: Row, names: Mapping[str, str], needs: Sequence[str]) -> Row | Bad:
    row = {names.get(key, key): value for key, value in record.items()}
    empty = [name for name in needs if row.get(name) in (None, "", [])]
    return Bad(f"no field {empty[0]!r}, or it is empty") if empty else row


def _strings(row: Row) -> list[str]:
    held: list[Any] = []
    for name in _CLASSES:
        value = row.get(name)
        held += value if isinstance(value, list) else [value]
    return [value for value in held if isinstance(value, str)]


def _numbered(row: Row, numbers: Mapping[str, int]) -> Row:
    def number(value: Any) -> Any:
        return numbers[value] if isinstance(value, str) else value

    found: Row = {}
    for name in _CLASSES:
        value = row.get(name)
        if value is not None:
            many = isinstance(value, list)
            found[name] = [number(v) for v in value] if many else number(value)
    return found
