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
