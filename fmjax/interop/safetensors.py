"""Read safetensors files as hostile input, and write them.

The format: 8 bytes little-endian length, a JSON header {name: {dtype, shape,
data_offsets}}, then the raw numbers (https://github.com/huggingface/safetensors). The
library reads duplicate keys and names such as `../x` without complaint, so the header
is checked here in full before a byte of data is read, from the same open file.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np
import safetensors.numpy

from fmjax import files

HEADER_LIMIT = 8_000_000  # bytes: some 80,000 tensors, and JSON takes 50 times as much
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000  # as transformers splits them
NAME_LIMIT = 512
RANK_LIMIT = 32

DTYPES = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
}


class Tensor(NamedTuple):
    """Where one tensor lies: begin and end are bytes from the end of the header."""

    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All tensors of one file, in the file's order, as arrays in host memory.

    Raises ValueError, which names the file and the tensor, for anything malformed:
    overlaps, holes, trailing bytes, duplicate or unsafe names, unknown dtypes, sizes
    that do not fit.
    """
    with open(path, "rb") as file:
        try:
            start, tensors = _header(file)
            return {name: _tensor(file, start, t) for name, t in tensors.items()}
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def read_directory(directory: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint directory: model.safetensors, or its shards.

    Shards are what model.safetensors.index.json lists, by plain file names in the same
    directory; every tensor must lie in the shard which the index says, and no others.
    Raises FileNotFoundError where there is neither, ValueError as `read`.
    """
    directory = Path(directory)
    single, index = directory / "model.safetensors", directory / INDEX
    if single.exists():
        return read(single)
    if not index.exists():
        other = sorted(p.name for p in directory.glob("*.bin"))
        hint = f"; {other[0]} is a pickle, convert it to safetensors" if other else ""
        raise FileNotFoundError(
            f"{directory} has neither model.safetensors nor {INDEX}{hint}"
        )
    if index.stat().st_size > HEADER_LIMIT:
        raise ValueError(f"{index}: larger than {HEADER_LIMIT:,} bytes")
    try:
        where = _where(parse_json(index.read_bytes()))
    except ValueError as error:
        raise ValueError(f"{index}: {error}") from None

    tensors: dict[str, np.ndarray] = {}
    for shard in sorted(set(where.values())):
        found = read(directory / shard)
        expected = {name for name, file in where.items() if file == shard}
        if wrong := sorted(expected ^ set(found)):
            raise ValueError(
                f"{directory / shard} and {INDEX} disagree on {', '.join(wrong[:5])}"
            )
        tensors |= found
    return tensors


def write(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes one file, whole or not at all (a temporary file, then a rename)."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    whole = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    # Without this key transformers refuses the file.
    safetensors.numpy.save_file(whole, part, metadata={"format": "pt"})
    os.replace(part, path)


def write_directory(
    directory: Path, tensors: Mapping[str, np.ndarray], shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes model.safetensors, or shards of at most `shard_bytes` and their index.

    A larger tensor has a shard of its own. What an earlier call wrote there and this
    one does not is removed, once the new files are complete.
    """
    shards: list[dict[str, np.ndarray]] = [{}]
    room = shard_bytes
    for name, array in tensors.items():
        if shards[-1] and array.nbytes > room:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = array
        room -= array.nbytes
    old = {*directory.glob("model-*-of-*.safetensors"), directory / INDEX}
    if len(shards) == 1:
        write(directory / "model.safetensors", shards[0])
    else:
        where: dict[str, str] = {}
        for i, shard in enumerate(shards, 1):
            file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
            write(directory / file, shard)
            where |= dict.fromkeys(shard, file)
        total = sum(array.nbytes for array in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": where}
        files.write_json(directory / INDEX, index)
        old -= {directory / file for file in where.values()} | {directory / INDEX}
        old.add(directory / "model.safetensors")
    for stale in old:
        stale.unlink(missing_ok=True)


def parse_json(raw: bytes) -> Any:
    """JSON, strictly: UTF-8, no key twice, no NaN; every failure is a ValueError."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in items:
            if key in out:
                raise ValueError(f"the key {key!r} is there twice")
            out[key] = value
        return out

    def constant(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(
            raw.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant
        )
    except RecursionError:
        raise ValueError("JSON is nested too deep") from None


def _header(file: BinaryIO) -> tuple[int, dict[str, Tensor]]:
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise ValueError(f"truncated: header of {length:,} bytes in {size:,}")
    if length > HEADER_LIMIT:
        raise ValueError(f"header of {length:,} bytes is over {HEADER_LIMIT:,}")
    header = parse_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("the header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise ValueError("__metadata__ does not map strings to strings")

    tensors = {name: _entry(name, entry) for name, entry in header.items()}
    at = 0
    for name, tensor in sorted(tensors.items(), key=lambda kv: (kv[1][2:], kv[0])):
        if tensor.begin != at:
            what = "overlaps the one before" if tensor.begin < at else "leaves a hole"
            raise ValueError(f"tensor {name!r} {what}, at byte {tensor.begin:,}")
        at = tensor.end
    if at != size - 8 - length:
        raise ValueError(
            f"{size - 8 - length:,} bytes of data, the header describes {at:,}"
        )
    return 8 + length, tensors


def _entry(name: str, entry: Any) -> Tensor:
    check_name(name)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r} must have dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise ValueError(f"tensor {name!r} has unknown dtype {kind!r:.40}")
    if not _sizes(shape) or len(shape) > RANK_LIMIT:
        raise ValueError(f"tensor {name!r} has no valid shape: {shape!r:.80}")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"tensor {name!r} has no valid data_offsets: {offsets!r:.80}")
    dtype = DTYPES[kind]
    expected = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != expected:
        raise ValueError(
            f"tensor {name!r}, {kind} {shape}, takes {expected:,} bytes; "
            f"data_offsets {offsets} give {offsets[1] - offsets[0]:,}"
        )
    return Tensor(dtype, tuple(shape), *offsets)


def check_name(name: str) -> None:
    """Raises ValueError where a tensor's name could be mistaken for a path."""
    if not 0 < len(name) <= NAME_LIMIT:
        raise ValueError(f"a tensor's name has 1 to {NAME_LIMIT} characters: {name!r}")
    if ".." in name or name.startswith(("/", "~")) or "\\" in name:
        raise ValueError(f"unsafe tensor name {name!r}")
    if not name.isprintable():
        raise ValueError(f"control character in tensor name {name!r}")


def _sizes(values: Any) -> bool:
    # An upper bound on each keeps the product's cost small; bool is an int in Python.
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 2**63 for value in values
    )


def _where(index: Any) -> dict[str, str]:
    where = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(where, dict) or not where:
        raise ValueError("no weight_map")
    for name, shard in where.items():
        check_name(name)
        if not isinstance(shard, str) or not re.fullmatch(
            r"\w[\w.-]{0,200}\.safetensors", shard, re.ASCII
        ):
            raise ValueError(f"unsafe shard name {shard!r:.80}")
    return where


def _tensor(file: BinaryIO, start: int, tensor: Tensor) -> np.ndarray:
    file.seek(start + tensor.begin)
    array = np.empty(tensor.shape, tensor.dtype)
    if file.readinto(array.reshape(-1).view(np.uint8)) != tensor.end - tensor.begin:  # type: ignore[attr-defined]
        raise ValueError("the file became shorter while it was read")
    return array
