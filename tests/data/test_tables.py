"""The user's own CSV, JSON lines and Parquet: bad rows by line, splits, classes."""

import json
import sys

import pytest

from fmjax.data.sources import csv, jsonl, parquet

ALL = {"holdout": (0, 0)}


def rows_of(found):
    return [found.rows[i] for i in range(len(found.rows))]


def texts(found):
    return [row["text"] for row in rows_of(found)]


@pytest.fixture
def write(tmp_path):
    def write(content, name="data.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def test_csv_with_quotes_bom_and_crlf(write):
    path = write(
        '\ufefftext,label\r\n"a, ""b""",pos\r\n\r\n"two\r\nlines",neg\r\nc,pos\r\n'
    )
    found = csv.load("train", path=path, **ALL)
    assert rows_of(found) == [
        {"text": 'a, "b"', "label": 1, "id": 2},
        {"text": "two\r\nlines", "label": 0, "id": 4},
        {"text": "c", "label": 1, "id": 6},
    ]
    assert found.classes == ("neg", "pos")
    assert found.facts["counts"] == {"neg": 1, "pos": 2}
    assert found.facts["bad rows"] == {"count": 0, "first": []}


BAD_CSV = (
    b"text,label\n"  # 1
    b'"one\nmore",pos\n'  # 2, 3
    b"only one column\n"  # 4
    b"three,pos,columns\n"  # 5
    b"good,neg\n"  # 6
    b"caf\xe9,pos\n"  # 7
    b'  ,pos\n"a" b,pos\n'  # 8, 9
    b"no label,\n"  # 10
)


def test_csv_bad_rows_are_refused_by_line(write):
    with pytest.raises(ValueError, match="6 of 8 rows are bad") as caught:
        csv.load("train", path=write(BAD_CSV), **ALL)
    message = str(caught.value)
    for part in (
        "line 4: 1 columns, and the header has 2",
        "line 5: 3 columns",
        "line 7: byte 0xe9 is not UTF-8",
        "line 8: field 'text' is empty",
        "line 9: not CSV",
        "and 1 more",
        "data.bad_rows=skip",
    ):
        assert part in message


def test_csv_bad_rows_are_skipped_when_told(write):
    found = csv.load("train", path=write(BAD_CSV), bad_rows="skip", **ALL)
    assert texts(found) == ["one\nmore", "good"]
    assert found.facts["bad rows"]["count"] == 6
    assert "line 4" in found.facts["bad rows"]["first"][0]
    assert found.facts["rows"] == 2
    with pytest.raises(ValueError, match="'refuse' or 'skip'"):
        csv.load("train", path=write(BAD_CSV), bad_rows="drop", **ALL)


def test_an_open_quote_is_named_by_its_first_line(write):
    with pytest.raises(ValueError, match="line 3: not CSV"):
        csv.load("train", path=write('text,label\na,b\n"never\nclosed,b\n'), **ALL)


def test_jsonl_bad_rows(write):
    lines = [
        b'{"text": "good", "label": 1}',
        b"",
        b'{"text": "cut',
        b"[1]",
        b'{"label": 0}',
        b'{"text": 5, "label": 0}',
        b'{"text": "caf\xe9", "label": 0}',
        b'{"text": "", "label": 0}',
        b'{"text": "fine", "label": null}',
        b'{"text": "two", "label": 0}',
    ]
    path = write(b"\n".join(lines), "data.jsonl")
    with pytest.raises(ValueError, match="7 of 9 rows are bad") as caught:
        jsonl.load("train", path=path, **ALL)
    for part in (
        "line 3: not JSON",
        "line 4: not a JSON object",
        "line 5: no field 'text' (the fields are label)",
        "line 6: field 'text' is int, not text",
        "line 7: byte 0xe9",
        "and 2 more",
    ):
        assert part in str(caught.value)
    found = jsonl.load("train", path=path, bad_rows="skip", **ALL)
    assert texts(found) == ["good", "two"]
    assert [row["label"] for row in rows_of(found)] == [1, 0]
    assert found.facts["bad rows"]["count"] == 7


def test_labels_of_each_kind_and_given_classes(write):
    def load(labels, **fields):
        lines = [
            json.dumps({"text": f"t{i}", "label": x}) for i, x in enumerate(labels)
        ]
        path = write("\n".join(lines), "data.jsonl")
        return jsonl.load("train", path=path, **ALL, **fields)

    assert load([10, 9, 2]).classes == ("2", "9", "10")
    assert load([True, False]).classes == ("false", "true")
    given = load(["b", "a"], classes=("b", "a", "c"))
    assert [row["label"] for row in rows_of(given)] == [0, 1]
    with pytest.raises(ValueError, match="line 2: label 'x' is none of b, a"):
        load(["b", "x"], classes=("b", "a"))


def test_pairs_and_no_labels(write):
    path = write("q,a\nwho,me\nwhat,that\n")
    found = csv.load("train", path=path, text="q", text2="a", label=None, **ALL)
    assert rows_of(found)[0] == {"text": "who", "text2": "me", "id": 2}
    assert found.classes == ()


def test_a_column_that_is_not_there_lists_those_that_are(write):
    with pytest.raises(
        ValueError, match=r"no field 'label' \(the fields are text, y\)"
    ):
        csv.load("train", path=write("text,y\na,b\n"), **ALL)
    with pytest.raises(ValueError, match="two columns have one name"):
        csv.load("train", path=write("text,text\na,b\n"), **ALL)
    with pytest.raises(ValueError, match="must name the columns"):
        csv.load("train", path=write(""), **ALL)


def test_a_single_file_is_split_by_content(write):
    lines = [f"text {i},{i % 3}" for i in range(600)]
    path = write("\n".join(["text,label", *lines, *lines[:50]]))
    parts = {s: csv.load(s, path=path) for s in ("train", "validation", "test")}
    sizes = {s: len(found.rows) for s, found in parts.items()}
    assert sum(sizes.values()) == 650
    assert 0.7 < sizes["train"] / 650 < 0.9
    sets = [set(texts(found)) for found in parts.values()]
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]
    assert {found.classes for found in parts.values()} == {("0", "1", "2")}
    assert len({found.facts["fingerprint"] for found in parts.values()}) == 3
    turned = write("\n".join(["text,label", *reversed(lines)]), "turned.csv")
    assert set(texts(csv.load("test", path=turned))) == sets[2]


def test_files_for_splits(write, tmp_path):
    write("text,label\na,x\nb,y\n", "train.csv")
    write("text,label\nc,y\n", "test.csv")
    pattern = str(tmp_path / "{split}.csv")
    found = csv.load("test", path=pattern)
    assert rows_of(found) == [{"text": "c", "label": 1, "id": 2}]
    assert found.classes == ("x", "y")
    with pytest.raises(
        FileNotFoundError, match=r"validation.*there is test.csv, train"
    ):
        csv.load("validation", path=pattern)
    named = {"train": str(tmp_path / "train.csv")}
    assert len(csv.load("train", path=named).rows) == 2
    with pytest.raises(FileNotFoundError, match="only for train; add one, or give a"):
        csv.load("test", path=named)
    write("text,label\nd,new\n", "validation.csv")
    with pytest.raises(ValueError, match="label 'new' is none of x, y"):
        csv.load("validation", path=pattern)


def test_settings_that_leave_nothing(write):
    path = write("text,label\na,x\n")
    with pytest.raises(ValueError, match="no rows for the split 'test' with holdout"):
        csv.load("test", path=path, holdout=(0, 0))
    for holdout in ((0.5, 0.5), (-0.1, 0.1), (0.1,)):
        with pytest.raises(ValueError, match=r"it is \(validation, test\)"):
            csv.load("train", path=path, holdout=holdout)


def test_the_fingerprint_follows_content_and_settings(write):
    first = csv.load("train", path=write("text,label\na,x\nb,y\n"), **ALL)
    moved = csv.load("train", path=write("text,label\na,x\nb,y\n", "moved.csv"), **ALL)
    other = csv.load("train", path=write("text,label\na,x\nc,y\n"), **ALL)
    assert first.facts["fingerprint"] == moved.facts["fingerprint"]
    assert first.facts["fingerprint"] != other.facts["fingerprint"]


def test_tab_separated(write):
    path = write('text\tlabel\na, b\tx\n"c"\ty\n', "data.tsv")
    assert texts(csv.load("train", path=path, delimiter="\t", **ALL)) == ["a, b", "c"]


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    write_table = pytest.importorskip("pyarrow.parquet").write_table
    path = str(tmp_path / "data.parquet")
    columns = {"text": ["a", None, "c"], "label": ["x", "y", "y"], "more": [1, 2, 3]}
    write_table(pyarrow.table(columns), path)
    with pytest.raises(ValueError, match="line 2: field 'text' is empty"):
        parquet.load("train", path=path, **ALL)
    found = parquet.load("train", path=path, bad_rows="skip", **ALL)
    assert rows_of(found) == [
        {"text": "a", "label": 0, "id": 1},
        {"text": "c", "label": 1, "id": 3},
    ]
    with pytest.raises(ValueError, match="no column body; its columns are text, label"):
        parquet.load("train", path=path, text="body", **ALL)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match="is not a Parquet file"):
        parquet.load("train", path=str(tmp_path / "bad.parquet"), **ALL)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "x.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'fmjax\[parquet\]'"):
        parquet.load("train", path=str(tmp_path / "x.parquet"))
