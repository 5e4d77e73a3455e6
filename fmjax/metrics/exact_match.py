"""Written answers against the wanted ones: exact match and F1 of their words."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fmjax.metrics import bootstrap
from fmjax.metrics.question_answering import normal, overlap


def compute(*, hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """Shares of rows (0 to 1), as SQuAD compares (Rajpurkar et al. 2016, section 6).

    Case, punctuation, articles and needless white space don't count.
    Returns rows; exact_match with its 95 % bootstrap interval, value, low and high; f1.
    Raises ValueError for no rows and unlike numbers of them.
    """
    if len(hypotheses) != len(references) or not hypotheses:
        raise ValueError(
            f"{len(hypotheses)} hypotheses and {len(references)} references: need one "
            "of each a row"
        )
    pairs = list(zip(hypotheses, references, strict=True))
    right = np.array([normal(a) == normal(b) for a, b in pairs], float)
    return {
        "rows": len(pairs),
        "exact_match": bootstrap.interval(right, seed=0),
        "f1": float(np.mean([overlap(a, b) for a, b in pairs])),
    }
