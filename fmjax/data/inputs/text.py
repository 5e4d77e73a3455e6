"""BERT inputs for one text or a pair of texts."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from fmjax.data.source import Row
from fmjax.data.tokenizer import encode, role


def make(
    *, tokenizer: Tokenizer, length: int = 128, classes: Sequence[str] = ()
) -> Callable[[Row, np.random.Generator | None], dict[str, Any]]:
    """Encode `text` as [CLS] A [SEP], or with `text2` as [CLS] A [SEP] B [SEP].

    length: T; what is longer is cut at the end, in a pair from the longer text first.
    classes: where given, a label must be the number of one.

    Returns inputs {tokens int32 [T], types int32 [T] (1 for B [SEP]), mask bool [T]
    (True = real token)} and, where the row has a label, label int32. The generator is
    not used. Raises ValueError on a text that is no string or is empty, and on a wrong
    label.
    """
    cls, sep, pad = (role(tokenizer, n) for n in ("cls", "sep", "pad"))
    if length < 5:
        raise ValueError(f"length={length} leaves no room for text; use 5 or more")

    def inputs(row: Row, rng: np.random.Generator | None = None) -> dict[str, Any]:
        del rng
        a = encode(tokenizer, row, "text")
        b = encode(tokenizer, row, "text2") if row.get("text2") is not None else None
        if b is None:
            line = [cls, *a[: length - 2], sep]
            first = len(line)
        else:
            room = length - 3
            keep_a = max(room - len(b), min(len(a), room - room // 2))
            keep_b = max(room - len(a), min(len(b), room // 2))
            a, b = a[:keep_a], b[:keep_b]
            line = [cls, *a, sep, *b, sep]
            first = len(a) + 2
        tokens = np.full(length, pad, np.int32)
        types = np.zeros(length, np.int32)
        mask = np.zeros(length, bool)
        tokens[: len(line)] = line
        types[first : len(line)] = 1
        mask[: len(line)] = True
        example: dict[str, Any] = {
            "inputs": {"tokens": tokens, "types": types, "mask": mask}
        }
        if row.get("label") is not None:
            label = int(row["label"])
            if classes and not 0 <= label < len(classes):
                raise ValueError(
                    f"row {row.get('id', '(no id)')}: label {label} is none of the "
                    f"{len(classes)} classes {', '.join(classes)}"
                )
            example["label"] = np.int32(label)
        return example

    return inputs
