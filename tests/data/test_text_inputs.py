"""BERT inputs of a text or a pair."""

import numpy as np
import pytest

from fmjax.data import tokenizer
from fmjax.data.inputs import text


@pytest.fixture
def words():
    return tokenizer.get(corpus={"name": "synthetic_text"}, vocab_size=150)


def ids(words, sentence):
    return words.encode(sentence, add_special_tokens=False).ids


def test_a_text_alone_matches_the_tokenizers_own_template(words):
    sentence = "The bright lamp shines"
    example = text.make(tokenizer=words, length=12)(
        {"text": sentence, "label": 1}, None
    )
    expected = words.encode(sentence)
    count = len(expected.ids)
    inputs = example["inputs"]
    assert inputs["tokens"][:count].tolist() == expected.ids
    assert (inputs["tokens"][count:] == 0).all()
    assert inputs["mask"].tolist() == [True] * count + [False] * (12 - count)
    assert not inputs["types"].any()
    assert {k: v.dtype for k, v in inputs.items()} == {
        "tokens": np.int32,
        "types": np.int32,
        "mask": np.bool_,
    }
    assert example["label"] == 1
    assert example["label"].dtype == np.int32


def test_a_pair_matches_too(words):
    a, b = "The bright lamp", "near the lake"
    expected = words.encode(a, b)
    make = text.make(tokenizer=words, length=20)
    inputs = make({"text": a, "text2": b}, None)["inputs"]
    count = len(expected.ids)
    assert inputs["tokens"][:count].tolist() == expected.ids
    assert inputs["types"][:count].tolist() == expected.type_ids
    assert not inputs["types"][count:].any()


def test_without_a_label_there_is_none(words):
    assert "label" not in text.make(tokenizer=words)({"text": "lamp"}, None)


@pytest.mark.parametrize(
    ("a", "b", "kept"),
    [(30, 3, (6, 3)), (3, 30, (3, 6)), (30, 30, (5, 4)), (5, 4, (5, 4))],
)
def test_truncation_takes_from_the_longer_text_first(words, a, b, kept):
    row = {"text": "lamp " * a, "text2": "tiger " * b}
    tokens = text.make(tokenizer=words, length=12)(row, None)["inputs"]["tokens"]
    lamp, tiger = ids(words, "lamp")[0], ids(words, "tiger")[0]
    assert ((tokens == lamp).sum(), (tokens == tiger).sum()) == kept
    assert tokens[-1] == tokenizer.role(words, "sep")


def test_a_long_text_keeps_its_beginning_and_its_end_mark(words):
    row = {"text": "lamp " + "tiger " * 30}
    inputs = text.make(tokenizer=words, length=8)(row, None)["inputs"]
    assert inputs["mask"].all()
    assert inputs["tokens"][1] == ids(words, "lamp")[0]
    assert inputs["tokens"][-1] == tokenizer.role(words, "sep")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"text": "  ", "id": 7}, "row 7: `text` is '  '"),
        ({"text": 5, "id": 7}, "row 7: `text` is 5"),
        ({"id": "x"}, "row x: `text` is missing"),
        ({"text": "lamp", "text2": "", "id": 1}, "`text2` is ''"),
    ],
)
def test_what_is_no_text(words, row, why):
    with pytest.raises(ValueError, match="at least one character") as caught:
        text.make(tokenizer=words)(row, None)
    assert why in str(caught.value)
    assert "bad_rows" in str(caught.value)


def test_a_label_that_is_no_class(words):
    make = text.make(tokenizer=words, classes=("no", "yes"))
    with pytest.raises(ValueError, match="row 3: label 2 is none of the 2 classes no"):
        make({"text": "lamp", "label": 2, "id": 3}, None)


def test_settings_and_tokenizers_that_do_not_do(words):
    with pytest.raises(ValueError, match="use 5 or more"):
        text.make(tokenizer=words, length=3)
    from tokenizers import Tokenizer, models

    bare = Tokenizer(models.WordPiece(vocab={"[UNK]": 0}, unk_token="[UNK]"))
    with pytest.raises(ValueError, match=r"no token for cls"):
        text.make(tokenizer=bare)
