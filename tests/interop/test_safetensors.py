"""safetensors files as hostile input."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from fmjax.interop.safetensors import DTYPES, read, write


def pack(header, data=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(shape=(2,), begin=0, end=8, dtype="F32", **more):
    fields = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    return fields | more


def test_reads_what_the_library_writes(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {
        "a.b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "scalar": np.array(3, np.int64),
        "empty": np.zeros((0, 4), np.float16),
        "flags": np.array([True, False]),
        "bytes": np.arange(3, dtype=np.uint8),
    }
    safetensors.numpy.save_file(tensors, path, metadata={"any": "thing"})
    found = read(path)
    assert set(found) == set(tensors)
    for name, expected in tensors.items():
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize("kind", DTYPES)
def test_reads_every_dtype(kind, tmp_path):
    path = tmp_path / "x.safetensors"
    array = np.array([0, 1, 1], DTYPES[kind])
    header = {"x": entry([3], 0, array.nbytes, kind)}
    path.write_bytes(pack(header, array.tobytes()))
    found = read(path)["x"]
    assert found.dtype == DTYPES[kind]
    np.testing.assert_array_equal(found, array)


def test_bfloat16_is_the_upper_half_of_float32(tmp_path):
    path = tmp_path / "x.safetensors"
    values = np.array([1.5, -2.0, 3.25], np.float32)
    upper = (values.view(np.uint32) >> 16).astype("<u2")
    path.write_bytes(pack({"x": entry([3], 0, 6, "BF16")}, upper.tobytes()))
    assert read(path)["x"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(read(path)["x"].astype(np.float32), values)


def test_written_files_are_the_library_s_and_whole(tmp_path):
    path = tmp_path / "x.safetensors"
    transposed = np.arange(6, dtype=np.float32).reshape(2, 3).T
    write(path, {"x": transposed})
    np.testing.assert_array_equal(safetensors.numpy.load_file(path)["x"], transposed)
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


HOSTILE = {
    "empty file": (b"", "truncated"),
    "short length": (b"\1\0\0", "truncated"),
    "length beyond the file": (pack({}, length=99), "truncated"),
    "length of 2**64 - 1": (b"\xff" * 8 + b"{}", "truncated"),
    "huge header": (pack(b" " * 8_000_001), "is over"),
    "not UTF-8": (pack(b'{"\xff": 1}'), "utf-8"),
    "not JSON": (pack(b"{"), "delimiter|property|Expecting"),
    "not an object": (pack([]), "not a JSON object"),
    "deep JSON": (pack(b"[" * 100_000), "nested too deep"),
    "NaN": (pack(b'{"__metadata__": NaN}'), "NaN"),
    "an integer of 10,000 digits": (pack(b'{"x": ' + b"9" * 10_000 + b"}"), "digits"),
    "duplicate key": (
        pack(b'{"x": 1, "x": 2}'),
        "'x' is there twice",
    ),
    "duplicate key within": (
        pack(b'{"x": {"dtype": "F32", "dtype": "F16"}}'),
        "'dtype' is there twice",
    ),
    "metadata of numbers": (pack({"__metadata__": {"a": 1}}), "__metadata__"),
    "overlap": (
        pack({"x": entry(), "y": entry(begin=4, end=12)}, bytes(12)),
        "'y' overlaps",
    ),
    "same bytes twice": (pack({"x": entry(), "y": entry()}, bytes(8)), "overlaps"),
    "hole": (
        pack({"x": entry(), "y": entry(begin=12, end=20)}, bytes(20)),
        "'y' leaves a hole",
    ),
    "hole in front": (pack({"x": entry(begin=4, end=12)}, bytes(12)), "hole"),
    "trailing bytes": (pack({"x": entry()}, bytes(9)), "9 bytes of data"),
    "data without tensors": (pack({}, bytes(1)), "1 bytes of data"),
    "truncated data": (pack({"x": entry()}, bytes(7)), "7 bytes of data"),
    "size of another dtype": (pack({"x": entry(dtype="F64")}, bytes(8)), "takes 16"),
    "overflowing shape": (pack({"x": entry([2**62, 4])}, bytes(8)), "takes"),
    "wrapping shape": (pack({"x": entry([2**63])}, bytes(8)), "no valid shape"),
    "empty but immense": (pack({"x": entry([0, 2**62], 0, 0)}), "x"),
    "negative shape": (pack({"x": entry([-2])}, bytes(8)), "no valid shape"),
    "boolean shape": (pack({"x": entry([True, 2])}, bytes(8)), "no valid shape"),
    "fractional shape": (pack({"x": entry([2.0])}, bytes(8)), "no valid shape"),
    "rank 33": (pack({"x": entry([1] * 32 + [2])}, bytes(8)), "no valid shape"),
    "offsets backwards": (pack({"x": entry(begin=8, end=0)}, bytes(8)), "offsets"),
    "negative offsets": (pack({"x": entry(begin=-8, end=0)}, bytes(8)), "offsets"),
    "unknown dtype": (pack({"x": entry(dtype="F31")}, bytes(8)), "unknown dtype 'F31'"),
    "dtype of a list": (pack({"x": entry(dtype=["F32"])}, bytes(8)), "unknown dtype"),
    "a key more": (pack({"x": entry(more=1)}, bytes(8)), "must have dtype"),
    "no name": (pack({"": entry()}, bytes(8)), "1 to 512 characters"),
    "long name": (pack({"x" * 513: entry()}, bytes(8)), "1 to 512 characters"),
} | {
    f"name {name!r}": (pack({name: entry()}, bytes(8)), "tensor name")
    for name in ("../x", "a/../b", "/x", "~x", "a\0b", "a\nb", "a\\b", "\u202ex")
}


@pytest.mark.parametrize("name", HOSTILE)
def test_malformed_files_are_refused_by_name(name, tmp_path):
    content, message = HOSTILE[name]
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert "hostile.safetensors" in str(caught.value)
