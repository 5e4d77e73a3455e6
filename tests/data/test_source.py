"""Rows, splits by hash, and the normal form that finds near-copies."""

import pytest

from fmjax.data import source


def test_split_of_is_fixed_and_has_its_shares():
    names = [source.split_of(str(i), 0.1, 0.2) for i in range(10_000)]
    assert names == [source.split_of(str(i), 0.1, 0.2) for i in range(10_000)]
    assert abs(names.count("test") / 10_000 - 0.2) < 0.02
    assert abs(names.count("validation") / 10_000 - 0.1) < 0.02
    # sha256('1') begins with 6b86; a change here would move every published split.
    assert source.fraction("1") == pytest.approx(0x6B86 / 0x10000, abs=1e-4)


def test_normal_finds_near_copies():
    assert source.normal("  The END, he said!\n") == source.normal("the end -- he said")
    assert source.normal("the end") != source.normal("the ends")


def test_mapped_rows_are_addressed_from_both_ends_and_no_further():
    rows = source.Mapped([1, 2, 3], lambda x: {"id": x})
    assert [rows[i]["id"] for i in (0, -1)] == [1, 3]
    with pytest.raises(IndexError, match=r"row 3 of 3"):
        rows[3]


def test_read_resolves_a_spec_by_file_name():
    found = source.read({"name": "synthetic_text", "size": 8}, "train")
    assert len(found.rows) == 8
    for name in ("nothing", "", "../x", "os.path"):
        with pytest.raises(ValueError, match=r"no source .*fmjax/data/sources"):
            source.read({"name": name}, "train")
    with pytest.raises(TypeError, match=r"sise"):
        source.read({"name": "synthetic_text", "sise": 8}, "train")


def test_an_unknown_split_lists_the_known():
    with pytest.raises(ValueError, match=r"'dev'; the splits are train, validation"):
        source.check_split("dev")
