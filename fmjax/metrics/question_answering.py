"""Exact match and F1 of answers, as SQuAD has them (Rajpurkar 2016, section 6)."""

import re
import string
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def compute(
    *,
    first: ArrayLike,
    last: ArrayLike,
    margin: ArrayLike,
    rows: Any,
    threshold: float = 0.0,
) -> dict[str, Any]:
    """Numbers over questions; a question's answer is from its best window.

    That is the one of the greatest margin; the authors of BERT compare spans' scores as
    they are, and spare pieces that another window shows with more text around them.

    first, last: integers [N], the best span's pieces in each window; margin: float [N],
    its score less that of no answer; rows: N rows of `sources/question_windows`.
    threshold: where no window's margin is above it, and some question of the set has no
    answer (SQuAD 2.0), the answer is 'none'.

    Returns questions, exact_match and f1 (0 to 1; the best over a question's answers)
    and, where some questions have no answer, the share of them that were seen as such.
    Raises ValueError where the arrays and rows are not of one length.
    """
    starts, ends = np.asarray(first), np.asarray(last)
    margins = np.asarray(margin, np.float64)
    if not len(starts) == len(ends) == len(margins) == len(rows) > 0:
        raise ValueError(
            f"first {starts.shape}, last {ends.shape}, margin {margins.shape} and "
            f"{len(rows)} rows must be as many, one at least"
        )
    best: dict[int, int] = {}
    found = [rows[i] for i in range(len(rows))]
    for i, row in enumerate(found):
        held = best.get(row["question"])
        if held is None or margins[i] > margins[held]:
            best[row["question"]] = i
    some_without = any(not row["answers"] for row in found)
    exact, f1, unanswered = [], [], []
    for i in best.values():
        row = found[i]
        said = ""
        if margins[i] > threshold or not some_without:
            a, b = row["offsets"][starts[i]][0], row["offsets"][ends[i]][1]
            said = row["context"][a:b]
        wanted = row["answers"] or [""]
        exact.append(max(normal(said) == normal(answer) for answer in wanted))
        f1.append(max(overlap(said, answer) for answer in wanted))
        if not row["answers"]:
            unanswered.append(said == "")
    result: dict[str, Any] = {
        "questions": len(best),
        "exact_match": float(np.mean(exact)),
        "f1": float(np.mean(f1)),
    }
    if unanswered:
        result["seen_as_without_answer"] = float(np.mean(unanswered))
    return result


def normal(text: str) -> str:
    """Lower case, without punctuation, articles and needless white space."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def overlap(said: str, wanted: str) -> float:
    """F1 of the words of two answers; two empty ones are equal."""
    a, b = normal(said).split(), normal(wanted).split()
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))
