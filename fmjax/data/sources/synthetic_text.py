"""Made-up documents that can be learned from, for runs without network or files."""

from dataclasses import dataclass

import numpy as np

from fmjax.data import cache
from fmjax.data.source import SPLITS, Row, Source, check_split

_words = str.split

SUBJECTS = _words("river kite lamp piano tiger bridge garden rocket market island")
VERBS = _words("moves turns waits shines sings grows breaks stands falls opens")
PLACES = _words("home school town hill lake forest station tower valley beach")
_MOODS = [
    _words("bad sad dull cold grim weak"),
    _words("good happy bright warm kind strong"),
    _words("red blue green white brown grey"),
    _words("first second third fourth fifth sixth"),
]


def load(
    split: str, *, size: int = 256, classes: int = 2, length: int = 4, seed: int = 0
) -> Source:
    """Rows of `text` (`length` sentences about one subject), `label`, `id`.

    size: documents of the training split; validation and test have a quarter, one at
    least. The label is the kind of mood word that occurs in every sentence, so it can
    be learned from words; all sentences of a document have one subject and one place,
    so the next sentence can be told from a random one.
    """
    check_split(split)
    if not 2 <= classes <= len(_MOODS) or size < 1 or length < 1:
        raise ValueError(
            f"classes={classes}, size={size}, length={length}: classes is 2 to "
            f"{len(_MOODS)}, size and length are 1 or more"
        )
    number = size if split == "train" else max(size // 4, 1)
    names = tuple(words[0] for words in _MOODS[:classes])
    facts = {
        "name": "synthetic_text",
        "origin": "made by a seeded generator",
        "licence": "none needed",
        "split": split,
        "rows": number,
        "fingerprint": cache.digest(
            "synthetic_text", 1, split, number, classes, length, seed
        ),
    }
    return Source(Documents(split, number, classes, length, seed), names, facts)


@dataclass(frozen=True)
class Documents:
    """Rows of text, each a function of its index."""

    split: str
    size: int
    classes: int
    length: int
    seed: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < self.size:
            raise IndexError(f"row {index} of {self.size:,}")
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        label = int(rng.integers(self.classes))
        subject, place = rng.choice(SUBJECTS), rng.choice(PLACES)
        sentences = []
        for _ in range(self.length):
            mood, verb = rng.choice(_MOODS[label]), rng.choice(VERBS)
            sentences.append(f"The {mood} {subject} {verb} near the {place}.")
        return {"text": " ".join(sentences), "label": label, "id": index}
