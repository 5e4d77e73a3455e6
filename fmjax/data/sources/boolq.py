"""BoolQ: yes-or-no questions about Wikipedia passages, as a task.

Clark et al. 2019 (https://arxiv.org/abs/1905.10044). The labels of its test set are not
public: the published dev questions are the test split here, as in later work.
"""

from collections.abc import Iterable
from typing import Any

import tensorflow_datasets as tfds

from fmjax.data import builders
from fmjax.data.source import Row, Source, fraction, normal
from fmjax.data.sources import boolq_passages

CLASSES = ("no", "yes")
_VALIDATION = 0.1


def load(split: str) -> Source:
    """Rows of `text` (the question), `text2` (the passage), `label` and `id`.

    The test split is the published dev set. Validation is 10 % of the training
    questions, by sha256 of the passage, so that a passage is in one of the two only;
    as published, some passages of the test are in training too (facts say how many).
    """
    return builders.load(BoolQ, split, CLASSES)


class BoolQ(builders.Builder):
    """The data set as TFDS prepares it."""

    TITLE = "BoolQ: yes-or-no questions with Wikipedia passages"
    ORIGIN = boolq_passages.BoolqPassages.ORIGIN
    LICENCE = boolq_passages.BoolqPassages.LICENCE
    CITATION = boolq_passages.BoolqPassages.CITATION

    def features(self) -> dict[str, Any]:
        return {
            "text": tfds.features.Text(),
            "text2": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=list(CLASSES)),
            "id": tfds.features.Text(),
        }

    def rows(self) -> tuple[dict[str, Iterable[Row]], dict[str, Any]]:
        combined, dev, sha256 = boolq_passages.files()
        return questions(combined, dev, sha256=sha256)


def questions(
    combined: list[Row], dev: list[Row], **facts: Any
) -> tuple[dict[str, Iterable[Row]], dict[str, Any]]:
    """The questions by split, passages without their titles."""
    asked = {row["question"] for row in dev}
    labelled = [row for row in combined if row.get("label") is not None]
    train = [row for row in labelled if row["question"] not in asked]
    splits: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for row in train:
        passage = boolq_passages.untitled(row["passage"])
        held = fraction(normal(passage)) < _VALIDATION
        part = "validation" if held else "train"
        splits[part].append(_row(row, passage, f"train-{row['question']}"))
    for row in dev:
        passage = boolq_passages.untitled(row["passage"])
        splits["test"].append(_row(row, passage, f"dev-{row['question']}"))
    seen = {
        normal(row["text2"]) for part in ("train", "validation") for row in splits[part]
    }
    shared = sum(normal(row["text2"]) in seen for row in splits["test"])
    made: dict[str, Iterable[Row]] = {**splits}
    return made, {**facts, "test questions whose passage training has": shared}


def _row(row: Row, passage: str, identity: str) -> Row:
    # The dev file writes answers as words.
    label = int(str(row.get("label", row.get("answer"))) == "True")
    return {"text": row["question"], "text2": passage, "label": label, "id": identity}
