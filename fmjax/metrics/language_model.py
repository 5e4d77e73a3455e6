"""How surprised a language model is: perplexity, and bits a character."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def compute(
    *, nll: ArrayLike, predicted: ArrayLike, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Numbers from the summed cross-entropies of all windows of a text.

    nll: float [N], nats, a window each; predicted: float [N], tokens predicted in each;
    facts: a source's, of which `tokens`, `words` and `characters` of the whole text
    are used.

    Returns tokens; nll, nats a token; perplexity, e to that; and, where all tokens of
    the text but its first were predicted, words, word_perplexity (the whole text's nats
    over its words, so that models with unlike tokens can be compared) and
    bits_per_character.
    Raises ValueError for an empty text, unlike lengths and numbers that are not finite.
    """
    nats, tokens = np.asarray(nll, np.float64), np.asarray(predicted, np.float64)
    if nats.shape != tokens.shape or nats.ndim != 1:
        raise ValueError(
            f"nll is {nats.shape}, predicted {tokens.shape}: want [N] each"
        )
    if not np.isfinite(nats).all():
        raise ValueError(
            f"{int((~np.isfinite(nats)).sum())} windows' nll is not finite"
        )
    total, count = float(nats.sum()), float(tokens.sum())
    if count < 1:
        raise ValueError("no token was predicted: the text is empty")
    found: dict[str, Any] = {
        "tokens": int(count),
        "nll": total / count,
        "perplexity": _exp(total / count),
    }
    if facts and facts.get("tokens") == int(count) + 1:
        found["words"] = facts["words"]
        found["word_perplexity"] = _exp(total / facts["words"])
        found["bits_per_character"] = total / math.log(2) / facts["characters"]
    return found


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
