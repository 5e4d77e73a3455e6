"""Segmentation: overlap of predicted and true regions, over a whole set's pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def compute(
    *, confusion: ArrayLike, classes: Sequence[str] | int | None = None
) -> dict[str, Any]:
    """Numbers from confusion matrices, as plain Python values.

    confusion: whole numbers [K, K], or [N, K, K] to be added up: pixels by true class
    (rows) and predicted class (columns). classes: the K names, or K.

    Returns pixels; accuracy; miou, the mean over classes of intersection over union
    (Jaccard); dice, the mean of 2 intersection / (true + predicted), which is F1; both
    over classes that are there or predicted; frequency_weighted_iou; per_class, a list
    of dicts with class, pixels, iou and dice, None for a class neither there nor
    predicted; confusion [K][K].
    Raises ValueError for another shape, negative numbers, no pixels, or names that are
    not K.
    """
    matrix = np.asarray(confusion)
    matrix = matrix.sum(0) if matrix.ndim == 3 else matrix
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"confusion is {np.shape(confusion)}, not [K, K] or [N, K, K]")
    if (matrix < 0).any() or matrix.sum() <= 0:
        raise ValueError("confusion has negative numbers, or no pixels at all")
    size = len(matrix)
    names = _names(classes, size)
    matrix = matrix.astype(np.float64)
    both, true, said = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    seen = true + said > 0
    nan = np.full(size, np.nan)
    iou = np.divide(both, true + said - both, out=nan.copy(), where=seen)
    dice = np.divide(2 * both, true + said, out=nan.copy(), where=seen)
    plain = lambda x: None if np.isnan(x) else float(x)  # noqa: E731
    return {
        "pixels": int(matrix.sum()),
        "accuracy": float(both.sum() / matrix.sum()),
        "miou": float(np.nanmean(iou)),
        "dice": float(np.nanmean(dice)),
        "frequency_weighted_iou": float((true[seen] * iou[seen]).sum() / true.sum()),
        "per_class": [
            {
                "class": name,
                "pixels": int(true[i]),
                "iou": plain(iou[i]),
                "dice": plain(dice[i]),
            }
            for i, name in enumerate(names)
        ],
        "confusion": matrix.astype(int).tolist(),
    }


def _names(classes: Sequence[str] | int | None, size: int) -> list[str]:
    if classes is None or (not isinstance(classes, int) and not len(classes)):
        classes = size
    names = [str(i) for i in range(classes)] if isinstance(classes, int) else classes
    if len(names) != size:
        raise ValueError(f"{len(names)} classes, but confusion is {size} x {size}")
    return [str(name) for name in names]
