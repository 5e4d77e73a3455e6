"""A corpus as one line of tokens: nothing lost, nothing twice, documents kept apart."""

import numpy as np
import pytest

from fmjax.data import source, tokenizer
from fmjax.data.inputs import next_token
from fmjax.data.sources import windows

CORPUS = {"name": "synthetic_text", "size": 20}


@pytest.fixture
def words():
    return tokenizer.get(corpus=CORPUS, kind="bpe", vocab_size=300)


def line(words, split="train"):
    """The tokens by hand: a document token, then each document with one behind it."""
    rows, end = source.read(CORPUS, split).rows, tokenizer.role(words, "document")
    tokens = [end]
    for i in range(len(rows)):
        tokens += [*words.encode(rows[i]["text"]).ids, end]
    return tokens


def test_each_token_but_the_first_is_predicted_once_and_in_order(words):
    found = windows.load("train", corpus=CORPUS, tokenizer=words, length=16)
    make, wanted = next_token.make(tokenizer=words), line(words)
    given, targets = [], []
    for i in range(len(found.rows)):
        one = make(found.rows[i])
        here = one["weights"] > 0
        assert one["inputs"]["tokens"].shape == one["targets"].shape == (16,)
        given += one["inputs"]["tokens"][here].tolist()
        targets += one["targets"][here].tolist()
        assert (one["inputs"]["segments"] > 0).tolist() == here.tolist()
    assert given == wanted[:-1]
    assert targets == wanted[1:]
    assert found.facts["tokens"] == len(wanted)
    assert found.facts["documents"] == 20
    texts = [source.read(CORPUS, "train").rows[i]["text"] for i in range(20)]
    assert found.facts["words"] == sum(len(text.split()) for text in texts)
    assert found.facts["characters"] == sum(map(len, texts))


def test_windows_without_overlap_and_separator_are_the_bare_text(words):
    found = windows.load(
        "train", corpus=CORPUS, tokenizer=words, length=16, overlap=0, separator=False
    )
    tokens = [t for i in range(len(found.rows)) for t in found.rows[i]["tokens"]]
    end = tokenizer.role(words, "document")
    bare = [token for token in line(words) if token != end]
    assert tokens[: len(bare)] == bare
    assert len(tokens) - len(bare) < 16
    assert found.rows[len(found.rows) - 1]["length"] == (len(bare) - 1) % 16 + 1


def test_segments_count_documents_in_the_window(words):
    end = tokenizer.role(words, "document")
    row = {"tokens": np.array([5, 6, end, 7, end, 8, 0], np.int32), "length": 6}
    one = next_token.make(tokenizer=words)(row)
    # A document token as input begins the next document; token 8 is the last target.
    assert one["inputs"]["segments"].tolist() == [1, 1, 2, 2, 3, 0]
    assert one["targets"].tolist() == [6, end, 7, end, 8, 0]
    assert one["weights"].tolist() == [1, 1, 1, 1, 1, 0]
    joined = next_token.make(tokenizer=words, join_documents=True)(row)
    assert joined["inputs"]["segments"].tolist() == [1, 1, 1, 1, 1, 0]


def test_rows_of_one_document_are_joined():
    rows = [
        {"text": "a b", "document": 0},
        {"text": "c", "document": 0},
        {"text": "d", "document": 1},
        {"text": " ", "document": 1},
    ]
    assert list(windows.documents(rows)) == ["a b c", "d"]
    bare = [{"text": "a"}, {"text": "b"}]
    assert list(windows.documents(bare)) == ["a", "b"]


def test_what_cannot_be_cut(words, tmp_path):
    for fields in ({"length": 1}, {"length": 8, "overlap": 8}):
        with pytest.raises(ValueError, match=r"need a length of 2 or more"):
            windows.load("train", corpus=CORPUS, tokenizer=words, **fields)
    images = {"name": "synthetic_images", "size": 4}
    with pytest.raises(ValueError, match=r"no text field, only image"):
        windows.load("train", corpus=images, tokenizer=words)


def test_a_short_corpus_is_one_padded_window(words):
    few = {"name": "synthetic_text", "size": 1, "length": 1}
    found = windows.load("train", corpus=few, tokenizer=words, length=64)
    assert len(found.rows) == 1
    one = next_token.make(tokenizer=words)(found.rows[0])
    assert one["weights"].sum() == found.facts["tokens"] - 1 < 64
    with pytest.raises(IndexError, match=r"window 1 of 1"):
        found.rows[1]
