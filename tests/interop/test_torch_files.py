"""torch's own files: what is read, what is refused, and that nothing in them runs."""

import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest

from experiments.hostile import torch_writer as writer
from fmjax.interop import torch_files, torch_program

RANDOM = np.random.default_rng(0)
TENSORS = {
    "conv.weight": RANDOM.normal(size=(4, 3, 2, 2)).astype(np.float32),
    "half": RANDOM.normal(size=(3,)).astype(np.float16),
    "brain": RANDOM.normal(size=(2, 1)).astype(ml_dtypes.bfloat16),
    "double": RANDOM.normal(size=(2, 3)),
    "count": np.array(7, np.int64),
    "mask": np.array([True, False]),
    "nothing": np.zeros((0, 3), np.float32),
}


@pytest.mark.parametrize("wrap", [(), ("state_dict",), ("model",)])
def test_every_tensor_is_read_as_it_was(tmp_path, wrap):
    writer.write(tmp_path / "a.pth", TENSORS, wrap)
    found = torch_files.read(tmp_path / "a.pth")
    assert list(found) == list(TENSORS)
    for name, value in TENSORS.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        np.testing.assert_array_equal(found[name], value)


def test_strides_and_shared_storages(tmp_path):
    numbers = np.arange(12, dtype=np.float32)
    view = lambda *where: writer.tensor("FloatStorage", "0", 12, *where)  # noqa: E731
    items = {
        "turned": view(0, (4, 3), (1, 4)),
        "row": view(4, (4,), (1,)),
        "single": view(11, (), ()),
    }
    writer.archive(tmp_path / "a.pth", writer.state(items), {"0": numbers.tobytes()})
    found = torch_files.read(tmp_path / "a.pth")
    table = numbers.reshape(3, 4)
    np.testing.assert_array_equal(found["turned"], table.T)
    np.testing.assert_array_equal(found["row"], table[1])
    assert found["single"] == 11
    assert all(array.flags.c_contiguous for array in found.values())


CALLS = {
    "os.system": b"cos\nsystem\n",
    "posix.system": b"cposix\nsystem\n",
    "builtins.eval": b"cbuiltins\neval\n",
    "torch.load": b"ctorch\nload\n",
    "torch._utils._rebuild_parameter": b"ctorch._utils\n_rebuild_parameter\n",
    "collections.Counter": b"ccollections\nCounter\n",
    "torch.FloatStorage.x": b"ctorch\nFloatStorage.x\n",
}


@pytest.mark.parametrize("name", CALLS)
def test_other_names_are_refused_by_name_and_nothing_runs(tmp_path, name):
    canary = tmp_path / "canary"
    command = writer.text(f"touch {canary}")
    program = b"\x80\x02" + CALLS[name] + command + b"\x85R."
    if name in ("os.system", "posix.system"):  # the program is live
        pickle.loads(program)  # noqa: S301
        assert canary.exists()
        canary.unlink()
    writer.archive(tmp_path / "a.pth", program, {})
    with pytest.raises(
        ValueError, match=rf"a\.pth: .* names '{name}'.*nothing was run"
    ):
        torch_files.read(tmp_path / "a.pth")
    stacked = b"\x80\x04" + b"".join(map(writer.text, name.rsplit(".", 1))) + b"\x93"
    with pytest.raises(ValueError, match=f"names '{name}'"):
        torch_program.run(stacked + command + b"\x85R.")
    assert not canary.exists()


@pytest.mark.parametrize(
    "code", [b"i", b"o", b"\x81", b"\x92", b"\x82", b"P", b"V", b"2"]
)
def test_other_instructions_are_refused(code):
    with pytest.raises(
        ValueError, match=r"instruction .* at byte 2, which tensors do not"
    ):
        torch_program.run(b"\x80\x02" + code + b".")


FLOAT = writer.name("torch", "FloatStorage")
PAIR = writer.tensor("FloatStorage", "0", 2, 0, (2,), (1,))
MALFORMED = {
    "an empty program": b"",
    "no end": b"\x80\x02}",
    "nothing on the stack": b".",
    "two on the stack": b"}}.",
    "a mark in a tuple": b"((\x86.",
    "no such memory": b"h\x07.",
    "a text beyond the end": b"X\xff\xff\xff\x7fab.",
    "a text that is no text": b"X\x01\x00\x00\x00\xff.",
    "an odd number of items": b"}(K\x01u.",
    "a key twice": b"}(K\x01NK\x01Nu.",
    "a list as key": b"}(]Nu.",
    "items of a list": b"](K\x01Nu.",
    "a large number": b"\x8a\x09" + b"\x01" * 9 + b".",
    "a call of no name": b"K\x01)R.",
    "a call of a storage": FLOAT + b")R.",
    "a filled dictionary": writer.name("collections", "OrderedDict") + b"]\x85R.",
    "a tensor of nothing": writer.name("torch._utils", "_rebuild_tensor_v2") + b")R.",
    "a storage of an unknown kind": b"(" + writer.text("blob") + FLOAT + b"tQ.",
    "a storage with a path as key": PAIR.replace(writer.text("0"), writer.text("../0"))
    + b".",
    "a storage of a negative size": PAIR.replace(b"J\x02\0\0\0", b"J\xff\xff\xff\xff")
    + b".",
    "a size that is true": PAIR.replace(b"J\x02\0\0\0", b"\x88") + b".",
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_programs_are_refused(what):
    with pytest.raises(ValueError, match=r"the program|twice|64 bits"):
        torch_program.run(MALFORMED[what])


def pack(tmp_path, program=None, files=None, **changes):
    files = {"0": np.ones(2, np.float32).tobytes()} if files is None else files
    program = writer.state({"a": PAIR}) if program is None else program
    writer.archive(tmp_path / "a.pth", program, files, **changes)
    return torch_files.read(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": {}}, r"a: no data/0 in the archive"),
        ({"files": {"0": b"1234"}}, r"a: data/0 has 4 bytes, not the 8 of 2 float32"),
        ({"compression": zipfile.ZIP_DEFLATED}, "is compressed; torch never does"),
        ({"more": {"x/data.pkl": b"."}}, "two files of one name"),
        ({"more": {"archive/byteorder": b"big"}}, "only little-endian"),
        ({"more": {"archive/constants.pkl": b""}}, "a TorchScript program"),
        ({"program": b"]."}, "holds a list, not a dictionary of tensors"),
        ({"program": b"}(" + writer.text("a") + b"Nu."}, "the entry 'a' is no tensor"),
        ({"program": writer.state({"../a": PAIR})}, "unsafe tensor name"),
        (
            {
                "program": writer.state(
                    {"a": writer.tensor("FloatStorage", "0", 2, 1, (2,), (1,))}
                )
            },
            r"a: \(2,\) reaches out of its 2 numbers",
        ),
        (
            {
                "program": writer.state(
                    {"a": writer.tensor("FloatStorage", "0", 2, 0, (9,), (0,))}
                )
            },
            r"a: \(9,\) reaches out of its 2 numbers",
        ),
        (
            {
                "program": writer.state(
                    {"a": writer.tensor("FloatStorage", "0", 2, 0, (10**9,), (0,))}
                )
            },
            "tensors of 4,000,000,000 bytes in a file of",
        ),
        (
            {
                "program": writer.state(
                    {
                        "a": PAIR,
                        "b": writer.tensor("LongStorage", "0", 2, 0, (1,), (1,)),
                    }
                )
            },
            r"b: storage 0 has two kinds of numbers",
        ),
    ],
)
def test_archives_that_do_not_hold_plain_tensors_are_refused(
    tmp_path, changes, message
):
    assert list(pack(tmp_path)) == ["a"]
    with pytest.raises(ValueError, match=rf"a\.pth: .*{message}"):
        pack(tmp_path, **changes)


@pytest.mark.parametrize("wrap", [(), ("state_dict",)])
def test_the_format_of_before_1_6_is_read_by_the_same_rules(tmp_path, wrap):
    path = tmp_path / "a.pth"
    some = {name: value for name, value in TENSORS.items() if value.size}
    writer.write_row(path, some, wrap)
    found = torch_files.read(path)
    assert list(found) == list(some)
    for name, value in some.items():
        np.testing.assert_array_equal(found[name], value)
    whole = path.read_bytes()
    for data, message in (
        (whole[:-1], "mask: the file ends within its numbers"),
        (whole + b"0", "1 bytes after the last storage"),
        (whole.replace(writer.number(1001), writer.number(1002)), "version 1002"),
        (whole.replace(b"\x88s.", b"\x89s."), "only little-endian"),
        (
            whole.replace(b"torch._utils", b"torch._evils"),
            "names 'torch._evils._rebuild",
        ),
        (
            whole.replace(b"\x30\0\0\0\0\0\0\0", b"\x31\0\0\0\0\0\0\0"),
            "49 numbers, not 48",
        ),
        (torch_files.LEGACY, "truncated"),
    ):
        assert data != whole
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"a\.pth: .*{message}"):
            torch_files.read(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(b"words")
    with pytest.raises(ValueError, match="neither a zip archive nor"):
        torch_files.read(path)


@pytest.mark.parity
def test_what_torch_writes_is_read(tmp_path):
    torch = pytest.importorskip("torch", reason="needs the parity extra")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    given = net.state_dict() | {"turned": torch.arange(12.0).reshape(3, 4).T[1:]}
    for protocol in (2, 3, 4, 5):
        path = tmp_path / f"{protocol}.pth"
        content = {"state_dict": given, "epoch": 3, "lr": [0.1, None], "done": True}
        torch.save(content, path, pickle_protocol=protocol)
        found = torch_files.read(path)
        assert list(found) == list(given)
        for name, value in given.items():
            np.testing.assert_array_equal(found[name], value.numpy())
    writer.write(tmp_path / "ours.pth", {"a": TENSORS["double"]})
    theirs = torch.load(tmp_path / "ours.pth", weights_only=True)
    np.testing.assert_array_equal(theirs["a"].numpy(), TENSORS["double"])
    torch.save(given, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    found = torch_files.read(tmp_path / "old.pth")
    for name, value in given.items():
        np.testing.assert_array_equal(found[name], value.numpy())
