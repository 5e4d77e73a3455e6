"""The user's own plain text: documents, places, bad bytes."""

import pytest

from fmjax.data.sources import text

ALL = {"holdout": (0, 0)}


def rows_of(found):
    return [found.rows[i] for i in range(len(found.rows))]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "texts"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_bytes(b"\xef\xbb\xbfOne.\r\nStill one.\r\n\r\n\r\nTwo.\r\n")
    (root / "sub" / "b.txt").write_text("\n\nThree.\n")
    (root / "c.md").write_text("Not asked for.")
    return root


def test_documents_by_blank_line(folder):
    found = text.load("train", path=str(folder), **ALL)
    assert rows_of(found) == [
        {"text": "One.\nStill one.", "id": "a.txt:1"},
        {"text": "Two.", "id": "a.txt:5"},
        {"text": "Three.", "id": "sub/b.txt:3"},
    ]
    assert found.facts["files"] == 2
    assert found.classes == ()


def test_documents_by_file(folder):
    found = text.load("train", path=str(folder), documents="file", **ALL)
    assert [r["text"] for r in rows_of(found)] == [
        "One.\nStill one.\n\n\nTwo.",
        "Three.",
    ]
    one = text.load("train", path=str(folder / "c.md"), documents="file", **ALL)
    assert rows_of(one) == [{"text": "Not asked for.", "id": "c.md:1"}]


def test_bad_documents_are_named(folder):
    (folder / "d.txt").write_bytes(b"Good.\n\nBad \xff here.\n")
    (folder / "e.txt").write_bytes(b" \n")
    with pytest.raises(ValueError, match=r"2 of 6 rows are bad") as caught:
        text.load("train", path=str(folder), **ALL)
    assert "d.txt line 3: byte 0xff is not UTF-8" in str(caught.value)
    assert "e.txt line 1: no text in the file" in str(caught.value)
    found = text.load("train", path=str(folder), bad_rows="skip", **ALL)
    assert len(found.rows) == 4
    assert found.facts["bad rows"]["count"] == 2


def test_splits(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("\n\n".join(f"Document {i}." for i in range(300)))
    parts = [text.load(s, path=str(path)) for s in ("train", "validation", "test")]
    sets = [{row["text"] for row in rows_of(found)} for found in parts]
    assert sum(map(len, sets)) == 300 == len(set.union(*sets))
    (tmp_path / "train.txt").write_text("Train.")
    pattern = str(tmp_path / "{split}.txt")
    assert rows_of(text.load("train", path=pattern))[0]["text"] == "Train."
    with pytest.raises(FileNotFoundError, match=r"no file .*test.txt"):
        text.load("test", path=pattern)


def test_wrong_settings(folder):
    with pytest.raises(ValueError, match=r"'blank' or 'file'"):
        text.load("train", path=str(folder), documents="page")
    with pytest.raises(FileNotFoundError, match=r"no files \*.rst; set data.pattern"):
        text.load("train", path=str(folder), pattern="*.rst")
    with pytest.raises(ValueError, match=r"no documents for the split 'test'"):
        text.load("test", path=str(folder), **ALL)
