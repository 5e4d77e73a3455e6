"""One of several texts (Devlin et al. 2018, section 4.4): a row of BERT inputs each."""

from collections.abc import Callable
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from fmjax.data.inputs import text
from fmjax.data.source import Row


def make(
    *, tokenizer: Tokenizer, choices: int, length: int = 128
) -> Callable[[Row, np.random.Generator | None], dict[str, Any]]:
    """Encode [CLS] `text` [SEP] choice [SEP] for each of a row's `choices`.

    choices: N, how many every row has. length: T.
    Returns inputs {tokens int32 [N, T], types int32 [N, T], mask bool [N, T]} and,
    where the row has a label (the number of the right choice), label int32.
    Raises ValueError for another number of choices, and as `inputs/text`.
    """
    if choices < 2:
        raise ValueError(f"choices={choices}: there must be two to choose from")
    one = text.make(tokenizer=tokenizer, length=length)

    def inputs(row: Row, rng: np.random.Generator | None = None) -> dict[str, Any]:
        del rng
        name, found = f"row {row.get('id', '(no id)')}", row.get("choices", ())
        if len(found) != choices:
            raise ValueError(
                f"{name} has {len(found)} choices, inputs.choices is {choices}"
            )
        pairs = [
            one({"id": row.get("id"), "text": row.get("text"), "text2": choice}, None)
            for choice in found
        ]
        keys = ("tokens", "types", "mask")
        stacked = {k: np.stack([pair["inputs"][k] for pair in pairs]) for k in keys}
        example: dict[str, Any] = {"inputs": stacked}
        if row.get("label") is not None:
            label = int(row["label"])
            if not 0 <= label < choices:
                raise ValueError(f"{name}: label {label} is none of {choices} choices")
            example["label"] = np.int32(label)
        return example

    return inputs
