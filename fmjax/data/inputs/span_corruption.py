"""T5's span corruption (Raffel et al. 2020, section 3.1.4 and figure 2)."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from fmjax.data.source import Row
from fmjax.data.tokenizer import role, sentinels


def make(
    *, tokenizer: Tokenizer, window: int, rate: float = 0.15, mean_span: float = 3.0
) -> Callable[[Row, np.random.Generator | None], dict[str, Any]]:
    """Replace random spans by sentinels; the target names them and what they hid.

    window: W, the length of the rows of `sources/windows` (overlap 0, no separator).
    Of L real tokens, round(L * rate) are hidden, in round(that / mean_span) spans with
    visible ones between them, all ways of cutting equally likely, as in the published
    random_spans_noise_mask. Both sides end with the end token.

    Returns inputs {tokens int32 [S], mask bool [S], decoder_tokens int32 [T] (targets
    shifted right behind the padding token)}, targets int32 [T], weights float32 [T],
    where S and T are what W tokens need: 568 become 512 and 114. Without a generator
    (evaluation) the spans follow from the window's tokens alone.
    Raises ValueError where W tokens leave nothing to see or to hide, or need more
    sentinels than the tokenizer has.
    """
    if not 0 < rate < 1 or mean_span < 1:
        raise ValueError(
            f"rate={rate}, mean_span={mean_span}: need a rate between 0 and 1, and a "
            "mean_span of 1 or more"
        )
    hidden, spans = counts(window, rate, mean_span)
    if not 0 < hidden < window:
        raise ValueError(f"window={window} and rate={rate} hide {hidden} tokens")
    pad, end, extra = (
        role(tokenizer, "pad"),
        role(tokenizer, "end"),
        sentinels(tokenizer),
    )
    if spans > len(extra):
        raise ValueError(
            f"window={window} needs {spans} sentinels, the tokenizer has {len(extra)}; "
            "use a shorter window or a larger mean_span"
        )
    source_length, target_length = window - hidden + spans + 1, hidden + spans + 1

    def inputs(row: Row, rng: np.random.Generator | None) -> dict[str, Any]:
        tokens = row["tokens"][: row["length"]]
        if len(row["tokens"]) != window:
            raise ValueError(
                f"the windows are {len(row['tokens'])} long, inputs.window is "
                f"{window}; make data.length the same and data.overlap 0"
            )
        if rng is None:
            seed = hashlib.blake2b(tokens.tobytes(), digest_size=8).digest()
            rng = np.random.default_rng(int.from_bytes(seed, "big"))
        noise = noise_mask(len(tokens), rate, mean_span, rng)
        given = [*replaced(tokens, noise, extra), end]
        wanted = [*replaced(tokens, ~noise, extra), end]
        return sides(given, wanted, source_length, target_length, pad)

    return inputs


def counts(length: int, rate: float, mean_span: float) -> tuple[int, int]:
    """(tokens hidden, spans) among `length` tokens: one of each at least if it can."""
    hidden = min(max(int(np.round(length * rate)), 1), length - 1)
    return hidden, max(int(np.round(hidden / mean_span)), 1)


def noise_mask(
    length: int, rate: float, mean_span: float, rng: np.random.Generator
) -> np.ndarray:
    """bool [length], True where hidden; a visible span comes first."""
    if length < 2:
        return np.zeros(length, bool)
    hidden, spans = counts(length, rate, mean_span)
    spans = min(spans, length - hidden)

    def lengths(total: int) -> np.ndarray:
        """`spans` positive numbers that add up to `total`, every such list equally."""
        starts = np.zeros(total, bool)
        starts[1:spans] = True  # as many later starts as there are other spans
        starts[1:] = rng.permutation(starts[1:])
        starts[0] = True
        return np.diff(np.append(np.flatnonzero(starts), total))

    alternating = np.stack([lengths(length - hidden), lengths(hidden)], axis=1)
    return np.repeat(np.arange(2 * spans) % 2 == 1, alternating.reshape(-1))


def replaced(tokens: np.ndarray, hidden: np.ndarray, extra: list[int]) -> list[int]:
    """The tokens with each hidden span as one sentinel, the first span as the first."""
    line: list[int] = []
    used, before = 0, False
    for token, here in zip(tokens.tolist(), hidden.tolist(), strict=True):
        if not here:
            line.append(token)
        elif not before:
            line.append(extra[used])
            used += 1
        before = here
    return line


def sides(
    given: list[int], wanted: list[int], source: int, target: int, pad: int
) -> dict[str, Any]:
    """An encoder's and a decoder's arrays of fixed lengths from two lines of ids."""
    tokens = np.full(source, pad, np.int32)
    tokens[: len(given)] = given
    targets = np.full(target, pad, np.int32)
    targets[: len(wanted)] = wanted
    return {
        "inputs": {
            "tokens": tokens,
            "mask": np.arange(source) < len(given),
            "decoder_tokens": np.concatenate([[pad], targets[:-1]]).astype(np.int32),
        },
        "targets": targets,
        "weights": (np.arange(target) < len(wanted)).astype(np.float32),
    }
