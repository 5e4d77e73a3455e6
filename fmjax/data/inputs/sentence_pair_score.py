"""Two texts apart, and how alike they are (Reimers & Gurevych 2019, section 3)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from fmjax.data.inputs import text
from fmjax.data.source import Row


def make(
    *, tokenizer: Tokenizer, length: int = 128, low: float = 0.0, high: float = 1.0
) -> Callable[[Row, np.random.Generator | None], dict[str, Any]]:
    """Encode `first` and `second` apart, each as [CLS] text [SEP].

    length: T. low, high: the ends of the scale of the row's `score`.
    Returns inputs {tokens int32 [2, T], mask bool [2, T]} and, where the row has a
    score, score float32, 0 at `low` and 1 at `high`.
    Raises ValueError for empty texts and for a score off the scale.
    """
    if not low < high:
        raise ValueError(f"low={low} must be less than high={high}")
    one = text.make(tokenizer=tokenizer, length=length)

    def inputs(row: Row, rng: np.random.Generator | None = None) -> dict[str, Any]:
        del rng
        number = row.get("id", "(no id)")
        for name in ("first", "second"):
            if not isinstance(row.get(name), str) or not row[name].strip():
                raise ValueError(
                    f"row {number}: `{name}` is {row.get(name)!r:.80}; it must be a "
                    "text with at least one character, as the other of the pair"
                )
        sides = [
            one({"id": number, "text": row.get(name)}, None)
            for name in ("first", "second")
        ]
        stacked = {
            k: np.stack([side["inputs"][k] for side in sides])
            for k in ("tokens", "mask")
        }
        example: dict[str, Any] = {"inputs": stacked}
        if row.get("score") is not None:
            score = (float(row["score"]) - low) / (high - low)
            if not 0 <= score <= 1:
                raise ValueError(
                    f"row {number}: score {row['score']} is not from {low} to {high}; "
                    "set inputs.low and inputs.high to the ends of the scale"
                )
            example["score"] = np.float32(score)
        return example

    return inputs
