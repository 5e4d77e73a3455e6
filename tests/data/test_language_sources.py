"""Corpora and tasks from packages: parsing of small files, and the real sets."""

import pytest

from fmjax.data.sources import (
    bible_verses,
    boolq,
    brown,
    peoples_daily,
    topics,
    word_similarity,
)

HEAD = "Category\tText\nd\tstring\nclass\t\n"


def test_topics_keep_the_published_test_and_number_classes_by_name():
    train = HEAD + "".join(f"b\ttext {i}\na\tother {i}\n" for i in range(50))
    splits, facts = topics.topics(train, HEAD + "a\tother 1\nb\tnew\n")
    assert facts["classes"] == ["a", "b"]
    assert [(r["text"], r["label"], r["id"]) for r in splits["test"]] == [
        ("other 1", 0, "test-4"),
        ("new", 1, "test-5"),
    ]
    assert facts["test texts that training has too, kept as published"] == 1
    assert len(splits["train"]) + len(splits["validation"]) == 100
    assert 0 < len(splits["validation"]) < 30
    held = {r["text"] for r in splits["validation"]}
    assert not held & {r["text"] for r in splits["train"]}


def test_topics_refuse_what_they_cannot_read():
    with pytest.raises(ValueError, match="train line 5 is no topic, tab and text"):
        topics.topics(HEAD + "a\tfine\nno tab here\n", HEAD)
    with pytest.raises(ValueError, match="topics of the test alone: z"):
        topics.topics(HEAD + "a\tfine\n", HEAD + "z\tstrange\n")
    with pytest.raises(ValueError, match="data sets are r8, r52, 20newsgroups"):
        topics.load("test", dataset="r9")


def test_boolq_tests_on_dev_and_keeps_a_passage_in_one_split():
    combined = [
        {"question": f"q{i}", "passage": f"T -- About {i // 2}.", "label": i % 3 == 0}
        for i in range(200)
    ] + [
        {"question": "d", "passage": "T -- About 3.", "label": True},
        {"question": "unlabelled", "passage": "x"},
    ]
    dev = [{"question": "d", "passage": "About 3.", "answer": "True"}]
    splits, facts = boolq.questions(combined, dev)
    assert splits["test"] == [
        {"text": "d", "text2": "About 3.", "label": 1, "id": "dev-d"}
    ]
    assert facts["test questions whose passage training has"] == 1
    texts = [{r["text2"] for r in splits[part]} for part in ("train", "validation")]
    assert not texts[0] & texts[1]
    assert all(texts)
    assert len(splits["train"]) + len(splits["validation"]) == 200
    labels = {r["text"]: r["label"] for part in splits for r in splits[part]}
    assert (labels["q0"], labels["q1"], labels["q3"]) == (1, 0, 1)


def test_brown_is_split_by_order_in_whole_sentences():
    files = {
        "ca01": "\n\n\tThe/at County/nn-tl said/vbd ./.\n\n\n\tA/at half/nn ./.\n",
        "ca02": "1\\/2/cd jeune/fw-jj-tl\n\n\tEnd/vb\n",
    }
    splits, facts = brown.sentences(files, {"train": 3, "validation": 3})
    assert facts["words"] == {"train": 4, "validation": 3, "test": 3}
    (first,) = splits["train"]
    assert first["text"] == "The County said ."
    assert [facts["classes"][tag] for tag in first["tags"]] == ["at", "nn", "vbd", "."]
    last = splits["test"]
    assert [r["text"] for r in last] == ["1\\/2 jeune", "End"]
    assert [facts["classes"][tag] for tag in last[0]["tags"]] == ["cd", "fw"]
    assert [r["document"] for r in last] == [2, 2]
    assert [r["id"] for r in last] == ["ca02-1", "ca02-2"]
    with pytest.raises(ValueError, match="cb01 line 1: 'word' is no word/tag"):
        brown.sentences({"cb01": "a/b word"})


def test_the_peoples_daily_loses_its_tags_and_keeps_its_order():
    text = "".join(f"第/m  {i:03}/m  [句/n  话/n]nz  ／/w\n" for i in range(100))
    splits, facts = peoples_daily.paragraphs(text)
    assert facts["characters"] == 700
    assert splits["train"][0] == {"text": "第000句话／", "id": "1"}
    ids = [
        int(r["id"]) for part in ("train", "validation", "test") for r in splits[part]
    ]
    assert ids == list(range(1, 101))
    assert [len(splits[part]) for part in ("validation", "test")] == [5, 5]
    with pytest.raises(ValueError, match="line 1 has an item that is no word/tag"):
        peoples_daily.paragraphs("词")


def test_verses_are_aligned_by_place_and_split_by_book():
    source = {("A", 1, 1): "one", ("A", 1, 2): "two", ("B", 1, 1): "three"}
    target = {("A", 1, 1): "uno", ("B", 1, 1): "tres", ("C", 1, 1): "cuatro"}
    sides = {"source": source, "target": target}
    splits, facts = bible_verses.verses(sides, {"validation": (), "test": ("B",)})
    assert splits["train"] == [{"source": "one", "target": "uno", "id": "A 1:1"}]
    assert splits["test"] == [{"source": "three", "target": "tres", "id": "B 1:1"}]
    assert facts["places that one of the two lacks, left out"] == 2
    with pytest.raises(ValueError, match="no such book: Z"):
        bible_verses.verses(sides, {"validation": ("Z",), "test": ()})


def test_word_pairs():
    assert word_similarity.pairs("# x\tscore\nold\tnew\t1.58\n") == [
        {"first": "old", "second": "new", "score": 1.58, "id": "2"}
    ]
    with pytest.raises(ValueError, match="line 1 is not two words and a score"):
        word_similarity.pairs("old\tnew\tmuch\n")
    with pytest.raises(ValueError, match="for testing only, its split is test"):
        word_similarity.load("train")
    with pytest.raises(ValueError, match="wordsim353, simlex999, men"):
        word_similarity.load("test", dataset="rw")


@pytest.mark.network
@pytest.mark.parametrize(
    ("dataset", "counts", "classes"),
    [
        ("r8", {"train": 4873, "validation": 612, "test": 2189}, 8),
        ("r52", {"train": 5813, "validation": 719, "test": 2568}, 52),
        ("20newsgroups", {"train": 10093, "validation": 1200, "test": 7528}, 20),
    ],
)
def test_the_real_topics(real, dataset, counts, classes):
    found = real(topics, "test", dataset=dataset)
    assert found.facts["counts"] == counts
    assert len(found.classes) == classes
    assert len(found.rows) == counts["test"]
    assert isinstance(found.rows[0]["label"], int)


@pytest.mark.network
@pytest.mark.parametrize(
    ("module", "split", "counts"),
    [
        (boolq, "test", {"train": 8512, "validation": 915, "test": 3270}),
        (brown, "test", {"train": 35_523, "validation": 11_690, "test": 10_127}),
        (peoples_daily, "test", {"train": 17_318, "validation": 1087, "test": 1079}),
        (bible_verses, "test", {"train": 28_897, "validation": 657, "test": 1530}),
    ],
)
def test_the_other_real_sets(real, module, split, counts):
    found = real(module, split)
    assert found.facts["counts"] == counts
    assert len(found.rows) == counts[split]
    row = found.rows[1]
    if module is boolq:
        # 62.2 % yes, as published.
        yes = sum(found.rows[i]["label"] for i in range(len(found.rows)))
        assert yes / len(found.rows) == pytest.approx(0.622, abs=5e-4)
    elif module is brown:
        words = {"train": 800_001, "validation": 200_021, "test": 161_170}
        assert found.facts["words"] == words
        assert len(row["words"]) == len(row["tags"]) == len(row["text"].split())
        assert len(found.classes) == 182
    elif module is peoples_daily:
        assert found.facts["characters"] == 1_841_657
        assert "/" not in row["text"]
    else:
        assert row["source"].isascii()
        assert row["id"] == "Esther 1:2"


@pytest.mark.network
@pytest.mark.parametrize(
    ("dataset", "count"), [("wordsim353", 353), ("simlex999", 999), ("men", 2997)]
)
def test_the_real_word_pairs(real, dataset, count):
    found = real(word_similarity, "test", dataset=dataset)
    assert len(found.rows) == count
    assert isinstance(found.rows[0]["score"], float)
