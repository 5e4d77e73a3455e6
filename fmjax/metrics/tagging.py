"""Labels of words: how many right, and which entities were found."""

import importlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_CHUNK = re.compile(r"O|[BIES]-.+")


def compute(
    *, tags: ArrayLike, targets: ArrayLike, weights: ArrayLike, classes: Sequence[str]
) -> dict[str, Any]:
    """Numbers of one test set of sentences.

    tags, targets: integers [N, T], predicted and true classes; weights: [N, T], 1 where
    a word begins; classes: the C names.

    Returns sentences, words, accuracy (of words), whole_sentences (all words right) and
    macro_f1 over the classes that occur in truth or prediction; where the classes are
    chunk tags (B-..., I-..., O), also entity_precision, entity_recall and entity_f1 by
    seqeval, which count an entity when its span and its type are right.
    Raises ValueError for shapes that differ and a set without words.
    """
    said, truth = np.asarray(tags), np.asarray(targets)
    here = np.asarray(weights) > 0
    if not said.shape == truth.shape == here.shape or said.ndim != 2 or not here.any():
        raise ValueError(
            f"tags {said.shape}, targets {truth.shape} and weights {here.shape} must "
            "be alike, [N, T], with one word at least"
        )
    right = said == truth
    sklearn = importlib.import_module("sklearn.metrics")
    found: dict[str, Any] = {
        "sentences": len(said),
        "words": int(here.sum()),
        "accuracy": float(right[here].mean()),
        "whole_sentences": float((right | ~here).all(axis=1).mean()),
        "macro_f1": float(
            sklearn.f1_score(truth[here], said[here], average="macro", zero_division=0)
        ),
    }
    if all(_CHUNK.fullmatch(name) for name in classes) and "O" in classes:
        seqeval = importlib.import_module("seqeval.metrics")
        lines = [
            [[classes[i] for i in row[on]] for row, on in zip(array, here, strict=True)]
            for array in (truth, said)
        ]
        for name in ("precision", "recall", "f1"):
            score = getattr(seqeval, f"{name}_score")(*lines, zero_division=0)
            found[f"entity_{name}"] = float(score)
    return found
