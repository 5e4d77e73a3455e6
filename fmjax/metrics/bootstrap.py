"""How far would a number move on another test set? Percentile bootstrap over examples.

Efron & Tibshirani 1993, chapter 13. R draws, S seeds, N examples. A draw of N examples
with replacement is a row of multinomial counts, so that a statistic of many draws is a
matrix product of counts and values.

The intervals answer for the choice of test examples, given the trained networks. What
another training seed would have done is the spread, which is reported beside them.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

CHUNK = 2**20  # counts held at once: 8 MB each for the picks and the float64 weights

Statistic = Callable[..., np.ndarray]


def mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The weighted mean. weights: [R, N]; values: [N] or [S, N], averaged over S."""
    return weights @ np.atleast_2d(values).mean(axis=0) / weights.sum(axis=1)


def f1(classes: int, positive: int | None = None) -> Statistic:
    """F1 as a statistic of (labels [N], predictions [N] or [S, N], averaged over S).

    The macro mean over all classes, or the F1 of the `positive` class alone; 0 where a
    class is neither present nor predicted, as in `classification.compute`.
    """
    chosen = range(classes) if positive is None else [positive]

    def statistic(
        weights: np.ndarray, labels: np.ndarray, predictions: np.ndarray
    ) -> np.ndarray:
        scores = []
        for predicted in np.atleast_2d(predictions):
            for index in chosen:
                truth, guess = labels == index, predicted == index
                columns = np.stack([truth & guess, truth, guess], axis=1)
                hits, real, said = (weights @ columns.astype(np.float64)).T
                scores.append(2 * hits / np.maximum(real + said, 1))
        return np.mean(scores, axis=0)

    return statistic


def interval(
    *arrays: ArrayLike,
    seed: int,
    statistic: Statistic = mean,
    draws: int = 10_000,
    level: float = 0.95,
) -> dict[str, Any]:
    """Percentile bootstrap interval of a statistic of paired arrays.

    arrays: each [N] or [S, N], resampled together along the last axis; seed: the same
    seed gives the same interval; statistic(weights [R, N], *arrays) -> [R], weights
    being how often each example was drawn. Default: the mean of one array, so that the
    interval of an accuracy is `interval(correct, seed=0)`.

    Returns value (the statistic of the sample itself), low, high, error (the standard
    deviation over draws), level, draws, examples.
    Raises ValueError for empty, unequal or non-finite arrays, and for a statistic that
    is undefined on some draw.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1 (0.95), not {level}")
    if draws < 2:
        raise ValueError(f"draws must be at least 2 (10,000 is usual), not {draws}")
    paired = _paired(arrays)
    examples = paired[0].shape[-1]
    sample = statistic(np.ones((1, examples)), *paired)
    values = _draw(paired, statistic, seed, draws)
    undefined = int((~np.isfinite(values)).sum())
    if undefined or not np.isfinite(sample).all():
        raise ValueError(
            f"the statistic is not finite on {undefined} of {draws} draws: give it a "
            "value there (0 / 0 as 0), or the interval means nothing"
        )
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return {
        "value": float(sample[0]),
        "low": float(low),
        "high": float(high),
        "error": float(values.std(ddof=1)),
        "level": level,
        "draws": draws,
        "examples": examples,
    }


def paired_difference(
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    *,
    seed: int,
    draws: int = 10_000,
    level: float = 0.95,
) -> dict[str, Any]:
    """Interval of mean(a) - mean(b), both measured on the same examples.

    correct_a, correct_b: [N], or [S, N] with one row a training seed (the arms may have
    unlike S); 0 / 1 or any per-example score. Examples are resampled, both arms alike;
    within a draw each arm is the average over its seeds.

    Returns what `interval` returns, and a, b (see `spread`) and seed_error, the
    standard error of the difference due to the training seeds alone, sqrt(s_a^2 / S_a +
    s_b^2 / S_b), None if an arm has one seed.
    Raises ValueError as `interval` does.
    """
    a, b = (np.atleast_2d(array) for array in _paired((correct_a, correct_b)))
    arms = [spread(arm.mean(axis=1)) for arm in (a, b)]
    parts = [
        None if arm["std"] is None else arm["std"] ** 2 / len(arm["seeds"])
        for arm in arms
    ]
    known = [part for part in parts if part is not None]
    # The mean over examples and the mean over seeds commute, so one difference an
    # example carries all that the resampling needs.
    difference = a.mean(axis=0) - b.mean(axis=0)
    return interval(difference, seed=seed, draws=draws, level=level) | {
        "a": arms[0],
        "b": arms[1],
        "seed_error": math.sqrt(sum(known)) if len(known) == 2 else None,
    }


def spread(values: ArrayLike) -> dict[str, Any]:
    """Mean and sample standard deviation (S - 1) over training seeds.

    values: [S], one number a seed. Returns mean, std (None for a single seed), seeds.
    Raises ValueError if values are empty, not one-dimensional or not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ValueError(f"spread wants finite numbers [seeds], got {array!r}")
    return {
        "mean": float(array.mean()),
        "std": float(array.std(ddof=1)) if len(array) > 1 else None,
        "seeds": array.tolist(),
    }


def _draw(
    arrays: list[np.ndarray], statistic: Statistic, seed: int, draws: int
) -> np.ndarray:
    """The statistic of `draws` resamples, [R]."""
    examples = arrays[0].shape[-1]
    random = np.random.default_rng(seed)
    rows = max(1, CHUNK // examples)
    parts = []
    for start in range(0, draws, rows):
        count = min(rows, draws - start)
        picks = random.integers(examples, size=(count, examples))
        # Each row counts in its own range: one bincount for the chunk, many times
        # faster than Generator.multinomial and of the same distribution.
        picks += np.arange(count)[:, None] * examples
        counts = np.bincount(picks.ravel(), minlength=count * examples)
        parts.append(statistic(counts.reshape(count, -1).astype(np.float64), *arrays))
    return np.concatenate(parts)


def _paired(arrays: tuple[ArrayLike, ...]) -> list[np.ndarray]:
    result = [np.asarray(array) for array in arrays]
    shapes = [array.shape for array in result]
    if not result or any(array.ndim not in (1, 2) for array in result):
        raise ValueError(f"bootstrap wants arrays [N] or [seeds, N], got {shapes}")
    if len({shape[-1] for shape in shapes}) > 1:
        raise ValueError(
            f"paired arrays must share their examples; shapes are {shapes}"
        )
    if any(array.size == 0 for array in result):
        raise ValueError("bootstrap wants at least one example and one seed")
    if not all(np.isfinite(array).all() for array in result):
        raise ValueError("bootstrap wants finite numbers; NaN or infinity found")
    return result
