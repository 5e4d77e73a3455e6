"""The classes of the nearest training examples, on frozen features."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fmjax.metrics.zero_shot import normalised


def compute(
    *,
    features: ArrayLike,
    labels: ArrayLike,
    train_features: ArrayLike,
    train_labels: ArrayLike,
    k: int = 20,
    temperature: float | None = 0.07,
) -> dict[str, Any]:
    """Accuracy of a vote by the k training examples of the greatest cosine.

    features [N, F] and labels [N] of what is tested; train_features [M, F] and
    train_labels [M] of what votes. A vote weighs exp(cosine / temperature) (Wu et al.
    2018, section 3.4), or 1 where temperature is None; of equal classes the first wins.
    k is at most M.

    Returns count, train_count, k, accuracy and top5_accuracy (where there are more than
    five classes). Raises ValueError where shapes do not fit or a feature has no length.
    """
    train, test = (
        normalised(train_features, "train_features"),
        normalised(features, "features"),
    )
    votes = np.asarray(train_labels)
    truth = np.asarray(labels)
    check(test, truth, train, votes)
    if k < 1:
        raise ValueError(f"k={k} neighbours: 1 or more")
    k = min(k, len(train))
    number = int(max(votes.max(), truth.max())) + 1
    first, among = 0, 0
    for start in range(0, len(test), 1024):  # so much of the N x M matrix at once
        rows = slice(start, start + 1024)
        scores = test[rows] @ train.T
        near = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        weight = np.take_along_axis(scores, near, axis=1)
        weight = np.ones_like(weight) if temperature is None else weight / temperature
        if temperature is not None:
            weight = np.exp(weight - weight.max(1, keepdims=True))
        total = np.zeros((len(near), number))
        np.add.at(total, (np.arange(len(near))[:, None], votes[near]), weight)
        order = np.argsort(-total, axis=1, kind="stable")
        hits = order == truth[rows][:, None]
        first += int(hits[:, 0].sum())
        among += int(
            (hits[:, :5] & (np.take_along_axis(total, order, 1)[:, :5] > 0)).sum()
        )
    result: dict[str, Any] = {"count": len(test), "train_count": len(train), "k": k}
    result["accuracy"] = first / len(test)
    return result | ({"top5_accuracy": among / len(test)} if number > 5 else {})


def check(
    features: np.ndarray, labels: np.ndarray, train: np.ndarray, votes: np.ndarray
) -> None:
    """Raises ValueError where two sets of features and labels do not fit together."""
    for name, x, y in (("test", features, labels), ("train", train, votes)):
        if x.ndim != 2 or y.shape != x.shape[:1] or not len(x):
            raise ValueError(
                f"{name} features are {x.shape} and labels {y.shape}: want [N, F], [N]"
            )
        if y.dtype.kind not in "iu" or y.min() < 0:
            raise ValueError(f"{name} labels must be whole numbers from 0")
    if features.shape[1] != train.shape[1]:
        raise ValueError(f"features are {features.shape}, training's {train.shape}")
