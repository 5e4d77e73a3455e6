"""What the sources of the user's own tables share: files, bad rows, classes, splits."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmjax.data import cache
from fmjax.data.source import SPLITS, Row, Source, check_split, split_of

# A reader yields (line or row number, record); a record that cannot be read is a `Bad`.
Reader = Callable[[Path], Iterable[tuple[int, "dict[str, Any] | Bad"]]]
PathSpec = str | Mapping[str, str]
_SHOWN = 5


class Bad(str):
    """Why a row cannot be used."""


class BadRows:
    """Counts bad rows; refuses them, or records that they were skipped."""

    def __init__(self, policy: str):
        if policy not in ("refuse", "skip"):
            raise ValueError(f"bad_rows={policy!r}; it is 'refuse' or 'skip'")
        self.policy, self.count, self.first = policy, 0, list[str]()

    def add(self, where: str, why: str) -> None:
        self.count += 1
        if self.count <= _SHOWN:
            self.first.append(f"{where}: {why}")

    def settle(self, name: str, total: int) -> dict[str, Any]:
        """The facts about them. Raises ValueError where they are to be refused."""
        if self.count and self.policy == "refuse":
            more = f"; and {self.count - _SHOWN:,} more" if self.count > _SHOWN else ""
            raise ValueError(
                f"{name}: {self.count:,} of {total:,} rows are bad: "
                f"{'; '.join(self.first)}{more}. Correct them, or leave them out with "
                "data.bad_rows=skip"
            )
        return {"count": self.count, "first": self.first}


def load(
    name: str,
    read: Reader,
    split: str,
    *,
    path: PathSpec,
    text: str,
    text2: str | None,
    label: str | None,
    classes: Sequence[str] | None,
    bad_rows: str,
    holdout: Sequence[float],
) -> Source:
    """One split of a table with a column of text, perhaps a second and a label.

    The fields are those of `sources/csv`. Classes that are not given come from the
    training rows, sorted (as numbers where all are).
    """
    check_split(split)
    columns = [c for c in (text, text2, label) if c]
    files = split_files(path)
    shares = check_holdout(holdout)

    def rows_of(file: Path, bad: BadRows, part: str | None) -> tuple[list[Row], int]:
        rows, total = [], 0
        for number, record in read(file):
            total += 1
            row = record if isinstance(record, Bad) else _row(record, columns, label)
            if isinstance(row, Bad):
                bad.add(f"{file.name} line {number}", row)
                continue
            parts = [row[text], row[text2]] if text2 else [row[text]]
            if part and split_of("\0".join(parts), *shares) != part:
                continue
            kept = dict(zip(("text", "text2"), parts, strict=False))
            rows.append(
                kept | {"id": number} | ({"label": row[label]} if label else {})
            )
        return rows, total

    bad = BadRows(bad_rows)
    single = "" in files
    file = choose(files, split)
    rows, total = rows_of(file, bad, split if single else None)
    facts = bad.settle(str(file), total)
    names: tuple[str, ...] = ()
    if label:
        known = [str(c) for c in classes] if classes else None
        if known is None:
            training = rows
            if split != "train":
                part = "train" if single else None
                training, _ = rows_of(choose(files, "train"), BadRows("skip"), part)
            known = _sorted({row["label"] for row in training})
        names = tuple(known)
        rows = _number(rows, names, bad)
        facts = bad.settle(str(file), total)
    if not rows:
        raise ValueError(
            f"{file} gives no rows for the split {split!r}"
            + (f" with holdout={tuple(shares)}" if single else "")
            + ": give more rows, another holdout, or a file for each split"
        )
    counts = {n: [r["label"] for r in rows].count(i) for i, n in enumerate(names)}
    sha256 = cache.sha256(file)
    return Source(
        rows,
        names,
        {
            "name": name,
            "origin": str(file),
            "split": split,
            "sha256": sha256,
            "rows in the file": total,
            "rows": len(rows),
            "bad rows": facts,
            "counts": counts,
            "fingerprint": cache.digest(
                *(name, sha256, split, single and shares, columns, names, bad_rows)
            ),
        },
    )


def split_files(path: PathSpec) -> dict[str, Path]:
    """Split -> file; one file for all the splits stands under ''.

    path: a file, a pattern with {split}, or a dict of split -> file.
    """
    if isinstance(path, Mapping):
        for name in path:
            check_split(name)
        return {name: Path(file).expanduser() for name, file in path.items()}
    if "{split}" in path:
        return {s: Path(path.replace("{split}", s)).expanduser() for s in SPLITS}
    return {"": Path(path).expanduser()}


def choose(files: Mapping[str, Path], split: str) -> Path:
    """The file of a split. Raises FileNotFoundError with what there is."""
    file = files.get(split, files.get(""))
    if file is None:
        raise FileNotFoundError(
            f"data.path names no file for the split {split!r}, only for "
            f"{', '.join(files)}; add one, or give a single file, split by "
            "holdout"
        )
    if not file.exists():
        beside = sorted(p.name for p in file.parent.glob("*"))[:8]
        raise FileNotFoundError(
            f"no file {file} for the split {split!r}; in {file.parent} there is "
            f"{', '.join(beside) or 'nothing'}"
        )
    return file


def beside(file: Path, name: str) -> Path | Bad:
    """The file `name` beside `file` or below, or Bad: what a table says is no command.

    Absolute names, `..` and links that lead out of the folder of `file` are refused.
    """
    root, parts = file.parent.resolve(), Path(name).parts
    if not parts or Path(name).is_absolute() or "\\" in name or "\0" in name:
        return Bad(f"{name!r} must be relative to {root}")
    found = (root / name).resolve()
    if ".." in parts or not found.is_relative_to(root):
        return Bad(f"{name!r} leads out of {root}")
    return found if found.is_file() else Bad(f"no file {name!r} in {root}")


def check_holdout(holdout: Sequence[float]) -> tuple[float, float]:
    """(validation, test) shares. Raises ValueError where they are no shares."""
    shares = tuple(float(x) for x in holdout)
    if len(shares) != 2 or min(shares) < 0 or sum(shares) >= 1:
        raise ValueError(
            f"holdout={tuple(holdout)}: it is (validation, test), two shares of the "
            "rows that leave some for training, e.g. (0.1, 0.1)"
        )
    return shares[0], shares[1]


def whole(text: str) -> str | Bad:
    """The text, or Bad where bytes were no UTF-8 (read with surrogateescape)."""
    wrong = [ord(c) - 0xDC00 for c in text if "\udc80" <= c <= "\udcff"]
    return Bad(f"byte 0x{wrong[0]:02x} is not UTF-8") if wrong else text


def _row(
    record: Mapping[str, Any], columns: Sequence[str], label: str | None
) -> Row | Bad:
    row: Row = {}
    for column in columns:
        if column not in record:
            known = ", ".join(map(str, record))
            return Bad(f"no field {column!r} (the fields are {known})")
        value = record[column]
        if value is None or (isinstance(value, str) and not value.strip()):
            return Bad(f"field {column!r} is empty")
        if column == label:  # 1, "1" and true are names of classes
            value = value.strip() if isinstance(value, str) else json.dumps(value)
        elif not isinstance(value, str):
            return Bad(f"field {column!r} is {type(value).__name__}, not text")
        row[column] = value
    return row


def _sorted(values: Iterable[str]) -> list[str]:
    numbers = all(v.removeprefix("-").isdecimal() for v in values)
    return sorted(values, key=int) if numbers else sorted(values)


def _number(rows: list[Row], names: Sequence[str], bad: BadRows) -> list[Row]:
    numbers = {name: i for i, name in enumerate(names)}
    kept = []
    for row in rows:
        if row["label"] in numbers:
            kept.append(row | {"label": numbers[row["label"]]})
        else:
            shown = ", ".join(names[:8])
            bad.add(f"line {row['id']}", f"label {row['label']!r} is none of {shown}")
    return kept
