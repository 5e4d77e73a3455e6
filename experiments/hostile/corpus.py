"""Small honest files of every format that is read, and ways to spoil them.

All of it is made here by code; nothing is anybody's file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments.hostile import torch_writer

KINDS = (
    *("safetensors", "torch", "torch-program", "torch-older"),
    *("zip", "tar", "tar.gz", "tar.xz", "deb"),
)
CANARY = "canary"  # what a hostile program would make

# What mutations put in: parts of names, numbers at the edges, instructions.
TOKENS = (
    *(b"../", b"/", b"..", b"\\", b"\0", b"\n", b"~", b"C:", b"\xff", b"\xe2\x80\xae"),
    *(
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"-1",
        b"1e9",
        b"NaN",
        b"null",
        b"true",
    ),
    *(b"9223372036854775807", b"18446744073709551616", b"[" * 2000, b"0" * 30),
    *(struct.pack("<I", n) for n in (0, 1, 2**31 - 1, 2**31, 2**32 - 1)),
    *(struct.pack("<Q", n) for n in (0, 2**31, 2**63 - 1, 2**64 - 1)),
    *(b"cos\nsystem\n", b"cposix\nsystem\n", b"ios\nsystem\n", b"cbuiltins\neval\n"),
    *(b"X\x0c\0\0\0touch canary", b"R", b"b", b"i", b"o", b"\x81", b"\x92", b"P0\n"),
    *(b"(", b"t", b"h\0", b"q\0", b"0", b"2", b"\x93", b"Q", b"c", b"."),
    *(b"PK\1\2", b"PK\5\6", b"77777777777\0", b"\x80" + b"\xff" * 11, b"ustar\0"),
)
LIVE = b"cposix\nsystem\nX\x0c\0\0\0touch canary\x85R0"


def tensors(seed: int) -> dict[str, np.ndarray]:
    """A few arrays of several kinds and shapes."""
    chance = np.random.default_rng(seed)
    return {
        "layer.0.weight": chance.normal(size=(2, 3)).astype(np.float32),
        "layer.0.bias": chance.normal(size=3).astype(np.float16),
        "ids": chance.integers(0, 99, 4 + seed),
        "flag": np.array([True, False]),
        "scalar": np.array(3.5),
    }


def safetensors_of(arrays: dict[str, np.ndarray]) -> bytes:
    """A file in the safetensors format, written by hand."""
    kinds = {"float32": "F32", "float16": "F16", "int64": "I64", "bool": "BOOL"}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, array in arrays.items():
        end = len(data) + array.nbytes
        header[name] = {
            "dtype": kinds.get(array.dtype.name, "F64"),
            "shape": list(array.shape),
            "data_offsets": [len(data), end],
        }
        data += array.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


MEMBERS = {
    "./pack/readme.txt": b"words " * 20,
    "pack/data/one.bin": bytes(range(64)),
    "pack/data/two.bin": b"",
    "pack/caf\u00e9.txt": b"name",
}


def tar_of(members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive with a folder, the members, and a link that stays inside."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        folder = tarfile.TarInfo("pack")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zip_of(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name.removeprefix("./"))
            info.external_attr, info.compress_type = 0o100644 << 16, method
            archive.writestr(info, content)
    return out.getvalue()


def deb_of(data: bytes, name: bytes = b"data.tar.xz") -> bytes:
    """A Debian package around a compressed tar."""

    def part(label: bytes, content: bytes) -> bytes:
        head = label.ljust(16) + b"0".ljust(12) + b"0".ljust(6) + b"0".ljust(6)
        head += b"100644".ljust(8) + str(len(content)).encode().ljust(10) + b"`\n"
        return head + content + b"\n" * (len(content) % 2)

    parts = part(b"debian-binary", b"2.0\n") + part(b"control.tar.xz", b"odd")
    return b"!<arch>\n" + parts + part(name, data)


def mutate(data: bytes, chance: random.Random, lively: int = 0) -> bytes:
    """`data` with one to eight changes; at least one byte differs, or is gone.

    lively: changes fall within the first so many bytes; 0 is anywhere.
    """
    content = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        if not content:
            break
        at = chance.randrange(min(lively or len(content), len(content)))
        some = chance.randrange(1, 17)
        match chance.randrange(9):
            case 0 | 1:
                content[at] ^= 1 << chance.randrange(8)
            case 2:
                content[at] = chance.randrange(256)
            case 3:
                content[at] = chance.choice(b'0123456789,:"[]{}-./ ')
            case 4:
                del content[at : at + some]
            case 5:
                content[at:at] = content[at : at + some]
            case 6:
                token = chance.choice(TOKENS)
                content[at : at + len(token)] = token
            case 7:
                content[at:at] = chance.choice(TOKENS)
            case 8:
                if chance.random() < 0.3:
                    del content[at:]
    return bytes(content)


def resum(data: bytes) -> bytes:
    """A tar whose headers' checksums are right again, so that they are looked at."""
    content = bytearray(data)
    for at in range(0, len(content) - 511, 512):
        if content[at + 257 : at + 262] == b"ustar":
            content[at + 148 : at + 156] = b" " * 8
            total = sum(content[at : at + 512])
            content[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(content)


def spoiled_tar(chance: random.Random) -> bytes:
    form = chance.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    data = mutate(tar_of(MEMBERS, form), chance)
    return resum(data) if chance.random() < 0.7 else data


def spoiled_zip(chance: random.Random) -> bytes:
    """Bytes changed, or a name changed alike in both of its places."""
    method = chance.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED))
    data = zip_of(MEMBERS, method)
    if chance.random() < 0.5:
        return mutate(data, chance)
    name = chance.choice(("pack/readme.txt", "pack/data/one.bin")).encode()
    other = mutate(name, chance)[: len(name)].ljust(len(name), b"x")
    return data.replace(name, other)


def spoiled_program(chance: random.Random, folder: Path) -> bytes:
    """A torch file with a spoiled program, and checksums that are right."""
    program, files = torch_writer.program(tensors(chance.randrange(3)))
    if chance.random() < 0.2:
        at = chance.randrange(2, len(program))
        program = program[:at] + LIVE + program[at:]
    else:
        program = mutate(program, chance)
    path = folder / "made"
    torch_writer.archive(path, program, files)
    return path.read_bytes()


def honest(kind: str, folder: Path) -> bytes:
    """An honest file of a kind."""
    path = folder / "made"
    match kind:
        case "safetensors":
            return safetensors_of(tensors(0))
        case "torch" | "torch-program":
            torch_writer.write(path, tensors(0), ("state_dict",))
            return path.read_bytes()
        case "torch-older":
            torch_writer.write_row(path, tensors(0))
            return path.read_bytes()
        case "zip":
            return zip_of(MEMBERS)
        case "tar":
            return tar_of(MEMBERS)
        case "tar.gz":
            return gzip.compress(tar_of(MEMBERS), mtime=0)
        case "tar.xz":
            return lzma.compress(tar_of(MEMBERS))
        case "deb":
            return deb_of(lzma.compress(tar_of(MEMBERS)))
    raise ValueError(f"no kind {kind!r}; there are {', '.join(KINDS)}")


def spoiler(kind: str, folder: Path) -> Callable[[random.Random], bytes]:
    """A function of chance that makes spoiled files of a kind."""
    whole = honest(kind, folder)
    match kind:
        case "safetensors":
            start = 8 + int.from_bytes(whole[:8], "little")

            def header(chance: random.Random) -> bytes:
                """The header's length is right again in one of two."""
                data = mutate(whole, chance, start)
                length = struct.pack("<Q", max(len(data) - len(whole) + start - 8, 0))
                return length + data[8:] if chance.random() < 0.5 else data

            return header
        case "torch-program":
            return lambda chance: spoiled_program(chance, folder)
        case "zip":
            return spoiled_zip
        case "tar":
            return spoiled_tar
        case "tar.gz":
            squeeze = (lambda x: gzip.compress(x, 1), lambda x: bz2.compress(x, 1))
        case "tar.xz":
            squeeze = (lambda x: lzma.compress(x, preset=0),) * 2
        case "deb":
            squeeze = (lambda x: deb_of(gzip.compress(x, 1), b"data.tar.gz"),) * 2
        case _:
            return lambda chance: mutate(whole, chance)

    def compressed(chance: random.Random) -> bytes:
        """Spoiled inside, or outside."""
        if chance.random() < 0.6:
            return chance.choice(squeeze)(spoiled_tar(chance))
        return mutate(whole, chance)

    return compressed
