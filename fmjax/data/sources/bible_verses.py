"""English and Spanish Bible verses, aligned, split by book.

The King James Version and the Reina-Valera of 1909, both in the public domain, from
Debian's sword-text packages, read by pysword (the `data` extra).
"""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from fmjax.data import builders, fetch
from fmjax.data.source import Row, Source

# Books whose stories other books do not tell again, of several kinds.
BOOKS = {
    "validation": ("Ruth", "Ecclesiastes", "Jonah", "Hebrews"),
    "test": ("Esther", "Daniel", "Acts"),
}
_PACKAGES = {
    "source": (
        "sword-text-kjv",
        "14.3-1",
        "9f463f28ce665f6f528fc723179722bced880a4c5485f7a41bf742838315de57",
        "engKJV2006eb",
    ),
    "target": (
        "sword-text-sparv",
        "2.60-1",
        "5c87f9b2bc97457e8a872f5bae7ea7ce59cb3de1dcee73e4d4740451863694cf",
        "spaRV1909eb",
    ),
}


def load(split: str) -> Source:
    """Rows of `source` (English), `target` (Spanish) and `id` ('Genesis 1:1').

    Test: Esther, Daniel, Acts. Validation: Ruth, Ecclesiastes, Jonah, Hebrews. Verses
    that one of the two lacks are left out and counted.
    Raises ImportError, saying what to install, where pysword is missing.
    """
    return builders.load(BibleVerses, split)


class BibleVerses(builders.Builder):
    """The data set as TFDS prepares it."""

    TITLE = "English and Spanish Bible verses"
    ORIGIN = "Debian packages sword-text-kjv 14.3-1 and sword-text-sparv 2.60-1"
    LICENCE = "public domain (in the United Kingdom: royal patent on the English)"
    CITATION = "eBible.org: eng-kjv2006 and spaRV1909"

    def features(self) -> dict[str, Any]:
        names = ("source", "target", "id")
        return {name: tfds.features.Text() for name in names}

    def rows(self) -> tuple[dict[str, Iterable[Row]], dict[str, Any]]:
        sides = {}
        for side, (name, version, sha256, module) in _PACKAGES.items():
            folder = fetch.package(
                "debian", name, version, sha256, members=["usr/share/sword/*"]
            )
            sides[side] = dict(_read(folder / "usr/share/sword", module))
        return verses(sides, sha256=[one[2] for one in _PACKAGES.values()])


def _read(folder: Path, module: str) -> Iterator[tuple[tuple[str, int, int], str]]:
    """((book, chapter, verse), text) of a Sword module."""
    try:
        from pysword.modules import SwordModules
    except ImportError as error:
        raise ImportError(
            "bible_verses needs pysword: pip install 'fmjax[data]'"
        ) from error

    modules = SwordModules(str(folder))
    modules.parse_modules()
    bible = modules.get_bible_from_module(module)
    # A block holds a book, and pysword unpacks it anew for each verse: minutes in all.
    if unpack := getattr(bible, "_decompress", None):
        bible._decompress = functools.lru_cache(maxsize=2)(unpack)
    for books in bible.get_structure().get_books().values():
        for book in books:
            for chapter in range(1, book.num_chapters + 1):
                for verse in range(1, book.chapter_lengths[chapter - 1] + 1):
                    text = bible.get(
                        books=[book.name],
                        chapters=[chapter],
                        verses=[verse],
                        clean=True,
                    )
                    yield (book.name, chapter, verse), " ".join(text.split())


def verses(
    sides: Mapping[str, Mapping[tuple[str, int, int], str]],
    books: Mapping[str, Sequence[str]] = BOOKS,
    **facts: Any,
) -> tuple[dict[str, Iterable[Row]], dict[str, Any]]:
    """The verses that both sides have, by split; sides: (book, chapter, verse) -> text.

    Raises ValueError where a held-out book is not there.
    """
    source, target = sides["source"], sides["target"]
    splits: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    part = {book: name for name, held in books.items() for book in held}
    for place, text in source.items():
        book, chapter, verse = place
        other = target.get(place, "")
        if text and other:
            row = {"source": text, "target": other, "id": f"{book} {chapter}:{verse}"}
            splits[part.get(book, "train")].append(row)
    missing = set(part) - {book for book, _, _ in source}
    if missing:
        raise ValueError(f"no such book: {', '.join(sorted(missing))}")
    kept = sum(map(len, splits.values()))
    made: dict[str, Iterable[Row]] = {**splits}
    left = len({*source, *target}) - kept
    return made, {**facts, "places that one of the two lacks, left out": left}
