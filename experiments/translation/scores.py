"""BLEU and chrF of several systems on one test set: intervals, paired differences.

Counts and scores are sacrebleu's (Post 2018); the resampling is the house's, so that a
difference of two systems has an interval too (Koehn 2004).
"""

# S seeds, N sentences, K counts a sentence, R draws

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from fmjax.metrics import bootstrap

METRICS = {"bleu": BLEU, "chrf": CHRF}


def compare(
    systems: Mapping[str, Sequence[Sequence[str]]],
    references: Sequence[str],
    against: Sequence[tuple[str, str]] = (),
    *,
    draws: int = 1000,
) -> dict[str, Any]:
    """Corpus scores (0 to 100) with 95 % percentile bootstrap intervals over sentences.

    systems: name -> texts [S, N], a row a training seed. Each seed's texts are scored
    as a corpus and the mean over seeds is taken, within a draw too. Returns systems
    {name: {bleu, chrf}}, whose scores have `by_seed` (`bootstrap.spread`) beside the
    interval, differences {'a - b': {bleu, chrf}} of the pairs `against`, and
    signatures, which say how sacrebleu counted. Raises ValueError for unlike numbers of
    texts.
    """
    for name, seeds in systems.items():
        wrong = [len(texts) for texts in seeds if len(texts) != len(references)]
        if wrong or not seeds:
            raise ValueError(f"{len(references)} references, but {name!r} has {wrong}")
    found: dict[str, Any] = {
        "systems": {name: {} for name in systems},
        "differences": {f"{a} - {b}": {} for a, b in against},
        "signatures": {},
    }
    for kind, make in METRICS.items():
        metric = make()
        counts = {
            name: np.stack([count(metric, texts, references) for texts in seeds])
            for name, seeds in systems.items()
        }

        def score(weights: np.ndarray, *own: np.ndarray, metric=metric) -> np.ndarray:
            first, *rest = (mean(metric, weights, one) for one in own)
            return first - rest[0] if rest else first

        options: dict[str, Any] = {"seed": 0, "draws": draws, "statistic": score}
        flat = {name: np.concatenate(list(one)) for name, one in counts.items()}
        alone = np.ones((1, len(references)))
        for name, one in counts.items():
            found["systems"][name][kind] = bootstrap.interval(flat[name], **options)
            each = [corpus(metric, alone, own)[0] for own in one]
            found["systems"][name][kind]["by_seed"] = bootstrap.spread(each)
        for a, b in against:
            pair = bootstrap.interval(flat[a], flat[b], **options)
            found["differences"][f"{a} - {b}"][kind] = pair
        found["signatures"][kind] = str(metric.get_signature())
    return found


def count(
    metric: Any, hypotheses: Sequence[str], references: Sequence[str]
) -> np.ndarray:
    """[K, N]: what sacrebleu counts in each sentence."""
    rows = metric._extract_corpus_statistics(list(hypotheses), [list(references)])
    return np.array(rows, np.float64).T


def corpus(metric: Any, weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """[R]: the corpus score where sentence i was drawn weights[:, i] times."""
    totals = (weights @ counts.T).astype(np.int64).tolist()
    scores = [metric._compute_score_from_stats(row).score for row in totals]
    return np.array(scores)


def mean(metric: Any, weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """[R]: `corpus` of each seed's counts, which are one on another [S * K, N]."""
    kinds = len(count(metric, [""], [""]))
    seeds = counts.reshape(-1, kinds, counts.shape[-1])
    return np.mean([corpus(metric, weights, one) for one in seeds], axis=0)
