"""Colours and small pixels of images, by ridge regression to the words of their names.

The penalty is chosen by leave-one-out on the training pairs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fmjax.data.images.resize import resize

PENALTIES = (10.0, 100.0, 1e3, 1e4, 1e5)


def _images(rows: Any) -> np.ndarray:
    return np.stack([rows[i]["image"] for i in range(len(rows))])


def histograms(rows: Any, bins: int = 6) -> np.ndarray:
    """The share of an image's pixels in each cell of a grid of colours, [N, bins^3]."""
    cells = _images(rows).astype(int) * bins // 256
    flat = (cells * [bins**2, bins, 1]).sum(-1).reshape(len(cells), -1)
    counted = np.stack([np.bincount(one, minlength=bins**3) for one in flat])
    return np.sqrt(counted / flat.shape[1])  # roots, that rare colours count too


def pixels(rows: Any, side: int = 16) -> np.ndarray:
    """Images made small, [N, side * side * 3], 0 to 1."""
    images = _images(rows)
    small = [resize(image, (side, side), "bilinear") for image in images]
    return np.stack(small).reshape(len(images), -1) / 255


FEATURES = {"colour histogram": histograms, "16 x 16 pixels": pixels}


class Words:
    """TF-IDF vectors of texts over the words of some."""

    def __init__(self, texts: Sequence[str]):
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.counted = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True)
        self.counted.fit(texts)

    def of(self, texts: Sequence[str]) -> np.ndarray:
        """[N, words]; with a small constant, so that strange words have a length."""
        found = self.counted.transform(texts).toarray()
        return np.concatenate([found, np.full((len(found), 1), 1e-3)], axis=1)


def ridge(
    x: np.ndarray, words: np.ndarray, tested: np.ndarray
) -> tuple[np.ndarray, float]:
    """(predicted word vectors of `tested`, the penalty that leave-one-out chose)."""
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x)
    model = RidgeCV(PENALTIES).fit(scaler.transform(x), words)
    return model.predict(scaler.transform(tested)), float(model.alpha_)


def supervised(x: np.ndarray, labels: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Categories [N] by logistic regression that is taught those of training."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=0.1, max_iter=1000).fit(scaler.transform(x), labels)
    predicted: np.ndarray = model.predict(scaler.transform(tested))
    return predicted
