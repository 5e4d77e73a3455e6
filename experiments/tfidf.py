"""The model that any other must beat: TF-IDF and logistic regression."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from fmjax import config

STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


def fit(
    train: tuple[Sequence[str], Sequence[int]],
    validation: tuple[Sequence[str], Sequence[int]],
    test: Sequence[str],
    *,
    classes: int,
    strengths: Sequence[float] = STRENGTHS,
    texts: int = 1,
) -> tuple[np.ndarray, float]:
    """(probabilities [N, C] of the test texts, the inverse regularisation strength).

    Words and word pairs that are in so many `texts` of training at least, sublinear
    term frequency. The strength is the best of `strengths` by validation accuracy; the
    test texts are only predicted. classes: C; one that training lacks is never said.
    """
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=texts)
    known, held = vectors.fit_transform(train[0]), vectors.transform(validation[0])
    best: tuple[float, float, Any] | None = None
    for strength in strengths:
        model = LogisticRegression(C=strength, max_iter=1000).fit(known, train[1])
        score = model.score(held, validation[1])
        if best is None or score > best[0]:
            best = (score, strength, model)
    assert best is not None
    found = np.zeros((len(test), classes))
    found[:, best[2].classes_] = best[2].predict_proba(vectors.transform(test))
    return found, best[1]


def of(
    spec: Mapping[str, Any], kept: pathlib.Path, **options: Any
) -> tuple[np.ndarray, float]:
    """What `fit` returns for a config's `data`, computed once and kept in a file.

    A pair of texts is one text, `text` before `text2`. options: of `fit`.
    """
    if not kept.exists():
        texts, load = {}, config.part("data", spec)
        for split in ("train", "validation", "test"):
            data = load(split).rows
            rows = [data[i] for i in range(len(data))]
            whole = [" ".join([r["text"], r.get("text2") or ""]).strip() for r in rows]
            texts[split] = (whole, [r["label"] for r in rows])
        options["classes"] = len(load("train").classes)
        parts = (texts["train"], texts["validation"], texts["test"][0])
        found, best = fit(*parts, **options)
        kept.parent.mkdir(parents=True, exist_ok=True)
        writing = kept.with_name(f"writing-{kept.name}")
        with open(writing, "wb") as file:
            np.savez(file, probabilities=found, strength=np.float64(best))
        writing.replace(kept)
    with np.load(kept) as arrays:
        return arrays["probabilities"], float(arrays["strength"])
