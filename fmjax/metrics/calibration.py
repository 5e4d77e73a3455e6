"""Does a stated probability mean what it says? Reliability curve, ECE and Brier score.

N examples, C classes, M bins. Guo et al. 2017, 'On Calibration of Modern Neural
Networks', section 2, for the curve and the error; Brier 1950 for the score.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

BINS = 15  # Guo et al. 2017, section 5
TOLERANCE = 1e-3  # of a row's sum: float32 softmax passes, logits do not


def checked(
    labels: ArrayLike, probabilities: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Labels int64 [N] and probabilities float64 [N, C], rows summing to exactly one.

    labels: integers [N]; probabilities: floats [N, C], which are checked and then
    divided by their row sums, so that rounding to float32 does not reach the metrics.
    Raises ValueError for an empty set, shapes that differ, labels that are no integers
    or outside [0, C), and probabilities that are negative, not finite or do not sum
    to one within TOLERANCE.
    """
    labels = np.asarray(labels)
    scores = np.asarray(probabilities).astype(np.float64)
    if labels.ndim != 1 or scores.ndim != 2:
        raise ValueError(
            "metrics want labels [N] and probabilities [N, C]; "
            f"got {labels.shape} and {scores.shape}"
        )
    if len(labels) != len(scores):
        raise ValueError(
            f"{len(labels)} labels for {len(scores)} rows of probabilities: "
            "they must come from the same examples, padding left out"
        )
    if len(labels) == 0:
        raise ValueError("the set is empty: no metric is defined on 0 examples")
    count = scores.shape[1]
    if count < 2:
        raise ValueError(
            f"probabilities have {count} column(s); give one column for each class "
            "(for a single p use stack([1 - p, p], axis=1))"
        )
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels must be class indices (integers), not {labels.dtype}")
    outside = (labels < 0) | (labels >= count)
    if outside.any():
        first = int(outside.argmax())
        raise ValueError(
            f"label {labels[first]} of example {first} is out of range: "
            f"{count} classes are numbered 0 to {count - 1}"
        )
    finite = np.isfinite(scores).all(axis=1)
    if not finite.all():
        first = int((~finite).argmax())
        raise ValueError(
            f"probabilities of example {first} are not finite: {_row(scores[first])} "
            f"({int((~finite).sum())} such rows); did the training diverge?"
        )
    sums = scores.sum(axis=1)
    wrong = (np.abs(sums - 1) > TOLERANCE) | (scores < 0).any(axis=1)
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(
            f"row {first} is no distribution: {_row(scores[first])} sums to "
            f"{sums[first]:.6g}; apply softmax (in float32) to logits first"
        )
    return labels.astype(np.int64), scores / sums[:, None]


def reliability(
    *, labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS
) -> dict[str, Any]:
    """The reliability curve of the predicted class (Guo et al. 2017, section 2).

    labels: integers [N]; probabilities: floats [N, C]. Confidence is the largest
    probability of a row; bin m holds the confidences in (m / M, (m + 1) / M].
    Returns plain lists: edges [M + 1], counts [M], confidence [M] and accuracy [M]
    (means within the bin, None where it is empty), and ece, the expected calibration
    error: sum over bins of counts / N * |accuracy - confidence| (eq. 5), a fraction.
    Raises ValueError as `checked` does, or if bins < 1.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    truth, scores = checked(labels, probabilities)
    confidence = scores.max(axis=1)
    correct = scores.argmax(axis=1) == truth
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    sums = np.bincount(index, weights=confidence, minlength=bins)
    hits = np.bincount(index, weights=correct, minlength=bins)
    return {
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "confidence": _means(sums, counts),
        "accuracy": _means(hits, counts),
        "ece": float(np.abs(hits - sums).sum() / len(truth)),
    }


def brier(*, labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean over examples of sum over classes (p - onehot)^2: 0 is best, 2 is worst.

    labels: integers [N]; probabilities: floats [N, C]. This is Brier's own form (1950);
    for two classes it is twice the one-column form that some libraries report.
    Raises ValueError as `checked` does.
    """
    truth, scores = checked(labels, probabilities)
    onehot = np.eye(scores.shape[1])[truth]
    return float(((scores - onehot) ** 2).sum(axis=1).mean())


def _means(sums: np.ndarray, counts: np.ndarray) -> list[float | None]:
    return [float(s / c) if c else None for s, c in zip(sums, counts, strict=True)]


def _row(row: np.ndarray) -> str:
    return np.array2string(row, precision=4, threshold=6, edgeitems=3)
