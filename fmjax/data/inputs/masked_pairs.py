"""Masked-LM and next-sentence inputs (Devlin et al. 2018, sec. 3.1 and A.1)."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from fmjax.data.source import Row
from fmjax.data.tokenizer import role


def make(
    *, tokenizer: Tokenizer, predictions: int = 20, rate: float = 0.15
) -> Callable[[Row, np.random.Generator | None], dict[str, Any]]:
    """Mask rows of `sources/sentence_pairs`.

    rate: the share of a window's tokens to predict, specials counted in, as in the
        published code; never [CLS], [SEP] or [PAD] themselves.
    predictions: P, the most in one window; one at least is asked for.
    Of the chosen, 80 % become [MASK], 10 % a random token that is no special (the
    published code draws from the whole vocabulary), 10 % stay: each for itself.

    Returns, with T tokens: inputs {tokens, types int32 [T], mask bool [T] (True =
    real), positions int32 [P]}, targets int32 [P], weights float32 [P] (0 where there
    is no prediction; positions and targets are 0 there), next int32 (0 = B follows A).
    Without a generator (evaluation) the choice follows from the window's tokens alone.
    """
    if predictions < 1 or not 0 < rate <= 1:
        raise ValueError(
            f"predictions={predictions}, rate={rate}: need predictions of 1 or more "
            "and a rate in (0, 1]"
        )
    mask_id = role(tokenizer, "mask")
    plain = np.ones(tokenizer.get_vocab_size(), bool)
    specials = ("pad", "unknown", "cls", "sep", "mask")
    plain[[role(tokenizer, name) for name in specials]] = False
    unknown = role(tokenizer, "unknown")
    ordinary = np.flatnonzero(plain).astype(np.int32)
    if not len(ordinary):
        raise ValueError("the vocabulary has nothing but special tokens")
    plain[unknown] = True  # a word like any other, as a target

    def inputs(row: Row, rng: np.random.Generator | None) -> dict[str, Any]:
        tokens, length = row["tokens"], row["length"]
        if rng is None:
            seed = hashlib.blake2b(tokens.tobytes(), digest_size=8).digest()
            rng = np.random.default_rng(int.from_bytes(seed, "big"))
        candidates = plain[tokens[:length]].nonzero()[0]
        count = min(predictions, max(1, round(length * rate)), len(candidates))
        # The smallest of independent uniform numbers are a uniform choice.
        draws = rng.random(len(candidates) + 2 * count)
        keys = draws[: len(candidates)]
        where = candidates[np.sort(keys.argsort()[:count])]
        action = draws[len(candidates) : len(candidates) + count]
        pick = (draws[len(candidates) + count :] * len(ordinary)).astype(np.int64)
        original = tokens[where]
        changed = tokens.copy()
        changed[where] = np.where(
            action < 0.8, mask_id, np.where(action < 0.9, ordinary[pick], original)
        )
        positions = np.zeros(predictions, np.int32)
        targets = np.zeros(predictions, np.int32)
        weights = np.zeros(predictions, np.float32)
        positions[:count], targets[:count], weights[:count] = where, original, 1
        mask = np.zeros(len(tokens), bool)
        mask[:length] = True
        return {
            "inputs": {
                "tokens": changed,
                "types": row["types"],
                "mask": mask,
                "positions": positions,
            },
            "targets": targets,
            "weights": weights,
            "next": np.int32(row["next"]),
        }

    return inputs
