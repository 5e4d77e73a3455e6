"""Questions on passages, cut into windows that a model can read (SQuAD, Devlin 4.2).

A long passage becomes several windows that overlap; an answer is looked for in each.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from fmjax.data import cache, source
from fmjax.data.source import Row, Source
from fmjax.data.tokenizer import encode, fingerprint, role


def load(
    split: str,
    *,
    corpus: Mapping[str, Any],
    tokenizer: Tokenizer,
    length: int = 384,
    stride: int = 128,
    question_length: int = 64,
) -> Source:
    """Windows [CLS] question [SEP] a part of the context [SEP].

    corpus: a source with rows of `question`, `context` and, for training and
        measuring, `answer` and `start` (its first character in the context), or
        `answers`, a list of such pairs, of which training takes the first; empty: the
        context has no answer (SQuAD 2.0).
    length: T. stride: pieces between the beginnings of two windows of one context.
    question_length: longer questions are cut at their end.

    Rows: `tokens`, `types` (1 for the context and the [SEP] after it, as in
    pre-training) int32 [T], `length`, `start` and `end` (the answer's first and last
    piece; both 0, [CLS], where the window has not all of it), `question` (its number in
    the corpus), `id` (the corpus row's), `offsets` (T pairs of characters in the
    context), `context` and `answers`, a list of texts.
    Raises ValueError for rows without these, and an answer that is not in the context.
    """
    if stride < 1 or length < question_length + 3 + stride:
        raise ValueError(
            f"length={length}, stride={stride}, question_length={question_length}: "
            "length must have room for a question, 3 specials and a stride"
        )
    found = source.read(corpus, split)
    special = [role(tokenizer, name) for name in ("cls", "sep", "pad")]
    rows: list[Row] = []
    for number in range(len(found.rows)):
        row = found.rows[number]
        asked = encode(tokenizer, row, "question")[:question_length]
        encode(tokenizer, row, "context")
        pieces = tokenizer.encode(row["context"], add_special_tokens=False)
        answers = _answers(row)
        room, whole = length - len(asked) - 3, _whole(pieces, answers)
        for first in range(0, len(pieces.ids), stride):
            rows.append(
                {
                    "question": number,
                    "id": row.get("id", number),
                    "context": row["context"],
                    "answers": [text for text, _ in answers],
                    **_window(asked, pieces, first, room, length, special, whole),
                }
            )
            if first + room >= len(pieces.ids):
                break
    facts = {
        "corpus": found.facts,
        "questions": len(found.rows),
        "windows": len(rows),
        "windows with the answer": sum(row["end"] > 0 for row in rows),
        "fingerprint": cache.digest(
            *("question_windows", 2, found.facts["fingerprint"], split),
            *(fingerprint(tokenizer), length, stride, question_length),
        ),
    }
    return Source(rows, (), facts)


def _answers(row: Row) -> list[tuple[str, int]]:
    """(text, first character) of each; raises ValueError where it is not there."""
    listed = row.get("answers")
    if listed is None:
        listed = [] if row.get("answer") is None else [(row["answer"], row["start"])]
    try:
        found = [(str(text), int(start)) for text, start in listed]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"row {row.get('id', '(no id)')}: `answers` must be pairs of a text and "
            f"its first character in the context, [['a lamp', 7]]; not {listed!r:.80}"
        ) from error
    for text, start in found:
        if not text or row["context"][start : start + len(text)] != text:
            raise ValueError(
                f"row {row.get('id', '(no id)')}: the answer {text!r:.60} is not at "
                f"character {start} of the context; `start` counts characters from 0"
            )
    return found


def _whole(pieces: Any, answers: list[tuple[str, int]]) -> tuple[int, int] | None:
    """The first and the last piece of the first answer; spaces around it have none."""
    if not answers:
        return None
    text, at = answers[0]
    spans = enumerate(pieces.offsets)
    inside = [i for i, (a, b) in spans if a < at + len(text) and b > at]
    return (inside[0], inside[-1]) if inside else None


def _window(
    asked: list[int],
    pieces: Any,
    first: int,
    room: int,
    length: int,
    special: list[int],
    whole: tuple[int, int] | None,
) -> Row:
    cls, sep, pad = special
    ids, spans = pieces.ids[first : first + room], pieces.offsets[first : first + room]
    line = [cls, *asked, sep, *ids, sep]
    before = len(asked) + 2
    tokens = np.full(length, pad, np.int32)
    tokens[: len(line)] = line
    types = np.zeros(length, np.int32)
    types[before : len(line)] = 1
    offsets = np.zeros((length, 2), np.int32)
    offsets[before : before + len(ids)] = spans
    start = end = 0
    if whole and first <= whole[0] and whole[1] < first + len(ids):
        start, end = before + whole[0] - first, before + whole[1] - first
    return {
        "tokens": tokens,
        "types": types,
        "length": len(line),
        "start": start,
        "end": end,
        "offsets": offsets,
    }
