"""One label a word, as parts of speech and named entities (Devlin et al. 2018, 5.3)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from fmjax.data.source import Row
from fmjax.data.tokenizer import role


def make(
    *, tokenizer: Tokenizer, length: int = 128, classes: Sequence[str] = ()
) -> Callable[[Row, np.random.Generator | None], dict[str, Any]]:
    """Encode `words` (a list of str) as [CLS] pieces [SEP], labels at first pieces.

    length: T; words whose first piece does not fit are cut off, and so are not measured
        (sources tell how long sentences are).
    A row's `tags` are numbers of `classes`, one a word.

    Returns inputs {tokens int32 [T], mask bool [T]}, and, where the row has tags,
    targets int32 [T] and weights float32 [T] (1 at the first piece of each word, 0
    elsewhere). Without tags (prediction) weights tell where words begin, targets are 0.
    The generator is not used. Raises ValueError for rows without words, with empty
    words, and for tags that do not match.
    """
    cls, sep, pad = (role(tokenizer, n) for n in ("cls", "sep", "pad"))
    unknown = role(tokenizer, "unknown")
    if length < 3:
        raise ValueError(f"length={length} leaves no room for words; use 3 or more")

    def inputs(row: Row, rng: np.random.Generator | None = None) -> dict[str, Any]:
        del rng
        name = f"row {row.get('id', '(no id)')}"
        words, tags = row.get("words"), row.get("tags")
        if words is None and isinstance(row.get("text"), str):
            words = row["text"].split()
        if not words or not all(isinstance(w, str) and w.strip() for w in words):
            raise ValueError(
                f"{name}: `words` must be words, none empty: {words!r:.80}"
            )
        if tags is not None and len(tags) != len(words):
            raise ValueError(f"{name}: {len(words)} words and {len(tags)} tags")
        strange = {tag for tag in tags or () if not 0 <= tag < len(classes)}
        if classes and strange:
            raise ValueError(
                f"{name}: tags {sorted(strange)} are none of {len(classes)} classes"
            )
        line, first = [cls], []
        encoded = tokenizer.encode_batch(list(words), add_special_tokens=False)
        for one in encoded:
            first.append(len(line))
            line += one.ids or [unknown]  # a word of control characters has no piece
        line = [*line[: length - 1], sep]
        first = [at for at in first if at < length - 1]
        tokens = np.full(length, pad, np.int32)
        tokens[: len(line)] = line
        targets, weights = np.zeros(length, np.int32), np.zeros(length, np.float32)
        weights[first] = 1
        if tags is not None:
            targets[first] = tags[: len(first)]
        return {
            "inputs": {"tokens": tokens, "mask": np.arange(length) < len(line)},
            "targets": targets,
            "weights": weights,
        }

    return inputs
