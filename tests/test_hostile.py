"""Files that somebody has tampered with: short versions of experiments/hostile."""

import json
import os
import pickletools
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from experiments.hostile import bombs, corpus, torch_writer
from fmjax.data import archives
from fmjax.interop import safetensors, torch_files, torch_program
from tests.runs import ROOT

QUICK = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def found():
    """What became of 100 spoiled files of each kind, and of the bombs."""
    words = [sys.executable, "-m", "experiments.hostile.fuzz", *corpus.KINDS, "bombs"]
    done = subprocess.run(
        [*words, "--files", "100", "--seed", "1"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode in (0, 1), done.stderr[-2000:]
    return {line["kind"]: line for line in lines}


@pytest.mark.parametrize("kind", corpus.KINDS)
def test_spoiled_files_fool_no_reader(found, kind):
    """In 1 GB: read as they are, or refused by name; nothing runs, is left, hangs."""
    assert found[kind]["wrong"] == []
    assert found[kind]["files"] == 100
    assert 0 < found[kind]["accepted"] < 90, "all harmless, or all refused: void"


def test_bombs_are_refused_in_little_memory_and_time(found):
    assert found["bombs"]["wrong"] == []
    assert found["bombs"]["refused"] == len(bombs.BOMBS) >= 25


def test_the_judges_see(tmp_path, monkeypatch):
    """A reader that lies is found out."""
    from experiments.hostile import fuzz

    path = tmp_path / "file"
    path.write_bytes(corpus.honest("safetensors", tmp_path))
    assert fuzz.same_as_the_library(path) is None
    wrong = safetensors.read(path) | {"ids": np.arange(4)[::-1]}
    monkeypatch.setattr(safetensors, "read", lambda path: wrong)
    assert "ids has other numbers" in fuzz.same_as_the_library(path)
    path.write_bytes(corpus.honest("torch", tmp_path))
    assert fuzz.numbers_of_the_file(path) is None
    made = {"a": np.array([1.2345])}
    monkeypatch.setattr(torch_files, "read", lambda path: made)
    assert "a number that the file has not" in fuzz.numbers_of_the_file(path)
    monkeypatch.setattr(archives, "unpack", lambda path, out, **caps: ["../x"])
    assert "other files" in fuzz.unpacked_inside(path)


# The line between names that are read and names that are not, drawn again.
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
SAFE = NAMES.filter(
    lambda name: (
        name.isprintable()
        and ".." not in name
        and "\\" not in name
        and name[0] not in "/~"
        and name != "__metadata__"
    )
)
ARRAYS = st.tuples(
    st.sampled_from(sorted(safetensors.DTYPES)),
    st.lists(st.integers(0, 4), max_size=4),
    st.integers(0, 2**32 - 1),
)


@given(st.dictionaries(SAFE, ARRAYS, max_size=5))
@settings(QUICK, max_examples=25)
def test_any_honest_tensors_are_read_back(tmp_path, given_tensors):
    header, data = {}, b""
    for name, (kind, shape, seed) in given_tensors.items():
        size = int(np.prod(shape)) * safetensors.DTYPES[kind].itemsize
        raw = np.random.default_rng(seed).bytes(size)
        header[name] = {
            "dtype": kind,
            "shape": shape,
            "data_offsets": [len(data), len(data) + size],
        }
        data += raw
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    read = safetensors.read(path)
    assert list(read) == list(given_tensors)
    assert b"".join(array.tobytes() for array in read.values()) == data


WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["a", "b", "dtype", "shape", "data_offsets", "../a"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(WILD, st.binary(max_size=40))
@example({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}, b"12")
@QUICK
def test_any_other_header_is_refused(tmp_path, header, data):
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    try:
        read = safetensors.read(path)
    except ValueError as refusal:
        told = str(refusal)
    else:
        told = path.name
        assert b"".join(array.tobytes() for array in read.values()) == data
    assert path.name in told


CODES = [
    code.code.encode("latin1") for code in pickletools.opcodes
]  # all there are, known to the reader or not


@given(
    st.lists(
        st.sampled_from(CODES)
        | st.sampled_from([corpus.LIVE, *corpus.TOKENS])
        | st.just(torch_writer.tensor("FloatStorage", "0", 2, 0, (2,), (1,)))
        | st.binary(max_size=4),
        max_size=30,
    )
)
@QUICK
def test_any_program_builds_plain_values_or_is_refused(pieces):
    plain = (dict, list, tuple, str, int, float, bool, type(None))
    ours = (torch_program.Name, torch_program.Storage, torch_program.Tensor)
    try:
        value, end = torch_program.run(b"".join(pieces) + b".")
    except ValueError:
        return
    assert type(value) in (*plain, *ours)
    assert end <= len(b"".join(pieces)) + 1


PARTS = st.sampled_from(
    [
        *("a", "b", "..", ".", "", "~", "C:", "con", "A", "..\\", "\0", " ", "x" * 300),
        *("\u202e", "\u200d", "\uff0e\uff0e", "\uff0f", "e\u0301", "\u00e9"),
    ]
)


@given(
    st.lists(st.lists(PARTS, min_size=1, max_size=4).map("/".join), max_size=5),
    st.sampled_from(["tar", "zip"]),
    st.sampled_from([b"file", b"link", b"device"]),
)
@QUICK
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_nothing_is_written_outside_whatever_the_names(tmp_path, names, kind, last):
    room = tmp_path / "room" / "inner"
    room.mkdir(parents=True, exist_ok=True)
    path = room / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(zipfile.ZipInfo(name), b"1")
    else:
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
            for i, name in enumerate(names):
                info = tarfile.TarInfo(name)
                if i == len(names) - 1 and last != b"file":
                    link = last == b"link"
                    info.type = tarfile.SYMTYPE if link else tarfile.CHRTYPE
                    info.linkname = "../../x"
                archive.addfile(info)
    try:
        written = archives.unpack(path, room / "out")
    except (archives.Refused, KeyError):
        assert not (room / "out").exists()
    else:
        inside = [p for p in (room / "out").rglob("*") if not p.is_dir()]
        assert sorted(str(p.relative_to(room / "out")) for p in inside) == written
        assert not any(p.is_symlink() for p in inside)
        for p in sorted((room / "out").rglob("*"), reverse=True):
            p.rmdir() if p.is_dir() else p.unlink()
        (room / "out").rmdir()
    path.unlink()
    assert list((tmp_path / "room").rglob("*")) == [room], "left, or outside"


def test_a_zip_in_a_zip_stays_a_file(tmp_path):
    data = bytes(1 << 20)
    for _ in range(4):
        data = corpus.zip_of({"inner.zip": data})
    (tmp_path / "a.zip").write_bytes(data)
    assert archives.unpack(tmp_path / "a.zip", tmp_path / "out") == ["inner.zip"]
    assert (tmp_path / "out/inner.zip").stat().st_size < 10_000


@pytest.mark.parametrize("at", [0, 512, 1536])
def test_a_tar_with_a_damaged_header_is_not_a_shorter_one(tmp_path, at):
    """tarfile takes a header that it cannot read for the end."""
    data = bytearray(corpus.tar_of({"a": b"1", "b": b"2"}))
    data[at] ^= 1
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    with pytest.raises(archives.Refused, match=r"a\.tar.*damaged"):
        archives.unpack(path, tmp_path / "out")
    path.write_bytes(corpus.tar_of({"a": b"1"})[: 512 * 3])
    with pytest.raises(archives.Refused, match=r"a\.tar.*cut short"):
        archives.unpack(path, tmp_path / "out")


@pytest.mark.parametrize(
    "names", [("a", "a\u200d"), ("stra\u00dfe", "STRASS\u00adE"), ("\u202eexe.txt",)]
)
def test_names_that_look_alike_or_turn_round(tmp_path, names):
    path = tmp_path / "a.zip"
    path.write_bytes(corpus.zip_of(dict.fromkeys(names, b"1")))
    with pytest.raises(archives.Refused, match=r"collides|control characters"):
        archives.unpack(path, tmp_path / "out")


def test_xz_streams_that_follow_each_other_are_read(tmp_path):
    import lzma

    data = corpus.tar_of({"a": b"1" * 5000})
    path = tmp_path / "a.tar.xz"
    path.write_bytes(lzma.compress(data[:700]) + lzma.compress(data[700:]))
    assert archives.unpack(path, tmp_path / "out") == ["a"]
    assert (tmp_path / "out/a").read_bytes() == b"1" * 5000
    for cut in (20, 40):
        path.write_bytes(lzma.compress(data)[:-cut])
        with pytest.raises(archives.Refused, match="damaged"):
            archives.unpack(path, tmp_path / "other")


def test_the_corpus_is_read(tmp_path):
    for kind in corpus.KINDS:
        path = tmp_path / "file"
        path.write_bytes(corpus.honest(kind, tmp_path))
        if kind == "safetensors" or kind.startswith("torch"):
            read = safetensors.read if kind == "safetensors" else torch_files.read
            for name, array in read(path).items():
                np.testing.assert_array_equal(array, corpus.tensors(0)[name])
        else:
            folder = Path(tmp_path, f"of-{kind}")
            written = archives.unpack(path, folder)
            assert len(written) == len(corpus.MEMBERS)
            assert (folder / "pack/readme.txt").read_bytes() == b"words " * 20
