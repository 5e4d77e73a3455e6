"""Read torch's own files (.pth, .pt, .bin) as hostile input, running nothing in them.

Since torch 1.6 a file is a zip archive: PREFIX/data.pkl, a program that builds the
dictionary of tensors (`torch_program`), and PREFIX/data/KEY, the raw numbers. Before it
was a row of programs (a magic number, a version, the machine's sizes, the dictionary,
the keys of its storages), and then each storage with its count in front.
"""

import math
import os
import zipfile
from typing import Any, BinaryIO

import numpy as np

from fmjax.data import archives
from fmjax.interop import safetensors
from fmjax.interop.torch_program import Storage, Tensor, run

PROGRAM_LIMIT = 64_000_000  # bytes of data.pkl
ENTRY_LIMIT = 200_000  # files in the archive
REPEAT_LIMIT = 4  # tensors may share numbers, but not make up many times the file
NESTED = ("state_dict", "model")  # where training scripts keep the weights
# What the older format begins with: a program that says 0x1950a86a20f9469cfc6c.
LEGACY, VERSION = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e"), 1001


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All tensors of one file by name, in the file's order, in host memory.

    A dictionary that holds the tensors under 'state_dict' or 'model' will do too.
    Raises ValueError, which names the file, for anything but plain tensors: a program
    that names anything else, a storage that is absent or of another size, compressed or
    oversized members, tensors that reach out of their storage.
    """
    with open(path, "rb") as file:
        try:
            return _read(file)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        except (
            *(zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError),
            OSError,  # a seek to a place before the file, as a wrong header asks for
        ) as error:
            raise ValueError(f"{path}: damaged archive: {error}") from None


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    size = os.fstat(file.fileno()).st_size
    if file.read(len(LEGACY)) == LEGACY:
        found, storages = _row(file.read())
    elif zipfile.is_zipfile(file):
        with archives.open_zip(file, ENTRY_LIMIT) as archive:
            found, storages = _archive(archive, size)
    else:
        raise ValueError("neither a zip archive nor torch's older format")
    total = sum(math.prod(t.shape) * t.storage.dtype.itemsize for t in found.values())
    if total > REPEAT_LIMIT * size:
        raise ValueError(f"tensors of {total:,} bytes in a file of {size:,}")
    return {name: _view(name, t, storages[t.storage]) for name, t in found.items()}


def _archive(
    archive: zipfile.ZipFile, size: int
) -> tuple[dict[str, Tensor], dict[Storage, np.ndarray]]:
    members = _members(archive, size)
    program = members.get("data.pkl")
    if program is None:
        raise ValueError("no data.pkl: not written by torch.save")
    if "constants.pkl" in members:
        raise ValueError("a TorchScript program, not a dictionary of tensors")
    if program.file_size > PROGRAM_LIMIT:
        raise ValueError(f"data.pkl is larger than {PROGRAM_LIMIT:,} bytes")
    order = members.get("byteorder")
    if order is not None and (order.file_size > 16 or archive.read(order) != b"little"):
        raise ValueError("only little-endian files are read")
    found = _flat(run(archive.read(program))[0])
    storages: dict[Storage, np.ndarray] = {}
    for name, storage in _storages(found).items():
        member = members.get(f"data/{storage.key}")
        if member is None:
            raise ValueError(f"{name}: no data/{storage.key} in the archive")
        want = storage.size * storage.dtype.itemsize
        if member.file_size != want:
            raise ValueError(
                f"{name}: data/{storage.key} has {member.file_size:,} bytes, not the "
                f"{want:,} of {storage.size:,} {storage.dtype}"
            )
        storages[storage] = np.frombuffer(archive.read(member), storage.dtype)
    return found, storages


def _row(data: bytes) -> tuple[dict[str, Tensor], dict[Storage, np.ndarray]]:
    """As `_archive`, from what follows the magic number in the older format."""
    at, values = 0, []
    for _ in range(4):
        value, end = run(data[at : at + PROGRAM_LIMIT])
        values.append(value)
        at += end
    version, machine, state, keys = values
    # What a program builds is never printed whole: lists that hold one list many times,
    # thirty deep, are short to write and take gigabytes as text.
    if type(version) is not int or type(machine) is not dict:
        raise ValueError("no version, or no sizes of a machine, of the older format")
    if version != VERSION:
        raise ValueError(f"version {version} of the older format is not known")
    if machine.get("little_endian") is not True:
        raise ValueError("only little-endian files are read")
    found = _flat(state)
    names = {storage.key: name for name, storage in _storages(found).items()}
    if (
        type(keys) is not list
        or any(type(key) is not str for key in keys)
        or sorted(keys) != sorted(names)
    ):
        raise ValueError("the list of storages is not that of the tensors")
    storages: dict[Storage, np.ndarray] = {}
    for key in keys:
        storage = found[names[key]].storage
        count = int.from_bytes(data[at : at + 8], "little")
        if count != storage.size:
            raise ValueError(f"{names[key]}: {count:,} numbers, not {storage.size:,}")
        end = at + 8 + count * storage.dtype.itemsize
        if end > len(data):
            raise ValueError(f"{names[key]}: the file ends within its numbers")
        storages[storage] = np.frombuffer(data[at + 8 : end], storage.dtype)
        at = end
    if at != len(data):
        raise ValueError(f"{len(data) - at:,} bytes after the last storage")
    return found, storages


def _storages(found: dict[str, Tensor]) -> dict[str, Storage]:
    """Each storage once, by a tensor that it holds."""
    first: dict[str, tuple[str, Storage]] = {}
    for name, tensor in found.items():
        storage = tensor.storage
        if first.setdefault(storage.key, (name, storage))[1] != storage:
            raise ValueError(f"{name}: storage {storage.key} has two kinds of numbers")
    return dict(first.values())


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The archive's files by their name after the common folder."""
    infos = archive.infolist()
    if sum(info.file_size for info in infos) > size:
        raise ValueError("the members are larger than the file that holds them")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        folder, _, name = info.filename.partition("/")
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{info.filename!r:.80} is compressed; torch never does")
        if name in members or folder != infos[0].filename.partition("/")[0]:
            raise ValueError(f"{info.filename!r:.80}: two files of one name")
        members[name] = info
    return members


def _flat(value: Any) -> dict[str, Tensor]:
    """The dictionary of tensors that a program made, or that lies in what it made."""
    for key in NESTED:
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
    if not isinstance(value, dict):
        raise ValueError(f"holds a {type(value).__name__}, not a dictionary of tensors")
    for name, tensor in value.items():
        if not isinstance(tensor, Tensor) or not isinstance(name, str):
            raise ValueError(
                f"the entry {name!r:.80} is no tensor; save the model's state_dict() "
                f"alone, or under {' or '.join(map(repr, NESTED))}"
            )
        safetensors.check_name(name)
    return value


def _view(name: str, tensor: Tensor, numbers: np.ndarray) -> np.ndarray:
    """A copy of what a tensor sees of its storage."""
    shape, strides = tensor.shape, tensor.strides
    if 0 in shape:
        return np.empty(shape, numbers.dtype)
    last = tensor.offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if last >= numbers.size or math.prod(shape) > numbers.size:
        raise ValueError(f"{name}: {shape} reaches out of its {numbers.size:,} numbers")
    view = np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :],
        shape,
        [stride * numbers.itemsize for stride in strides],
        writeable=False,
    )
    return np.array(view, order="C")
