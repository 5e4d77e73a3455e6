"""Next-sentence packing: what a window is, half and half, packed once."""

import random

import numpy as np
import pytest

from fmjax.data import tokenizer
from fmjax.data.sources import sentence_pairs
from fmjax.data.sources.sentence_pairs import IS_NEXT, IS_RANDOM, sentences

CORPUS = {"name": "synthetic_text", "size": 300, "length": 6}


@pytest.fixture
def words():
    return tokenizer.get(corpus=CORPUS, vocab_size=200)


@pytest.fixture
def windows(words):
    return sentence_pairs.load("train", corpus=CORPUS, tokenizer=words, length=32)


def test_sentences():
    assert sentences("One here. Two there! Three? Yes.") == [
        "One here.",
        "Two there!",
        "Three?",
        "Yes.",
    ]
    whole = [
        "Mr. Smith met J. K. Rowling in the U.S. Army at 3.15 p.m. today.",
        "The cat (felis etc.) sat on it",
        "He paid approx. 1.5 to 2.5 dollars.",
    ]
    for text in whole:
        assert sentences(text) == [text]
    assert sentences('He said "Go." Then he left.') == [
        'He said "Go."',
        "Then he left.",
    ]
    assert sentences("A line\nand another. x\n\n") == ["A line", "and another. x"]
    assert sentences("你好。他走了！真的？") == ["你好。", "他走了！", "真的？"]
    assert sentences(" \n ") == []
    assert sentences("So did I. Then it ended.") == ["So did I.", "Then it ended."]


def test_sentences_lose_nothing_but_white_space():
    text = (
        "It's 5. A U.K. firm's ``Ghost''. (So it is.) [1] Or? 'No!' -- e.g. Bob. 東。京"
    )
    assert "".join(sentences(text)).replace(" ", "") == text.replace(" ", "")


def test_windows_are_well_formed(windows, words):
    cls, sep, pad = (tokenizer.role(words, n) for n in ("cls", "sep", "pad"))
    for i in range(len(windows.rows)):
        row = windows.rows[i]
        tokens, types, length = row["tokens"], row["types"], row["length"]
        assert tokens.dtype == types.dtype == np.int32
        assert tokens.shape == types.shape == (32,)
        assert tokens[0] == cls
        assert (tokens[:length] != pad).all()
        assert (tokens[length:] == pad).all()
        ends = np.flatnonzero(tokens == sep)
        assert len(ends) == 2
        assert ends[1] == length - 1
        assert 1 < ends[0] < length - 2  # neither side is empty
        np.testing.assert_array_equal(types[:length], np.arange(length) > ends[0])
        assert (types[length:] == 0).all()


def test_next_follows_and_random_comes_from_another_document(words):
    # Every sentence is a unique token, so its document and place can be read off.
    documents = [[[100 * d + s] * 4 for s in range(9)] for d in range(1, 60)]
    packing = sentence_pairs._Packing(words, 23, 0.0, 1, 0)
    rng = random.Random(0)
    balance = sentence_pairs._Balance(rng)
    found = {IS_NEXT: 0, IS_RANDOM: 0}
    for number in range(len(documents)):
        for a, b, next_ in sentence_pairs._windows(
            documents, number, packing, rng, balance
        ):
            found[next_] += 1
            if next_ == IS_NEXT:
                assert b[0] - a[-1] in (0, 1)
                assert len({t // 100 for t in a + b}) == 1
            else:
                assert {t // 100 for t in a}.isdisjoint({t // 100 for t in b})
            assert len(a) + len(b) <= 20
            assert a == sorted(a)
            assert b == sorted(b)
    assert min(found.values()) > 50


def test_half_of_the_windows_are_random(windows):
    share = np.mean([windows.rows[i]["next"] for i in range(len(windows.rows))])
    error = 3 * 0.5 / np.sqrt(len(windows.rows))
    assert len(windows.rows) > 1000
    assert abs(share - 0.5) < error
    assert windows.facts["share random next"] == pytest.approx(share, abs=1e-3)
    assert windows.classes == ("is next", "random")


def test_single_sentences_do_not_push_random_above_half():
    balance = sentence_pairs._Balance(random.Random(0))
    made = [balance.is_random(forced=i % 4 == 0) for i in range(20_000)]
    assert np.mean(made) == pytest.approx(0.5, abs=0.015)


def test_truncation_shortens_the_longer_side_at_both_ends():
    rng = random.Random(0)
    starts = set()
    for _ in range(50):
        a, b = list(range(30)), list(range(100, 106))
        sentence_pairs._truncate(a, b, 16, rng)
        assert len(a) == 10
        assert b == list(range(100, 106))
        assert a == list(range(a[0], a[0] + 10))
        starts.add(a[0])
    assert len(starts) > 5


def test_short_sequences_are_there(words):
    fields = {"corpus": CORPUS, "tokenizer": words, "length": 32, "copies": 1}
    none = sentence_pairs.load("train", **fields, short_sequences=0.0)
    all_ = sentence_pairs.load("train", **fields, short_sequences=1.0)
    lengths = [np.mean([s.rows[i]["length"] for i in range(200)]) for s in (none, all_)]
    assert lengths[1] < lengths[0] - 3


def test_packing_is_deterministic_and_done_once(words, home, tmp_path, monkeypatch):
    def load(**fields):
        return sentence_pairs.load(
            "train", corpus=CORPUS, tokenizer=words, length=32, **fields
        )

    first = load()
    folder = next((home / "windows").glob("[0-9a-f]*"))
    stamp = (folder / "tokens.npy").stat().st_mtime_ns
    again = load()
    assert (folder / "tokens.npy").stat().st_mtime_ns == stamp
    assert again.facts == first.facts
    other = load(seed=1)
    assert other.facts["fingerprint"] != first.facts["fingerprint"]
    monkeypatch.setenv("FMJAX_DATA", str(tmp_path / "elsewhere"))
    anew = load()
    np.testing.assert_array_equal(anew.rows.tokens, first.rows.tokens)
    np.testing.assert_array_equal(anew.rows.spans, first.rows.spans)
    assert isinstance(first.rows.tokens, np.memmap)
    copies = [len(load(copies=n).rows) for n in (1, 2)]
    assert copies[1] == pytest.approx(2 * copies[0], rel=0.1)


def test_wrong_settings_and_corpora(words, tmp_path):
    with pytest.raises(ValueError, match=r"length of 8 or more"):
        sentence_pairs.load("train", corpus=CORPUS, tokenizer=words, length=4)
    one = tmp_path / "one.txt"
    one.write_text("Only one document.")
    corpus = {"name": "text", "path": str(one), "holdout": (0, 0)}
    with pytest.raises(ValueError, match=r"has 1 documents.*give more text"):
        sentence_pairs.load("train", corpus=corpus, tokenizer=words)
    images = {"name": "synthetic_images"}
    with pytest.raises(ValueError, match=r"no text field, only"):
        sentence_pairs.load("train", corpus=images, tokenizer=words)
