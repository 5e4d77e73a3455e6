"""Next-token inputs from windows of text (Radford et al. 2019)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from fmjax.data.source import Row
from fmjax.data.tokenizer import role


def make(
    *, tokenizer: Tokenizer, join_documents: bool = False
) -> Callable[[Row, np.random.Generator | None], dict[str, Any]]:
    """Shift rows of `sources/windows` (overlap 1) by one token.

    join_documents: let a token see the documents before its own in the window, as GPT-2
        and GPT-3 were trained; otherwise a document begins at its document token and
        sees nothing before that.

    Returns, for rows of T + 1 tokens: inputs {tokens int32 [T], segments int32 [T] (the
    document's number in the window, from 1; 0 = padding)}, targets int32 [T], weights
    float32 [T] (0 = padding). The generator is not used.
    """
    document = role(tokenizer, "document")

    def inputs(row: Row, rng: np.random.Generator | None = None) -> dict[str, Any]:
        del rng
        tokens, real = row["tokens"], row["length"] - 1
        given, targets = tokens[:-1], tokens[1:]
        starts = (given == document) & (not join_documents)
        starts[0] = True
        here = np.arange(len(given)) < real
        return {
            "inputs": {
                "tokens": given,
                "segments": np.where(here, np.cumsum(starts), 0).astype(np.int32),
            },
            "targets": targets,
            "weights": here.astype(np.float32),
        }

    return inputs
