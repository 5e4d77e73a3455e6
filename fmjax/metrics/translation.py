"""Translations against references: BLEU and chrF, by sacrebleu."""

import importlib
from collections.abc import Sequence
from typing import Any


def compute(
    *,
    hypotheses: Sequence[str],
    references: Sequence[str],
    draws: int = 1000,
) -> dict[str, Any]:
    """Corpus scores of one reference a sentence, with 95 % bootstrap intervals.

    Returns sentences; bleu and chrf, each a dict with score (0 to 100), mean and
    interval (half the width of the 95 % bootstrap interval over `draws` resampled test
    sets; Koehn 2004) and signature, which says how sacrebleu (Post 2018) counted.
    `draws` 0 leaves the intervals out.
    Raises ValueError for no sentences and unlike numbers of them.
    """
    if len(hypotheses) != len(references) or not hypotheses:
        raise ValueError(
            f"{len(hypotheses)} hypotheses and {len(references)} references: need one "
            "of each a sentence"
        )
    try:
        sacrebleu = importlib.import_module("sacrebleu.metrics")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the translation metric needs sacrebleu: pip install 'fmjax[experiments]'"
        ) from error
    found: dict[str, Any] = {"sentences": len(hypotheses)}
    options = {"n_bootstrap": draws} if draws else {}
    for name, metric in (("bleu", sacrebleu.BLEU()), ("chrf", sacrebleu.CHRF())):
        score = metric.corpus_score(list(hypotheses), [list(references)], **options)
        found[name] = {"score": float(score.score)}
        if draws:
            found[name] |= {"mean": float(score._mean), "interval": float(score._ci)}
        found[name]["signature"] = str(metric.get_signature())
    return found
