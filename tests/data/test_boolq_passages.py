"""Passages of the training questions, without any that dev has."""

import pytest

from fmjax.data.source import normal
from fmjax.data.sources import boolq_passages


def question(name, passage, **more):
    return {"question": name, "passage": passage, **more}


def test_dev_passages_and_unlabelled_questions_are_left_out():
    combined = [
        question("a", "Title -- One passage.", label=True),
        question("b", "Title -- One passage.", label=False),
        question("c", "Other -- Shared with dev.", label=True),
        question("d", "Dev -- Only in dev.", label=True),
        question("e", "Test -- Only in test."),
        question("f", "No title here.", label=False),
    ]
    dev = [question("d", "Only in dev."), question("z", "shared with DEV")]
    splits, facts = boolq_passages.passages(combined, dev)
    rows = [*splits["train"], *splits["validation"]]
    assert sorted(r["text"] for r in rows) == ["No title here.", "One passage."]
    assert facts["questions"] == {
        "in the combined file": 6,
        "without a label (test), left out": 1,
        "of dev, left out": 1,
        "of train, used": 4,
    }
    assert facts["passages"]["also of a dev question, left out"] == 1


def test_a_dash_of_the_passage_itself_stays():
    text = "x" * 200 + " -- and on"
    splits, _ = boolq_passages.passages([question("a", text, label=True)], [])
    assert [*splits["train"], *splits["validation"]][0]["text"] == text


def test_there_is_no_test_split():
    with pytest.raises(ValueError, match="splits are train, validation"):
        boolq_passages.load("test")


@pytest.mark.network
def test_the_real_set(real, monkeypatch):
    train = real(boolq_passages, "train")
    held = real(boolq_passages, "validation")
    assert train.facts["questions"] == {
        "in the combined file": 15_942,
        "without a label (test), left out": 3_245,
        "of dev, left out": 3_270,
        "of train, used": 9_427,
    }
    assert train.facts["counts"] == {"train": len(train.rows), "validation": 339}
    assert len(train.rows) == 6_837
    assert train.facts["passages"]["used"] == 6_837 + 339
    texts = [
        {normal(s.rows[i]["text"]) for i in range(len(s.rows))} for s in (train, held)
    ]
    assert len(texts[0]) == len(train.rows)
    assert not texts[0] & texts[1]
    assert all(isinstance(train.rows[i]["text"], str) for i in range(100))
    assert (
        train.facts["fingerprint"] == real(boolq_passages, "train").facts["fingerprint"]
    )
