"""The sentiment set: labels, fixed splits, no text in two of them."""

import pytest

from fmjax.data.source import SPLITS, normal, split_of
from fmjax.data.sources import movie_snippets


def ids_of(split):
    return [str(i) for i in range(200) if split_of(str(i), 0.1, 0.2) == split]


def test_labels_zeros_and_duplicates_by_precedence():
    test, valid, train = (ids_of(s) for s in ("test", "validation", "train"))
    lines = [
        f"{train[0]}\t1.5\tA fine film.",
        f"{train[1]}\t-2\tDull",
        f"{train[2]}\t-2\t dull! ",  # again in train
        f"{train[3]}\t0.0\tNeither",
        f"{valid[0]}\t3\tIn two",
        f"{train[4]}\t3\tin TWO",  # validation keeps it
        f"{test[0]}\t-1\ta fine film",  # test keeps it, train loses it
        f"{test[1]}\t1\tTab\tinside",
    ]
    splits, facts = movie_snippets.snippets("\r\n".join(lines) + "\r\n")
    assert [(r["text"], r["label"]) for r in splits["train"]] == [("Dull", 0)]
    assert [(r["text"], r["label"]) for r in splits["validation"]] == [("In two", 1)]
    assert [r["label"] for r in splits["test"]] == [0, 1]
    assert splits["test"][1]["text"] == "Tab\tinside"
    assert facts["score zero, left out"] == 1
    assert facts["duplicates, left out"] == {"test": 0, "validation": 0, "train": 3}


@pytest.mark.network
def test_the_real_set(real):
    sources = {split: real(movie_snippets, split) for split in SPLITS}
    counts = {split: len(found.rows) for split, found in sources.items()}
    assert counts == {"train": 7_316, "validation": 1_067, "test": 2_183}
    facts = sources["train"].facts
    assert facts["counts"] == counts
    assert facts["lines"] == 10_605
    assert facts["score zero, left out"] == 37
    left_out = 37 + sum(facts["duplicates, left out"].values())
    assert sum(counts.values()) + left_out == 10_605
    seen = set()
    for split, found in sources.items():
        rows = [found.rows[i] for i in range(len(found.rows))]
        texts = {normal(row["text"]) for row in rows}
        assert len(texts) == len(rows)
        assert not texts & seen
        assert {split_of(row["id"], 0.1, 0.2) for row in rows} == {split}
        assert {row["label"] for row in rows} == {0, 1}
        seen |= texts
    assert sources["test"].classes == ("negative", "positive")
    assert "MIT" in facts["licence"]
