"""Writes files as torch.save does, so that tests need no torch."""

import struct
import zipfile

from fmjax.interop.torch_files import LEGACY
from fmjax.interop.torch_program import DTYPES


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value):
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(kind, key, count, offset, shape, strides):
    """Instructions that push one tensor: a view of the storage `key`."""
    storage = text("storage") + name("torch", kind) + text(key) + text("cpu")
    storage = b"(" + storage + number(count) + b"tQ"
    empty = name("collections", "OrderedDict") + b")R"
    arguments = storage + number(offset) + numbers(shape) + numbers(strides)
    return (
        name("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + arguments
        + b"\x89"
        + empty
        + b"tR"
    )


def state(items, wrap=()):
    """A program for an ordered dictionary of items, inside dictionaries by `wrap`."""
    entries = b"".join(text(key) + value for key, value in items.items())
    body = name("collections", "OrderedDict") + b")R(" + entries + b"u"
    # The dictionary's versions, as state_dict() has them.
    body += b"}" + text("_metadata") + name("collections", "OrderedDict") + b")Rsb"
    for key in reversed(wrap):
        body = b"}(" + text("epoch") + number(3) + text(key) + body + b"u"
    return b"\x80\x02" + body + b"."


def program(tensors, wrap=()):
    """(program, {key: raw numbers}) of arrays by name."""
    kinds = {dtype: kind for kind, dtype in DTYPES.items()}
    items, files = {}, {}
    for key, (label, value) in enumerate(tensors.items()):
        strides = [step // value.itemsize for step in value.strides]
        kind = kinds[value.dtype]
        items[label] = tensor(kind, str(key), value.size, 0, value.shape, strides)
        files[str(key)] = value.tobytes()
    return state(items, wrap), files


def archive(path, program, files, compression=zipfile.ZIP_STORED, more=None):
    with zipfile.ZipFile(path, "w", compression) as out:
        out.writestr("archive/data.pkl", program)
        out.writestr("archive/version", "3\n")
        for key, raw in files.items():
            out.writestr(f"archive/data/{key}", raw)
        for member, raw in (more or {}).items():
            out.writestr(member, raw)


def write(path, tensors, wrap=()):
    """As torch.save of a dictionary of C-ordered arrays."""
    archive(path, *program(tensors, wrap))


def write_row(path, tensors, wrap=()):
    """As torch.save did before version 1.6."""
    body, files = program(tensors, wrap)
    version = b"\x80\x02" + number(1001) + b"."
    machine = b"\x80\x02}" + text("little_endian") + b"\x88s."
    keys = b"\x80\x02](" + b"".join(map(text, files)) + b"e."
    numbers = b"".join(
        struct.pack("<q", tensors[name].size) + raw
        for name, raw in zip(tensors, files.values(), strict=True)
    )
    path.write_bytes(LEGACY + version + machine + body + keys + numbers)
