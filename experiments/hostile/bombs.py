"""Files that are small, or quick to write, and would take all memory or time."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from experiments.hostile import corpus, torch_writer
from fmjax.interop import torch_files


def header(text: bytes) -> Callable[[Path], object]:
    """A safetensors file of a header alone."""
    return lambda path: path.write_bytes(struct.pack("<Q", len(text)) + text)


def program(body: bytes) -> Callable[[Path], object]:
    """A torch file whose program is this."""
    return lambda path: torch_writer.archive(path, b"\x80\x02" + body, {})


def doubled(depth: int) -> bytes:
    """A program for a list that holds one twice, that holds one twice, and so on."""
    body = b"]q\0"
    for level in range(1, depth):
        body = b"](" + body + bytes([104, level - 1]) + b"eq" + bytes([level])
    return b"\x80\x02" + body + b"."


def older(place: int) -> Callable[[Path], object]:
    """torch's older format with such a list in place of its n-th program."""
    parts = [
        b"\x80\x02" + torch_writer.number(1001) + b".",
        b"\x80\x02}" + torch_writer.text("little_endian") + b"\x88s.",
        torch_writer.state({}),
        b"\x80\x02].",
    ]
    parts[place] = doubled(60)
    return lambda path: path.write_bytes(torch_files.LEGACY + b"".join(parts))


def member_list(count: int) -> bytes:
    """A zip archive that lists one member very often."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a", b"")
    data = out.getvalue()
    start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entries = data[start:end] * count
    # The count of 16 bits does not matter: the list is read to the end of its length.
    tail = data[end : end + 8] + b"\xff\xfe" * 2
    return data[:start] + entries + tail + struct.pack("<IIH", len(entries), start, 0)


def folded(layers: int, size: int) -> bytes:
    """A zip whose members all are the same deflated bytes (after Fifield 2019)."""
    zeros, squeezed = bytes(size), zlib.compressobj(9, zlib.DEFLATED, -15)
    data = squeezed.compress(zeros) + squeezed.flush()
    sizes = (zlib.crc32(zeros), len(data), size)
    whole = struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, 0, 8, 0, 33, *sizes, 1, 0)
    whole += b"a" + data
    entries = b""
    for _ in range(layers):
        fields = (0x02014B50, 20, 20, 0, 8, 0, 33, *sizes, 1, *[0] * 6)
        entries += struct.pack("<IHHHHHHIIIHHHHHII", *fields) + b"a"
    ends = (0x06054B50, 0, 0, layers, layers, len(entries), len(whole), 0)
    return whole + entries + struct.pack("<IHHHHIIH", *ends)


def zeros_tar(size: int) -> bytes:
    """The beginning of a tar with one file of so many zeros."""
    info = tarfile.TarInfo("zeros")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def records(count: int, size: int) -> bytes:
    """A tar of headers alone, each with very many records."""
    body = b"6 a=b\n" * (size // 6)
    return (extended(len(body)) + body + bytes(-len(body) % 512)) * count


def extended(size: int) -> bytes:
    """The first block of a tar's header of so many bytes."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, size
    return info.tobuf(tarfile.GNU_FORMAT)


def large_dictionary(data: bytes) -> bytes:
    """An xz file that asks for a dictionary of 1.5 GB (xz format 1.1, 3.1, 5.3.1)."""
    made = bytearray(lzma.compress(data, preset=0))
    at, length = 12, (made[12] + 1) * 4  # the first block's header
    if made[at + 2 : at + 4] != b"\x21\1":
        raise AssertionError("lzma wrote another filter than LZMA2")
    made[at + 4] = 37
    sum32 = zlib.crc32(bytes(made[at : at + length - 4]))
    made[at + length - 4 : at + length] = struct.pack("<I", sum32)
    return bytes(made)


def other_method(path: Path, method: int) -> None:
    path.write_bytes(corpus.zip_of({"a": bytes(1 << 20)}, method))


TINY = b'{"":0,' + b",".join(b'"%x":0' % n for n in range(700_000)) + b"}"

BOMBS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a header's length of 2**64 - 1": (
        "safetensors",
        lambda path: path.write_bytes(b"\xff" * 8 + b"{}"),
    ),
    "lists in a header": ("safetensors", header(b"[" + b"[]," * 2_600_000 + b"1]")),
    "dictionaries in a header": (
        "safetensors",
        header(b"[" + b"{}," * 2_600_000 + b"1]"),
    ),
    "nesting in a header": ("safetensors", header(b'{"a":' * 1_000_000)),
    "names in a header": ("safetensors", header(TINY)),
    "dimensions in a header": (
        "safetensors",
        header(b'{"a":{"dtype":"U8","shape":[' + b"9," * 3_000_000 + b'9],"x":0}}'),
    ),
    "a program of lists": ("torch", program(b"]" * 20_000_000)),
    "a program of dictionaries": ("torch", program(b"}" * 20_000_000)),
    "a program of marks": ("torch", program(b"(" * 20_000_000)),
    "a program that remembers": ("torch", program(b"N" + b"\x94" * 20_000_000)),
    "tuples in tuples": ("torch", program(b"N" + b"\x85" * 900_000 + b".")),
    "a list twice in a list": ("torch", lambda p: program(doubled(60)[2:])(p)),
    "such a list as version": ("torch-older", older(0)),
    "such a list as machine": ("torch-older", older(1)),
    "such a list as state": ("torch-older", older(2)),
    "such a list as keys": ("torch-older", older(3)),
    "a torch file of a million members": (
        "torch",
        lambda path: path.write_bytes(member_list(1_000_000)),
    ),
    "a torch file that is compressed": (
        "torch",
        lambda path: torch_writer.archive(
            path, torch_writer.state({}), {"0": bytes(1 << 26)}, zipfile.ZIP_DEFLATED
        ),
    ),
    "a zip of a million members": (
        "zip",
        lambda path: path.write_bytes(member_list(1_000_000)),
    ),
    "members that share their bytes": (
        "zip",
        lambda path: path.write_bytes(folded(900, 1 << 24)),
    ),
    "a zip by lzma": ("zip", lambda path: other_method(path, zipfile.ZIP_LZMA)),
    "a zip by bzip2": ("zip", lambda path: other_method(path, zipfile.ZIP_BZIP2)),
    "a terabyte of zeros by gzip": (
        "tar.gz",
        lambda p: p.write_bytes(gzip.compress(zeros_tar(1 << 40) + bytes(1 << 26), 1)),
    ),
    "a terabyte of zeros by bzip2": (
        "tar.gz",
        lambda p: p.write_bytes(bz2.compress(zeros_tar(1 << 40) + bytes(1 << 24), 1)),
    ),
    "zeros after the end": (
        "tar.gz",
        lambda p: p.write_bytes(
            gzip.compress(corpus.tar_of(corpus.MEMBERS) + bytes(1 << 26), 1)
        ),
    ),
    "a header of 8 GB": (
        "tar.gz",
        lambda p: p.write_bytes(gzip.compress(extended(1 << 33) + bytes(1 << 20))),
    ),
    "headers and nothing else": (
        "tar.gz",
        lambda p: p.write_bytes(gzip.compress(records(200, 1_000_000), 1)),
    ),
    "a dictionary of 1.5 GB": (
        "tar.xz",
        lambda p: p.write_bytes(large_dictionary(corpus.tar_of(corpus.MEMBERS))),
    ),
    "a terabyte of zeros in a package": (
        "deb",
        lambda p: p.write_bytes(
            corpus.deb_of(lzma.compress(zeros_tar(1 << 40) + bytes(1 << 26), preset=0))
        ),
    ),
}
