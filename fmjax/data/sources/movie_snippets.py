"""Movie review snippets with the mean score of twenty human raters, as two classes.

The snippets (Rotten Tomatoes; scores by Hutto & Gilbert 2014, ICWSM) ship inside the
vaderSentiment source distribution, in an archive inside the archive. label = score > 0.
"""

from collections.abc import Iterable
from typing import Any

import tensorflow_datasets as tfds

from fmjax.data import archives, builders, cache, fetch
from fmjax.data.source import SPLITS, Row, Source, normal, split_of

CLASSES = ("negative", "positive")
_SHA256 = "6ea3b53f1835a1bb9125cbb9872e8740bd506ab1d9f2266d0c63109b858d71af"
_INNER = "vaderSentiment-3.3.1/additional_resources/hutto_ICWSM_2014.tar.gz"
_TEXTS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"


def load(split: str) -> Source:
    """Rows of `text`, `label` (0 negative, 1 positive), `id` (the file's number, str).

    The split is fixed: by sha256 of the id, test 20 %, validation 10 %, train 70 %. A
    text that occurs again, but for case, punctuation or spacing, is kept once: in test,
    else in validation, else in train.
    """
    return builders.load(MovieSnippets, split, CLASSES)


class MovieSnippets(builders.Builder):
    """The data set as TFDS prepares it."""

    TITLE = "Movie review snippets with human sentiment scores"
    ORIGIN = "PyPI source distribution vaderSentiment 3.3.1"
    LICENCE = "MIT (the package's LICENSE.txt)"
    CITATION = (
        "Hutto, C.J. & Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model "
        "for Sentiment Analysis of Social Media Text. ICWSM-14"
    )

    def features(self) -> dict[str, Any]:
        return {
            "text": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=list(CLASSES)),
            "id": tfds.features.Text(),
        }

    def rows(self) -> tuple[dict[str, Iterable[Row]], dict[str, Any]]:
        folder = fetch.package(
            "sdist", "vaderSentiment", "3.3.1", _SHA256, members=[_INNER]
        )
        with cache.scratch(folder) as directory:
            archives.unpack(folder / _INNER, directory / "texts", [_TEXTS])
            text = (directory / "texts" / _TEXTS).read_bytes().decode("utf-8")
        return snippets(text, sha256=_SHA256)


def snippets(
    text: str, **facts: Any
) -> tuple[dict[str, Iterable[Row]], dict[str, Any]]:
    """The rows by split, and the counts, from lines of id, score, text by tabs."""
    lines = [line for line in text.replace("\r\n", "\n").split("\n") if line]
    parsed = [line.split("\t", 2) for line in lines]
    scored = [(number, float(score), text) for number, score, text in parsed]
    rows: dict[str, list[Row]] = {name: [] for name in SPLITS}
    for number, score, words in scored:
        if score != 0:
            row = {"text": words.strip(), "label": int(score > 0), "id": number}
            rows[split_of(number, validation=0.1, test=0.2)].append(row)
    seen: set[str] = set()
    dropped = {}
    for name in reversed(SPLITS):  # test first: what it holds, the others may not
        kept = []
        for row in rows[name]:
            if normal(str(row["text"])) not in seen:
                seen.add(normal(str(row["text"])))
                kept.append(row)
        dropped[name] = len(rows[name]) - len(kept)
        rows[name] = kept
    labels = {n: [r["label"] for r in rows[n]].count(1) / len(rows[n]) for n in SPLITS}
    return dict(rows), {
        **facts,
        "lines": len(lines),
        "score zero, left out": sum(score == 0 for _, score, _ in scored),
        "duplicates, left out": dropped,
        "share positive": {n: round(share, 4) for n, share in labels.items()},
    }
