"""The user's own plain text: a file, or a folder of .txt files."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fmjax.data import cache, tables
from fmjax.data.source import Row, Source, check_split, split_of
from fmjax.data.tables import Bad


def load(
    split: str,
    *,
    path: str | Mapping[str, str],
    documents: str = "blank",
    pattern: str = "*.txt",
    bad_rows: str = "refuse",
    holdout: Sequence[float] = (0.1, 0.1),
) -> Source:
    """Rows of `text` (a document) and `id` ('file:line' where it starts).

    path: a file or folder (split by `holdout`), a pattern with {split}, or {split:
    one}. documents: 'blank' (blank lines part them) or 'file' (each file is one).
    pattern: which files of a folder, its subfolders included.
    bad_rows: 'refuse' or 'skip' documents that are not UTF-8, and files without text.

    Raises ValueError on bad documents with their places, FileNotFoundError.
    """
    check_split(split)
    if documents not in ("blank", "file"):
        raise ValueError(f"documents={documents!r}; it is 'blank' or 'file'")
    files = tables.split_files(path)
    shares = tables.check_holdout(holdout)
    place = tables.choose(files, split)
    single = "" in files
    found = sorted(place.rglob(pattern)) if place.is_dir() else [place]
    found = [file for file in found if file.is_file()]
    if not found:
        raise FileNotFoundError(f"{place} has no files {pattern}; set data.pattern")
    bad, rows, total = tables.BadRows(bad_rows), list[Row](), 0
    for file in found:
        name = file.relative_to(place).as_posix() if place.is_dir() else file.name
        for line, document in _documents(file, by_file=documents == "file"):
            total += 1
            if isinstance(document, Bad):
                bad.add(f"{name} line {line}", document)
            elif not single or split_of(document, *shares) == split:
                rows.append({"text": document, "id": f"{name}:{line}"})
    facts = bad.settle(str(place), total)
    if not rows:
        raise ValueError(
            f"{place} gives no documents for the split {split!r} with "
            f"holdout={shares}: "
            "give more text, another holdout, or a file for each split"
        )
    return Source(
        rows,
        (),
        {
            "name": "text",
            "origin": str(place),
            "split": split,
            "files": len(found),
            "rows": len(rows),
            "characters": sum(len(row["text"]) for row in rows),
            "bad rows": facts,
            "fingerprint": cache.digest("text", [row["text"] for row in rows]),
        },
    )


def _documents(file: Path, *, by_file: bool) -> Iterator[tuple[int, str | Bad]]:
    data = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    lines = data.decode("utf-8", "surrogateescape").replace("\r\n", "\n").split("\n")
    start, held, any_text = 1, list[str](), False
    for number, line in enumerate([*lines, ""], 1):
        last = number > len(lines)
        if line.strip() or (by_file and not last):
            if not held:
                start = number
            held.append(line)
        if last or not (line.strip() or by_file):
            text = "\n".join(held).strip()
            if text:
                any_text = True
                yield start, tables.whole(text)
            held = []
    if not any_text:
        yield 1, Bad("no text in the file")
