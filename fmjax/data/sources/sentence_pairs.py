"""Next-sentence windows of a corpus, packed once (Devlin et al. 2018, 3.1 and A.2).

A document is cut into sentences; consecutive sentences fill a window `[CLS] A [SEP] B
[SEP]`, where half of the time B is what follows A and half of the time it comes from
another document. The packing follows the behaviour of the published
create_pretraining_data; masking is left to `inputs/masked_pairs`, fresh in each epoch.
"""

import functools
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from fmjax.data import cache, source
from fmjax.data.source import Row, Source
from fmjax.data.tokenizer import fingerprint, role

IS_NEXT, IS_RANDOM = 0, 1
CLASSES = ("is next", "random")
_RECIPE = 1  # counts up when the same corpus would pack differently

Document = list[list[int]]  # sentences of token ids


def load(
    split: str,
    *,
    corpus: Mapping[str, Any],
    tokenizer: Tokenizer,
    length: int = 128,
    short_sequences: float = 0.1,
    copies: int = 5,
    seed: int = 0,
) -> Source:
    """Windows of sentence pairs, packed into home()/windows on first use.

    corpus: {'name': a source with `text` rows, and its fields}; a row is a document.
    length: T, tokens of a window with the specials.
    short_sequences: the share of windows with a shorter random target, so that the
        model also meets short inputs (A.2).
    copies: how often the training split is packed, with other cuts and partners each
        time (the published dupe_factor); other splits are packed once.
    Rows: `tokens` int32 [T] padded with [PAD], `types` int32 [T] (0 for [CLS] A [SEP],
    1 for B [SEP]), `next` int (0 = B follows A, 1 = B is random), `length` int.

    Raises ValueError where the corpus has fewer than two documents or no text.
    """
    if length < 8 or copies < 1 or not 0 <= short_sequences <= 1:
        raise ValueError(
            f"length={length}, copies={copies}, short_sequences={short_sequences}: "
            "need length of 8 or more, copies of 1 or more, short_sequences in [0, 1]"
        )
    found = source.read(corpus, split)
    copies = copies if split == "train" else 1
    key = cache.digest(
        *("sentence_pairs", _RECIPE, found.facts["fingerprint"], split),
        *(fingerprint(tokenizer), length, short_sequences, copies, seed),
    )
    packing = _Packing(tokenizer, length, short_sequences, copies, seed)
    target = cache.once(
        cache.home() / "windows" / key[:24],
        functools.partial(_pack, found.rows, packing),
    )
    facts = {
        "corpus": found.facts,
        "length": length,
        "short_sequences": short_sequences,
        "copies": copies,
        **json.loads((target / "facts.json").read_text()),
        "fingerprint": key,
    }
    return Source(Windows.open(target), CLASSES, facts)


@dataclass(frozen=True)
class Windows:
    """Packed windows on disk, mapped into memory: rows without reading the rest."""

    tokens: np.ndarray  # int32 [N, T]
    spans: np.ndarray  # int32 [N, 3]: end of A with its [SEP], length, next

    @classmethod
    def open(cls, path: Path) -> "Windows":
        names = ("tokens", "spans")
        return cls(*(np.load(path / f"{n}.npy", mmap_mode="r") for n in names))

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> Row:
        first, length, next_ = self.spans[index].tolist()
        types = np.zeros(self.tokens.shape[1], np.int32)
        types[first:length] = 1
        tokens = np.array(self.tokens[index])
        return {"tokens": tokens, "types": types, "next": next_, "length": length}


class _Packing(NamedTuple):
    tokenizer: Tokenizer
    length: int
    short_sequences: float
    copies: int
    seed: int


_ABBREVIATIONS = frozenset(
    re.findall(
        r"\S+",
        "mr mrs ms dr prof st sr jr gen col lt sgt capt rev hon gov sen rep no nos vol "
        "vs etc al inc ltd co corp fig figs eq ed eds pp ca cf approx dept est jan feb "
        "mar apr jun jul aug sep sept oct nov dec u.s u.k e.g i.e a.m p.m d.c ph.d",
    )
)
_BREAK = re.compile(
    r"""(?:(?<=[.!?])|(?<=[.!?]['"”’)\]])|(?<=[.!?]'')|(?<=[。！？]))"""
    r"""(?:\s+|(?<=[。！？])(?=\S))(?=['"“‘(\[`]{0,2}[^\s\W_a-z]|['"“‘(\[`]*$)"""
    r"""|\s*\n\s*"""
)


def sentences(text: str) -> list[str]:
    """Cut a text into sentences; only the white space between them is lost.

    A sentence ends at . ! or ? (also before closing quotes), before white space and a
    capital, a digit or an opening quote; at a Chinese full stop; and at a line's end.
    Not after known abbreviations, or single initials as in `J. K. Rowling`.
    """
    pieces: list[str] = []
    start = 0
    for match in _BREAK.finditer(text):
        piece = text[start : match.start()]
        if piece.endswith(".") and "\n" not in match.group():
            word = re.split(r"[\s(\[\"'“‘]", piece[:-1])[-1]
            initial = len(word) == 1 and word.isalpha() and word.isupper()
            if word.lower() in _ABBREVIATIONS or (initial and word != "I"):
                continue
        if piece.strip():
            pieces.append(piece.strip())
        start = match.end()
    if text[start:].strip():
        pieces.append(text[start:].strip())
    return pieces


def _documents(rows: Any, tokenizer: Tokenizer) -> list[Document]:
    texts = []
    for i in range(len(rows)):
        row = rows[i]
        if "text" not in row:
            raise ValueError(f"the corpus has no text field, only {', '.join(row)}")
        texts.append(sentences(row["text"]))
    flat = [sentence for text in texts for sentence in text]
    encoded = tokenizer.encode_batch_fast(flat, add_special_tokens=False)
    ids = iter([encoding.ids for encoding in encoded])
    documents = [[s for s in (next(ids) for _ in text) if s] for text in texts]
    documents = [document for document in documents if document]
    if len(documents) < 2:
        raise ValueError(
            f"the corpus has {len(documents)} documents with text, and a random next "
            "sentence needs two: give more text, or cut it into documents (blank lines "
            "or files, for the `text` source)"
        )
    return documents


def _pack(rows: Any, packing: _Packing, target: Path) -> None:
    documents = _documents(rows, packing.tokenizer)
    windows: list[tuple[list[int], list[int], int]] = []
    for copy in range(packing.copies):
        rng = random.Random(f"{packing.seed}/{copy}")
        balance = _Balance(rng)
        for number in range(len(documents)):
            windows += _windows(documents, number, packing, rng, balance)
    cls, sep, pad = (role(packing.tokenizer, n) for n in ("cls", "sep", "pad"))
    tokens = np.full((len(windows), packing.length), pad, np.int32)
    spans = np.zeros((len(windows), 3), np.int32)
    for i, (a, b, next_) in enumerate(windows):
        line = [cls, *a, sep, *b, sep]
        tokens[i, : len(line)] = line
        spans[i] = len(a) + 2, len(line), next_
    target.mkdir()
    np.save(target / "tokens.npy", tokens, allow_pickle=False)
    np.save(target / "spans.npy", spans, allow_pickle=False)
    facts = {
        "documents": len(documents),
        "sentences": sum(len(d) for d in documents),
        "tokens": sum(len(s) for d in documents for s in d),
        "windows": len(windows),
        "share random next": round(float(spans[:, 2].mean()), 4),
        "share padding": round(1 - float(spans[:, 1].mean()) / packing.length, 4),
    }
    (target / "facts.json").write_text(json.dumps(facts))


class _Balance:
    """Decides 'random next' for half of all windows.

    A window with a single sentence has no next one and can only be random; the
    published code lets these push the share of random above the paper's 50 %. Here
    each is paid back by a later window that would have been random too.
    """

    def __init__(self, rng: random.Random):
        self.rng, self.debt = rng, 0.0

    def is_random(self, forced: bool) -> bool:
        if forced:
            self.debt += 0.5
            return True
        if self.rng.random() >= 0.5:
            return False
        if self.debt >= 1:
            self.debt -= 1
            return False
        return True


def _windows(
    documents: list[Document],
    number: int,
    packing: _Packing,
    rng: random.Random,
    balance: _Balance,
) -> list[tuple[list[int], list[int], int]]:
    """The windows (A, B, next) of one document."""
    document = documents[number]
    room = packing.length - 3
    target = rng.randint(2, room) if rng.random() < packing.short_sequences else room
    windows = []
    chunk: list[list[int]] = []
    size, i = 0, 0
    while i < len(document):
        chunk.append(document[i])
        size += len(document[i])
        if i == len(document) - 1 or size >= target:
            cut = rng.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
            a = [token for sentence in chunk[:cut] for token in sentence]
            is_random = balance.is_random(forced=len(chunk) == 1)
            if is_random:
                b = _random_next(documents, number, target - len(a), rng)
                i -= len(chunk) - cut  # what was not used starts the next window
            else:
                b = [token for sentence in chunk[cut:] for token in sentence]
            _truncate(a, b, room, rng)
            windows.append((a, b, IS_RANDOM if is_random else IS_NEXT))
            chunk, size = [], 0
        i += 1
    return windows


def _random_next(
    documents: list[Document], number: int, target: int, rng: random.Random
) -> list[int]:
    """Sentences from a random place of another document, one at least."""
    other = rng.randrange(len(documents) - 1)
    document = documents[other + (other >= number)]
    b: list[int] = []
    for sentence in document[rng.randrange(len(document)) :]:
        b += sentence
        if len(b) >= target:
            break
    return b


def _truncate(a: list[int], b: list[int], room: int, rng: random.Random) -> None:
    """Shorten the longer side, token by token, at its front or its back by chance."""
    fronts = {id(a): 0, id(b): 0}
    left = {id(a): len(a), id(b): len(b)}
    while left[id(a)] + left[id(b)] > room:
        longer = a if left[id(a)] > left[id(b)] else b
        left[id(longer)] -= 1
        fronts[id(longer)] += rng.random() < 0.5
    for side in (a, b):
        front = fronts[id(side)]
        side[:] = side[front : front + left[id(side)]]
