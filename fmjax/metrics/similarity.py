"""Do cosines order pairs as people do? (Reimers & Gurevych 2019, section 4.1)"""

import importlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def compute(*, cosine: ArrayLike, score: ArrayLike) -> dict[str, Any]:
    """Rank and linear correlation of two lists of numbers [N].

    Returns count, spearman (ties share their mean rank) and pearson, by scipy.
    Raises ValueError for fewer than two pairs, unlike lengths, numbers that are not
    finite and for a constant list, which has no correlation.
    """
    said, wanted = np.asarray(cosine, np.float64), np.asarray(score, np.float64)
    if said.shape != wanted.shape or said.ndim != 1 or len(said) < 2:
        raise ValueError(f"cosine {said.shape} and score {wanted.shape}: want [N >= 2]")
    for name, values in (("cosine", said), ("score", wanted)):
        if not np.isfinite(values).all() or np.ptp(values) == 0:
            raise ValueError(f"{name} is constant or not finite: no correlation")
    stats = importlib.import_module("scipy.stats")
    return {
        "count": len(said),
        "spearman": float(stats.spearmanr(said, wanted).statistic),
        "pearson": float(stats.pearsonr(said, wanted).statistic),
    }


def spearman(weights: np.ndarray, said: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The rank correlation as a statistic for `bootstrap.interval`: [R].

    weights: [R, N], how often each pair was drawn; said, wanted: [N]. Ranks are those
    in the draw, where a pair drawn twice is tied with itself; 0 where a list is
    constant there.
    """
    x, y = _ranks(weights, said), _ranks(weights, wanted)
    total = weights.sum(axis=1, keepdims=True)
    x, y = (r - (weights * r).sum(axis=1, keepdims=True) / total for r in (x, y))
    spread = np.sqrt((weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1))
    both = (weights * x * y).sum(axis=1)
    return np.divide(both, spread, out=np.zeros_like(both), where=spread > 0)


def _ranks(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Each value's mean rank in each draw [R, N], less a constant."""
    _, group = np.unique(values, return_inverse=True)
    counts = np.zeros((len(weights), group.max() + 1))
    np.add.at(counts.T, group, weights.T)
    return (np.cumsum(counts, axis=1) - counts / 2)[:, group]
