"""Episodes: so many examples a class, the same ones every time."""

import pytest

from fmjax.data.sources import few_shot, synthetic_text

CORPUS = {"name": "synthetic_text", "size": 64}


def drawn(per_class, episode=0):
    found = few_shot.load("train", corpus=CORPUS, per_class=per_class, episode=episode)
    return [found.rows[i] for i in range(len(found.rows))], found


def test_an_episode_has_so_many_of_each_class_and_is_the_same_twice():
    rows, found = drawn(5)
    labels = [row["label"] for row in rows]
    assert [labels.count(i) for i in range(len(found.classes))] == [5, 5]
    again, same = drawn(5)
    assert rows == again
    assert found.facts == same.facts
    assert found.facts["rows"] == 10


def test_a_smaller_draw_is_part_of_a_larger_and_another_episode_is_another():
    whole = synthetic_text.load("train", size=64).rows
    texts = [whole[i]["text"] for i in range(len(whole))]
    few, many = (drawn(n)[0] for n in (3, 12))
    assert all(row in many for row in few)
    assert {row["text"] for row in many} <= set(texts)
    other, facts = drawn(12, episode=1)
    assert other != many
    assert facts.facts["fingerprint"] != drawn(12)[1].facts["fingerprint"]


def test_other_splits_are_whole():
    for split in ("validation", "test"):
        got = few_shot.load(split, corpus=CORPUS, per_class=1)
        assert len(got.rows) == len(synthetic_text.load(split, size=64).rows) > 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(per_class=0), "per_class is 0; 1 or more"),
        (dict(per_class=60), r"per_class is 60, but 'bad' has \d+ examples in synth"),
        (dict(per_class=1, corpus={"name": "boolq_pasages"}), "no source"),
    ],
)
def test_what_can_not_be_drawn_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        few_shot.load("train", **{"corpus": CORPUS} | fields)
