"""Masking: 15 %, of which 80/10/10; never a special; addressed, not carried."""

import time

import numpy as np
import pytest

from fmjax.data import tokenizer
from fmjax.data.inputs import masked_pairs
from fmjax.data.sources import sentence_pairs
from fmjax.data.vocabulary import SPECIALS

CORPUS = {"name": "synthetic_text", "size": 200, "length": 6, "classes": 4}


@pytest.fixture
def words():
    return tokenizer.get(corpus=CORPUS, vocab_size=300)


@pytest.fixture
def rows(words):
    found = sentence_pairs.load("train", corpus=CORPUS, tokenizer=words, length=64)
    return [found.rows[i] for i in range(len(found.rows))]


def examples(rows, words, **fields):
    make = masked_pairs.make(tokenizer=words, **fields)
    return [make(row, np.random.default_rng(i)) for i, row in enumerate(rows)]


def test_statistics_80_10_10_of_15_percent(rows, words):
    mask_id = tokenizer.role(words, "mask")
    specials = [words.token_to_id(name) for name in SPECIALS]
    counts = np.zeros(3)
    asked = 0
    seen_random = set()
    for row, example in zip(rows, examples(rows, words), strict=True):
        chosen = example["weights"] == 1
        where = example["inputs"]["positions"][chosen]
        targets = example["targets"][chosen]
        np.testing.assert_array_equal(row["tokens"][where], targets)
        assert not np.isin(targets, [s for s in specials if s != 1]).any()
        now = example["inputs"]["tokens"][where]
        counts += (now == mask_id).sum(), (now == targets).sum(), 0
        other = now[(now != mask_id) & (now != targets)]
        counts[2] += len(other)
        seen_random |= set(other.tolist())
        asked += len(where)
        untouched = np.delete(np.arange(64), where)
        np.testing.assert_array_equal(
            example["inputs"]["tokens"][untouched], row["tokens"][untouched]
        )
        assert len(where) == max(1, round(row["length"] * 0.15))
        assert (np.diff(where) > 0).all()
    assert asked > 5000
    vocabulary = words.get_vocab_size()
    share = counts / asked
    # A random token is by chance the old one as often as 1 in the vocabulary.
    np.testing.assert_allclose(
        share, [0.8, 0.1 + 0.1 / vocabulary, 0.1 - 0.1 / vocabulary], atol=0.015
    )
    assert not seen_random & set(specials)
    assert len(seen_random) > vocabulary / 3


def test_shapes_types_and_padding_of_predictions(rows, words):
    example = masked_pairs.make(tokenizer=words, predictions=40)(rows[0], None)
    inputs = example["inputs"]
    assert {k: (v.shape, v.dtype) for k, v in inputs.items()} == {
        "tokens": ((64,), np.int32),
        "types": ((64,), np.int32),
        "mask": ((64,), np.bool_),
        "positions": ((40,), np.int32),
    }
    assert example["targets"].dtype == np.int32
    assert example["weights"].dtype == np.float32
    assert example["next"].dtype == np.int32
    unused = example["weights"] == 0
    assert unused.any()
    assert (inputs["positions"][unused] == 0).all()
    assert (example["targets"][unused] == 0).all()
    assert inputs["mask"].sum() == rows[0]["length"]


def test_at_most_so_many_predictions(rows, words):
    for example in examples(rows[:50], words, predictions=3):
        assert example["weights"].sum() == 3


def test_evaluation_is_a_function_of_the_row_and_training_of_the_generator(rows, words):
    make = masked_pairs.make(tokenizer=words)
    np.testing.assert_equal(make(rows[0], None), make(dict(rows[0]), None))
    places = {tuple(make(row, None)["inputs"]["positions"]) for row in rows[:20]}
    assert len(places) > 15
    seeds = [make(rows[0], np.random.default_rng(s)) for s in (1, 1, 2)]
    np.testing.assert_equal(seeds[0], seeds[1])
    assert not np.array_equal(
        seeds[0]["inputs"]["tokens"], seeds[2]["inputs"]["tokens"]
    )


def test_rows_are_left_as_they_were(rows, words):
    before = rows[0]["tokens"].copy()
    masked_pairs.make(tokenizer=words)(rows[0], np.random.default_rng(0))
    np.testing.assert_array_equal(rows[0]["tokens"], before)


def test_a_window_without_words_has_no_predictions(words):
    tokens = np.array([2, 3, 3] + [0] * 5, np.int32)
    row = {"tokens": tokens, "types": np.zeros(8, np.int32), "next": 1, "length": 3}
    example = masked_pairs.make(tokenizer=words)(row, None)
    assert example["weights"].sum() == 0
    np.testing.assert_array_equal(example["inputs"]["tokens"], tokens)


def test_masking_is_fast_enough_for_the_input_thread(rows, words):
    make = masked_pairs.make(tokenizer=words)
    rng = np.random.default_rng(0)
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        for row in rows[:200]:
            make(row, rng)
        best = min(best, (time.perf_counter() - start) / 200)
    assert best < 300e-6  # 30 us on an idle core; the margin is for a busy one


def test_wrong_settings(words):
    with pytest.raises(ValueError, match="predictions of 1 or more"):
        masked_pairs.make(tokenizer=words, predictions=0)
    with pytest.raises(ValueError, match="rate in"):
        masked_pairs.make(tokenizer=words, rate=1.5)
