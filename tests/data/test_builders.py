"""Own TFDS data sets without TensorFlow: quiet, prepared once, true to their rows."""

import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from fmjax.data import builders


class Toy(builders.Builder):
    TITLE, LICENCE = "A toy", "none"
    made = 0
    fails = False

    def features(self):
        return {
            "text": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["a", "b"]),
            "image": tfds.features.Tensor(
                shape=(2, 3, 1), dtype=np.uint8, encoding="bytes"
            ),
        }

    def rows(self):
        Toy.made += 1

        def split(first, last):
            for i in range(first, last):
                if Toy.fails and i == 5:
                    raise KeyboardInterrupt
                image = np.full((2, 3, 1), i, np.uint8)
                yield {"text": f"naïve {i}", "label": i % 2, "image": image}

        splits = {
            "train": split(0, 10),
            "validation": split(10, 12),
            "test": split(12, 13),
        }
        return splits, {"left out": 3}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(Toy, "made", 0)
    monkeypatch.setattr(Toy, "fails", False)


def test_rows_come_back_in_order_and_only_once_prepared(capsys):
    found = builders.load(Toy, "train", ("a", "b"))
    assert len(found.rows) == 10
    row = found.rows[7]
    assert row["text"] == "naïve 7"
    assert row["label"] == 1
    assert type(row["label"]) is int
    np.testing.assert_array_equal(row["image"], np.full((2, 3, 1), 7, np.uint8))
    assert len(builders.load(Toy, "test").rows) == 1
    assert Toy.made == 1
    assert capsys.readouterr().out == ""
    assert "tensorflow" not in sys.modules
    assert found.facts["counts"] == {"train": 10, "validation": 2, "test": 1}
    assert found.facts["left out"] == 3


def test_a_large_set_is_read_from_disk_with_the_same_rows(monkeypatch):
    held = builders.load(Toy, "train").rows
    monkeypatch.setattr(builders, "_HELD", 0)
    read = builders.load(Toy, "train").rows
    assert not isinstance(read.rows, builders.Held)
    for i in range(10):
        np.testing.assert_equal(read[i], held[i])


def test_what_is_held_is_decoded_once_and_nobody_changes_it(monkeypatch):
    held = builders.load(Toy, "train").rows
    first = held[3]
    monkeypatch.setattr(builders, "decode", lambda row: pytest.fail("decoded again"))
    first["label"] = first["extra"] = 9
    with pytest.raises(ValueError, match="read-only"):
        first["image"][:] = 0
    again = held[3]
    assert again["label"] == 1
    assert "extra" not in again
    np.testing.assert_array_equal(again["image"], np.full((2, 3, 1), 3, np.uint8))


def test_no_more_is_kept_decoded_than_there_is_room_for():
    held = builders.load(Toy, "train").rows
    held.rows.room = 2 * 6  # bytes: two images
    for i in (5, 1, 8, 8):
        np.testing.assert_array_equal(held[i]["image"], np.full((2, 3, 1), i, np.uint8))
    kept = [i for i, row in enumerate(held.rows.rows) if isinstance(row, dict)]
    assert kept == [1, 5]


def test_the_fingerprint_is_of_the_content(monkeypatch, tmp_path):
    first = builders.load(Toy, "train").facts["fingerprint"]
    monkeypatch.setenv("FMJAX_DATA", str(tmp_path / "elsewhere"))
    assert builders.load(Toy, "train").facts["fingerprint"] == first
    assert Toy.made == 2


def test_an_interrupted_preparation_is_made_anew(monkeypatch):
    monkeypatch.setattr(Toy, "fails", True)
    with pytest.raises(KeyboardInterrupt):
        builders.load(Toy, "train")
    monkeypatch.setattr(Toy, "fails", False)
    assert len(builders.load(Toy, "train").rows) == 10


def test_records_without_facts_are_not_trusted(home):
    builders.load(Toy, "train")
    (home / "tfds" / "toy-1.0.0.json").unlink()
    assert builders.load(Toy, "train").facts["counts"]["train"] == 10
    assert Toy.made == 2
