"""A corpus as one long line of tokens, cut into windows: text to pre-train on.

GPT reads windows that overlap by one token, so that each token of the line is predicted
once; T5 takes windows without overlap and corrupts them.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from fmjax.data import cache, source
from fmjax.data.source import Row, Source
from fmjax.data.tokenizer import fingerprint, role

_RECIPE = 1  # counts up when the same corpus would be cut differently
_CHUNK = 1000  # documents that are tokenized at once


def load(
    split: str,
    *,
    corpus: Mapping[str, Any],
    tokenizer: Tokenizer,
    length: int = 128,
    overlap: int = 1,
    separator: bool = True,
) -> Source:
    """Rows of `tokens` int32 [length + overlap] and `length`, the real ones of them.

    corpus: {'name': a source with `text` rows, and its fields}; a row is a document.
        Where rows have `document`, neighbours of the same number are one document,
        joined by spaces.
    overlap: tokens that a window shares with the next one.
    separator: with the tokenizer's document token before the first document and after
        each; without, one document follows the other.

    The line of tokens is kept in home()/windows. The last window is padded with zeros.
    Facts: documents, tokens, words (between white space) and characters of the split.
    Raises ValueError where the corpus has no text.
    """
    if length < 2 or not 0 <= overlap < length:
        raise ValueError(
            f"length={length}, overlap={overlap}: need a length of 2 or more and an "
            "overlap from 0 to less than it"
        )
    found = source.read(corpus, split)
    key = cache.digest(
        *("windows", _RECIPE, found.facts["fingerprint"], split),
        *(fingerprint(tokenizer), separator),
    )
    target = cache.once(
        cache.home() / "windows" / key[:24],
        functools.partial(_tokenize, found.rows, tokenizer, separator),
    )
    line = np.load(target / "tokens.npy", mmap_mode="r")
    facts = {
        "corpus": found.facts,
        "length": length,
        **json.loads((target / "facts.json").read_text()),
        "fingerprint": cache.digest(key, length, overlap),
    }
    rows = Windows(line, length, overlap)
    return Source(rows, (), facts | {"windows": len(rows)})


@dataclass(frozen=True)
class Windows:
    """Windows of a line of tokens on disk: rows without reading the rest."""

    line: np.ndarray  # int32 [N]
    length: int
    overlap: int

    def __len__(self) -> int:
        return max(-(-(len(self.line) - self.overlap) // self.length), 1)

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self):,}")
        start = index * self.length
        found = np.asarray(self.line[start : start + self.length + self.overlap])
        tokens = np.zeros(self.length + self.overlap, np.int32)
        tokens[: len(found)] = found
        return {"tokens": tokens, "length": len(found), "id": index}


def documents(rows: Any) -> Iterator[str]:
    """The texts of the documents. Raises ValueError where a row has no `text`."""
    number, held = None, list[str]()
    for i in range(len(rows)):
        row = rows[i]
        if "text" not in row:
            raise ValueError(f"the corpus has no text field, only {', '.join(row)}")
        own = row.get("document")
        if held and (own is None or own != number):
            yield " ".join(held)
            held = []
        number = own
        if row["text"].strip():
            held.append(row["text"])
    if held:
        yield " ".join(held)


def _tokenize(rows: Any, tokenizer: Tokenizer, separator: bool, target: Path) -> None:
    between = [role(tokenizer, "document")] if separator else []
    pieces, counts = [np.asarray(between, np.int32)], np.zeros(3, np.int64)
    held: list[str] = []

    def flush() -> None:
        for text, found in zip(
            held,
            tokenizer.encode_batch_fast(held, add_special_tokens=False),
            strict=True,
        ):
            pieces.append(np.asarray([*found.ids, *between], np.int32))
            counts[:] += (1, len(text.split()), len(text))
        held.clear()

    for text in documents(rows):
        held.append(text)
        if len(held) == _CHUNK:
            flush()
    flush()
    line = np.concatenate(pieces)
    if len(line) < 2:
        raise ValueError("the corpus has no text in this split")
    target.mkdir()
    np.save(target / "tokens.npy", line, allow_pickle=False)
    names = ("documents", "words", "characters")
    facts = dict(zip(names, counts.tolist(), strict=True))
    (target / "facts.json").write_text(json.dumps(facts | {"tokens": len(line)}))
