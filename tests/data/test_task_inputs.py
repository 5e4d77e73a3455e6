"""Inputs of BERT's tasks: words and tags, choices, pairs, questions on passages."""

import json

import numpy as np
import pytest

from fmjax.data import source, tokenizer
from fmjax.data.inputs import (
    choices,
    question_span,
    sentence_pair_score,
    token_tags,
)
from fmjax.data.sources import question_windows, records, synthetic_tasks


def words_of(task, size=40):
    corpus = {"name": "synthetic_tasks", "task": task, "size": size}
    return tokenizer.get(corpus=corpus, vocab_size=200)


@pytest.mark.parametrize(
    "task", ["translation", "tags", "choices", "pairs", "questions"]
)
def test_rows_are_functions_of_their_index(task):
    found = synthetic_tasks.load("train", task=task, size=12)
    again = synthetic_tasks.load("train", task=task, size=12)
    rows = [found.rows[i] for i in range(12)]
    assert rows == [again.rows[i] for i in range(12)]
    assert rows[0] != synthetic_tasks.load("test", task=task, size=12).rows[0]
    assert len(synthetic_tasks.load("test", task=task, size=12).rows) == 3
    with pytest.raises(IndexError, match=r"row 12 of 12"):
        found.rows[12]
    with pytest.raises(ValueError, match=r"task is one of translation"):
        synthetic_tasks.load("train", task="riddles")


def test_the_made_up_answers_are_right():
    for i in range(12):
        row = synthetic_tasks.load("train", task="translation", size=12).rows[i]
        mirrored = sorted(word[::-1] for word in row["target"].split())
        assert mirrored == sorted(row["source"].split())
        row = synthetic_tasks.load("train", task="choices", size=12).rows[i]
        right = row["choices"][row["label"]].split()[-1]
        assert right in row["text"]
        assert sum(c.split()[-1] in row["text"] for c in row["choices"]) == 1
        row = synthetic_tasks.load("train", task="questions", size=12).rows[i]
        at = row["start"]
        assert row["context"][at : at + len(row["answer"])] == row["answer"]


def test_tags_stand_at_first_pieces():
    words = words_of("tags")
    make = token_tags.make(tokenizer=words, length=32, classes=synthetic_tasks.TAGS)
    row = {"words": ["kitelamps", "the", "lamp", "."], "tags": [2, 0, 2, 5]}
    one = make(row)
    pieces = [words.encode(w, add_special_tokens=False).ids for w in row["words"]]
    assert len(pieces[0]) > 1
    starts = np.cumsum([1, *map(len, pieces)])[:-1]
    assert np.flatnonzero(one["weights"]).tolist() == starts.tolist()
    assert one["targets"][starts].tolist() == row["tags"]
    real = one["inputs"]["tokens"][one["inputs"]["mask"]].tolist()
    ends = [tokenizer.role(words, "cls"), tokenizer.role(words, "sep")]
    assert real == [ends[0], *(t for piece in pieces for t in piece), ends[1]]
    new = make({"text": "the lamps ."})
    assert new["weights"].sum() == 3
    short = token_tags.make(tokenizer=words, length=len(pieces[0]) + 3)(row)
    assert short["weights"].sum() == 2
    assert short["inputs"]["mask"].all()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"words": [], "tags": []}, "must be words, none empty"),
        ({"words": ["a", " "], "tags": [0, 0]}, "must be words, none empty"),
        ({"words": ["a"], "tags": [0, 1]}, "1 words and 2 tags"),
        ({"words": ["a"], "tags": [6]}, r"tags \[6\] are none of 6 classes"),
    ],
)
def test_tags_that_do_not_do(row, message):
    make = token_tags.make(tokenizer=words_of("tags"), classes=synthetic_tasks.TAGS)
    with pytest.raises(ValueError, match=f"row 9: .*{message}"):
        make({**row, "id": 9})


def test_a_row_of_choices():
    words = words_of("choices")
    make = choices.make(tokenizer=words, choices=4, length=32)
    row = synthetic_tasks.load("train", task="choices", size=4).rows[0]
    one = make(row)
    assert one["label"] == row["label"]
    for name in ("tokens", "types", "mask"):
        assert one["inputs"][name].shape == (4, 32)
    for i, choice in enumerate(row["choices"]):
        pair = words.encode(row["text"], choice)
        real = one["inputs"]["mask"][i]
        assert one["inputs"]["tokens"][i][real].tolist() == pair.ids
        assert one["inputs"]["types"][i][real].tolist() == pair.type_ids
    with pytest.raises(ValueError, match=r"row 1 has 3 choices, inputs.choices is 4"):
        make({"id": 1, "text": "a", "choices": ["b"] * 3})
    with pytest.raises(ValueError, match=r"label 4 is none of 4 choices"):
        make({"id": 1, "text": "a", "choices": ["b"] * 4, "label": 4})


def test_pairs_and_their_scores():
    words = words_of("pairs")
    make = sentence_pair_score.make(tokenizer=words, length=24, low=1, high=5)
    one = make({"first": "the lamp", "second": "the old lamp", "score": 4})
    assert one["score"] == np.float32(0.75)
    assert one["inputs"]["tokens"].shape == one["inputs"]["mask"].shape == (2, 24)
    second = one["inputs"]["tokens"][1][one["inputs"]["mask"][1]].tolist()
    assert second == words.encode("the old lamp").ids
    with pytest.raises(ValueError, match=r"score 0 is not from 1 to 5; set inputs.low"):
        make({"first": "a", "second": "b", "score": 0})
    with pytest.raises(ValueError, match="row 5: `second` is ''; it must be a text"):
        make({"id": 5, "first": "a", "second": ""})


def test_a_long_context_becomes_windows_that_overlap():
    words = words_of("questions")
    context = " ".join(f"the lamp {i} waits ." for i in range(20))
    start = context.index("lamp 17")
    corpus_row = {
        "question": "what waits ?",
        "context": context,
        "answer": "lamp 17",
        "start": start,
    }
    rows = question_rows([corpus_row], words, length=48, stride=8, question_length=8)
    assert len(rows) > 2
    covered = set()
    make, found = question_span.make(), 0
    for row in rows:
        one = make(row)
        tokens, here = one["inputs"]["tokens"], one["inputs"]["types"] == 1
        # As BERT was pre-trained, and as run_squad.py has it: [SEP] ends the segment.
        assert here.sum() == row["length"] - here.argmax()
        assert tokens[row["length"] - 1] == tokenizer.role(words, "sep")
        here[row["length"] - 1] = False
        spans = [tuple(pair) for pair in row["offsets"][here].tolist()]
        covered |= {c for a, b in spans for c in range(a, b)}
        assert one["inputs"]["mask"].sum() == row["length"]
        if one["end"]:
            a = row["offsets"][one["start"]][0]
            b = row["offsets"][one["end"]][1]
            assert context[a:b] == "lamp 17"
            found += 1
        else:
            assert one["start"] == 0
            assert tokens[0] == tokenizer.role(words, "cls")
    assert found >= 1
    assert covered == {i for i, c in enumerate(context) if c != " "}


def test_an_answer_is_in_a_window_where_all_its_pieces_are():
    words = words_of("questions")
    good = {"question": "what ?", "context": "the lamp waits .", "id": 8}
    bare = question_rows([{**good, "answers": [["lamp", 4]]}], words)[0]
    assert bare["start"] > 0
    for answer in (" lamp", "lamp ", " lamp "):
        at = good["context"].index(answer)
        row = question_rows([{**good, "answers": [[answer, at]]}], words)[0]
        assert (row["start"], row["end"]) == (bare["start"], bare["end"])
    squad = {"text": ["lamp"], "answer_start": [4]}
    with pytest.raises(ValueError, match=r"row 8: `answers` must be pairs of a text"):
        question_rows([{**good, "answers": squad}], words)


def question_rows(rows, words, tmp=None, **fields):
    import pathlib
    import tempfile

    folder = pathlib.Path(tempfile.mkdtemp())
    file = folder / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = {"name": "records", "path": {"train": str(file)}}
    found = question_windows.load("train", corpus=corpus, tokenizer=words, **fields)
    return [found.rows[i] for i in range(len(found.rows))]


def test_questions_that_do_not_do():
    words = words_of("questions")
    good = {"question": "what ?", "context": "the lamp waits .", "id": 8}
    assert question_rows([good], words)[0]["answers"] == []
    none = question_rows([{**good, "answers": []}], words)[0]
    assert (none["start"], none["end"]) == (0, 0)
    with pytest.raises(ValueError, match=r"row 8: the answer 'lamp' is not at char"):
        question_rows([{**good, "answer": "lamp", "start": 3}], words)
    with pytest.raises(ValueError, match=r"row 8: `question` is ''"):
        question_rows([{**good, "question": ""}], words)
    with pytest.raises(ValueError, match=r"length must have room"):
        question_rows([good], words, length=64)


def test_records_are_the_lines(tmp_path):
    lines = [
        {"en": f"text {i}", "es": "texto", "tags": ["B", "A"][: 1 + i % 2]}
        for i in range(40)
    ]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = {
        "name": "records",
        "path": str(file),
        "rename": {"en": "source", "es": "target"},
    }
    parts = [source.read(spec, split) for split in source.SPLITS]
    assert sum(len(part.rows) for part in parts) == 40
    assert all(part.classes == ("A", "B") for part in parts)
    row = parts[0].rows[0]
    assert row["source"].startswith("text ")
    assert row["tags"] in ([1], [1, 0])
    assert isinstance(row["id"], int)


def test_records_say_what_is_wrong(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(
        b'{"source": "a", "label": "x"}\n{"source": ""}\n[1]\n{"s": "\xff"}\n'
    )
    load = {"path": {"train": str(file)}, "needs": ("source",)}
    with pytest.raises(
        ValueError, match=r"3 of 4 rows are bad: a.jsonl line 2: no fie"
    ):
        records.load("train", **load)
    found = records.load("train", **load, bad_rows="skip")
    assert [row["label"] for row in found.rows] == [0]
    with pytest.raises(ValueError, match=r"class 'x' is none of y"):
        records.load("train", path={"train": str(write(tmp_path))}, classes=["y"])
    with pytest.raises(FileNotFoundError, match=r"names no file for the split 'test'"):
        records.load("test", **load)


def write(folder):
    file = folder / "b.jsonl"
    file.write_text('{"label": "x"}\n')
    return file
