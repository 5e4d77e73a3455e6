"""Translation word by word, with neither order nor context: IBM Model 1.

Brown et al. 1993, "The mathematics of statistical machine translation", section 4.2.
"""

# P pairs of words that meet in a sentence, L links: places where they do

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

NOTHING = ""  # the source word of target words that no other one explains


def words(text: str) -> list[str]:
    """Words and punctuation marks, as they are written."""
    return re.findall(r"\w+|[^\w\s]", text)


def learn(pairs: Iterable[tuple[str, str]], rounds: int = 5) -> dict[str, str]:
    """{source word: the target word f with the highest t(f | e)} from aligned texts.

    `rounds` of expectation maximisation from equal probabilities. Raises ValueError
    where no pair has words on both sides.
    """
    known: tuple[dict[str, int], dict[str, int]] = ({}, {})
    met, sizes = [], []
    for texts in pairs:
        left, right = (
            np.array([ids.setdefault(word, len(ids)) for word in line], np.int64)
            for ids, line in zip(
                known, ([NOTHING, *words(texts[0])], words(texts[1])), strict=True
            )
        )
        # A target word's links to all words of its sentence stand together.
        met.append(np.tile(left, len(right)) << 32 | np.repeat(right, len(left)))
        sizes.append(np.full(len(right), len(left)))
    if not met or not sum(map(len, met)):
        raise ValueError("no pair of texts has words on both sides")
    pair, link = np.unique(np.concatenate(met), return_inverse=True)
    lengths = np.concatenate(sizes)
    starts = np.cumsum(lengths) - lengths
    source, target = pair >> 32, pair & 0xFFFFFFFF
    chance = np.ones(len(pair))
    for _ in range(rounds):
        share = chance[link]
        share /= np.repeat(np.add.reduceat(share, starts), lengths)
        count = np.bincount(link, share, len(pair))
        chance = count / np.bincount(source, count)[source]
    best = np.zeros(len(known[0]), np.int64)
    order = np.argsort(chance, kind="stable")
    best[source[order]] = target[order]  # the likeliest is written last
    targets = list(known[1])
    return {word: targets[best[i]] for word, i in known[0].items() if word != NOTHING}


def translate(text: str, table: Mapping[str, str]) -> str:
    """Each word by its own translation, in the source's order; unknown ones stay."""
    line = " ".join(table.get(word, word) for word in words(text))
    return re.sub(r"(?<=[¿¡(]) | (?=[^\w\s¿¡(])", "", line)
