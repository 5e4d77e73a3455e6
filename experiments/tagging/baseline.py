"""The tagger that any other must beat: each word's most frequent tag.

A word that training lacks has the tag that words of its ending mostly have there: the
longest known ending decides, up to five letters (Brants 2000, section 2.3, without its
smoothing). Capitals, digits and hyphens are part of a word's form.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from typing import NamedTuple

LONGEST = 5  # letters of an ending
RARE = 10  # endings are learnt from words seen no oftener, which unknown words resemble


class Tagger(NamedTuple):
    words: dict[str, int]
    endings: dict[str, int]


def fit(sentences: Iterable[tuple[Sequence[str], Sequence[int]]]) -> Tagger:
    """From sentences of words and their tags (numbers). Ties go to the lower number."""
    counts: dict[str, collections.Counter[int]] = {}
    for words, tags in sentences:
        for word, tag in zip(words, tags, strict=True):
            counts.setdefault(word, collections.Counter())[tag] += 1
    if not counts:
        raise ValueError("a tagger needs one tagged word at least")
    rare = {w: c for w, c in counts.items() if c.total() <= RARE} or counts
    endings: dict[str, collections.Counter[int]] = {}
    for word, found in rare.items():
        for ending in _endings(word):
            endings.setdefault(ending, collections.Counter()).update(found)
    return Tagger(
        {word: _most(found) for word, found in counts.items()},
        {ending: _most(found) for ending, found in endings.items()},
    )


def tags(tagger: Tagger, words: Sequence[str]) -> list[int]:
    """A tag's number for each word."""
    return [
        tagger.words[word]
        if word in tagger.words
        else next(tagger.endings[e] for e in _endings(word) if e in tagger.endings)
        for word in words
    ]


def _most(counts: collections.Counter[int]) -> int:
    return min(counts, key=lambda tag: (-counts[tag], tag))


def _endings(word: str) -> list[str]:
    """A word's endings with its form, the longest first, and at last nothing at all."""
    form = "0" if any(c.isdigit() for c in word) else "A" if word[0].isupper() else "a"
    form += "-" if "-" in word[1:-1] else ""
    low = word.lower()
    longest = min(LONGEST, len(word))
    return [f"{form} {low[len(low) - n :]}" for n in range(longest, -1, -1)] + [""]
