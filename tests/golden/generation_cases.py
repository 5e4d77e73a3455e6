"""The cases in which generated tokens are held against transformers' `generate`.

As `lm_cases`: shared by the ordinary test and the parity test, no torch. Weights are
sharp, so that texts have variety, and rows differ in where they end.
"""

import dataclasses
from typing import Any

import numpy as np

from fmjax import generation
from tests.golden import lm_cases
from tests.golden.lm_cases import Case

LENGTH = 10  # new tokens at most, where options do not say


@dataclasses.dataclass(frozen=True)
class Text:
    """A reference with weights `sharp` times as large from `seed`; rows: lengths of
    prompts or sources; end: token id; golden: committed."""

    case: Case
    end: int
    sharp: float
    seed: int = 0
    rows: tuple[int, ...] = (5, 1, 9)
    golden: bool = False

    @property
    def start(self) -> int | None:
        return self.case.config().get("decoder_start_token_id")


def gpt2(**changes):
    return lm_cases.gpt2(**dict(n_positions=40) | changes)


def t5(**changes):
    return lm_cases.t5(**dict(relative_attention_num_buckets=8) | changes)


def marian(**changes):
    return lm_cases.marian(**dict(max_position_embeddings=40) | changes)


WIDE = (12, 3, 1, 7)
TEXTS = {
    "gpt2": Text(gpt2(), 16, 3.0, seed=1, golden=True),
    "gpt2-untied": Text(gpt2(tie_word_embeddings=False, n_head=1), 22, 1.5),
    "gpt2-wide": Text(
        gpt2(n_embd=96, n_layer=3, vocab_size=1001), 756, 1.0, seed=1, rows=WIDE
    ),
    "t5": Text(t5(), 12, 3.0, seed=2, golden=True),
    "t5-1.1": Text(
        t5(
            own_head=True,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            num_decoder_layers=1,
        ),
        *(17, 2.0),
        seed=1,
    ),
    "t5-wide": Text(
        t5(d_model=96, d_kv=24, d_ff=128, vocab_size=1001), 123, 2.0, seed=1, rows=WIDE
    ),
    "marian": Text(marian(scale_embedding=True), 12, 0.6, seed=3, golden=True),
    "marian-odd": Text(marian(d_model=15, decoder_ffn_dim=11), 12, 0.6),
}

# Of `fmjax.generation.generate`.
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "repetition": dict(repetition_penalty=1.8),
    "rules": dict(min_length=4, force_end=True, suppress=(3, 5, 19, 20)),
    "stop": dict(stop=((3,), (18, 14), (22, 11, 2))),
    "two-ends": dict(end=(11, 20)),
    "one-token": dict(length=1),
    "beams": dict(beams=3),
    "beams-short": dict(beams=3, length_penalty=-0.7),
    "beams-sum": dict(beams=2, length_penalty=0.0, early_stopping="never"),
    "beams-long": dict(beams=4, length_penalty=2.0, early_stopping=True),
    "beams-never": dict(beams=4, length_penalty=1.3, early_stopping="never"),
    "beams-repetition": dict(beams=3, repetition_penalty=1.4),
    "beams-rules": dict(
        beams=3,
        min_length=3,
        force_end=True,
        suppress=(3, 5, 19, 20),
        length_penalty=0.6,
    ),
    "beams-stop": dict(beams=3, stop=((3,), (18, 14)), early_stopping=True),
    "beams-two-ends": dict(beams=3, end=(11, 20), length_penalty=0.4),
}

GOLDEN = ("greedy", "own")

# A checkpoint's own settings (generation_config.json), beside the text's ids.
OWN: dict[str, Any] = {
    "max_length": 17,
    "min_length": 12,
    "num_beams": 3,
    "length_penalty": 0.7,
    "early_stopping": True,
    "repetition_penalty": 1.1,
    "bad_words_ids": [[3], [21]],
    "suppress_tokens": [20],
}


def rows(text: Text) -> list[list[int]]:
    """Random prompts or sources; ids stay below the last one, Marian's padding."""
    random = np.random.default_rng(text.seed)
    return [random.integers(0, text.case.vocab - 1, n).tolist() for n in text.rows]


def padded(text: Text) -> dict[str, np.ndarray]:
    """Prompts padded on the left, sources on the right."""
    if text.start is None:
        return generation.left_pad(rows(text))
    made = generation.left_pad([row[::-1] for row in rows(text)])
    return {name: array[:, ::-1] for name, array in made.items()}


def options(text: Text, name: str) -> dict[str, Any]:
    """Keywords of `generate`: what all cases have, and the case's own."""
    pad = text.case.config().get("pad_token_id") or 0
    common = dict(length=LENGTH, end=text.end, start=text.start, pad=pad)
    return common | OPTIONS[name]


def ours(net, variables, text: Text, name: str) -> dict[str, np.ndarray]:
    found = generation.generate(net, variables, padded(text), **options(text, name))
    return found._asdict()
