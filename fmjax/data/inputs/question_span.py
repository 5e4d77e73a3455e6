"""Inputs for extractive question answering (Devlin et al. 2018, section 4.2)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fmjax.data.source import Row


def make() -> Callable[[Row, np.random.Generator | None], dict[str, Any]]:
    """From rows of `sources/question_windows`.

    Returns inputs {tokens int32 [T], types int32 [T] (1 for the context and the [SEP]
    that ends it), mask bool [T]}, start and end int32 (0 where the window has no
    answer). The generator is not used.
    """

    def inputs(row: Row, rng: np.random.Generator | None = None) -> dict[str, Any]:
        del rng
        mask = np.arange(len(row["tokens"])) < row["length"]
        return {
            "inputs": {"tokens": row["tokens"], "types": row["types"], "mask": mask},
            "start": np.int32(row["start"]),
            "end": np.int32(row["end"]),
        }

    return inputs
