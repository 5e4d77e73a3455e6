"""Digests: is what was read what was written?

Beside the arrays of a step lies `digests.json`, which has its name only together with
the step. It holds the size and the digest of every other file (by a method that it
names), checked before anything is parsed, so that damage is named by file; and a digest
of every array, computed where the array lives before it is written and checked on what
was restored, wherever that lives, which also sees what goes wrong between memory and
file. All of this is against damage: whoever means to forge a file can.
"""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import itertools
import json
import mmap
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from fmjax import offload
from fmjax.config import ConfigError
from fmjax.trees import paths

FILE = "digests.json"
# Beside the items, written after all the rest; nothing that is restored is in them.
LATE = ("commit_success.txt", "_CHECKPOINT_METADATA", FILE)
MARK = "has_digests"  # in a step's metadata: without its digests it is damaged


class Damaged(ValueError):
    """What is on disk is not what was written; the message names the file or array."""


def _mix(x: Any) -> Any:
    """A bijection of uint32 (MurmurHash3's finalizer), of either library's arrays."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


@functools.partial(jax.jit, static_argnames="shape")
def _sums(x: jax.Array, first: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """[2] uint32 of a part of an array: sums of mixed (bits, position) pairs.

    first: [D] uint32, where the part begins in the array of that shape. Sums modulo
    2^32 do not depend on their order, so neither on how an array is cut over devices
    and processes. As the mixture is a bijection of an element's bits, a change of one
    32-bit word always changes both sums; one of several goes unseen once in 2^64.
    """
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    kind = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    words = jax.lax.bitcast_convert_type(x, kind).astype(jnp.uint32)
    place = jnp.zeros(words.shape, jnp.uint32)
    for dim in range(words.ndim):
        index = jax.lax.broadcasted_iota(jnp.uint32, words.shape, dim)
        within = dim < len(shape)  # a word of 8 bytes is two in a dimension of its own
        length = shape[dim] if within else words.shape[dim]
        place = place * jnp.uint32(length) + index + (first[dim] if within else 0)
    one = _mix(words ^ _mix(place + jnp.uint32(0x9E3779B9)))
    two = _mix(one + place)
    # Both at once: on a CPU four times as fast as one after the other.
    zeros, axes = (jnp.uint32(0), jnp.uint32(0)), tuple(range(words.ndim))
    add = lambda a, b: (a[0] + b[0], a[1] + b[1])  # noqa: E731
    return jnp.stack(jax.lax.reduce((one, two), zeros, add, axes))


def _sums_here(x: np.ndarray, first: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`_sums` of a small part that is in this process's memory, with nothing compiled.

    Dozens of shapes on each of several devices are compiled longer than a small model.
    """
    kind = {1: np.uint8, 2: np.uint16}.get(x.dtype.itemsize, np.uint32)
    x = x[..., None] if x.ndim == 0 or x.dtype.itemsize > 4 else x
    words = np.ascontiguousarray(x).view(kind).astype(np.uint32)
    place = np.zeros((), np.uint32)
    for dim, length in enumerate(words.shape):
        within = dim < len(shape)
        index = np.arange(length, dtype=np.uint32) + (first[dim] if within else 0)
        place = place[..., None] * np.uint32(shape[dim] if within else length) + index
    one = _mix(words ^ _mix(place + np.uint32(0x9E3779B9)))
    two = _mix(one + place)
    return np.stack([x.sum(dtype=np.uint32) for x in (one, two)])


def start(tree: Any) -> list[tuple[str, str, list[Any]]]:
    """Starts computing the digests of a tree's arrays: (path, kind, sums of parts).

    Every process of a run must call it, and all get the same. Each part is summed on
    the device that has it, without a collective: those of programs in flight beside
    each other can wait for one another on simulated devices.
    """
    found: list[tuple[str, str, list[Any]]] = []
    shared = []  # which of them processes have parts of
    for path, leaf in zip(paths(tree), jax.tree.leaves(tree), strict=True):
        kind = f"{leaf.dtype}{list(leaf.shape)}"
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        leaf = leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)
        parts = [part for part in leaf.addressable_shards if part.replica_id == 0]
        if leaf.is_fully_replicated:
            parts = [leaf.addressable_shards[0]]
        elif jax.process_count() > 1:
            shared.append(len(found))
        sums = []
        for part in parts:
            first = np.array([cut.start or 0 for cut in part.index], np.uint32)
            if part.device.platform == "cpu" and part.data.size <= SMALL:
                sums.append(_sums_here(np.asarray(part.data), first, leaf.shape))
            else:
                data = offload.near(part.data)
                sums.append(_sums(data, first, leaf.shape))
        found.append((path, kind, sums))
    if shared:  # added up over processes, by the main thread of each
        mine = np.stack([_added(found[i][2]) for i in shared])
        whole = multihost_utils.process_allgather(mine).sum(0, dtype=np.uint32)
        for i, sums in zip(shared, whole, strict=True):
            found[i] = (*found[i][:2], [sums])
    return found


def _added(sums: list[Any]) -> np.ndarray:
    """[2] uint32: the sum of the parts that this process has."""
    return np.asarray([*jax.device_get(sums), np.zeros(2)], np.uint32).sum(
        0, dtype=np.uint32
    )


def finish(started: list[tuple[str, str, list[Any]]]) -> dict[str, str]:
    """{path: 'dtype[shape]:digest'} of what was started."""
    found = {}
    for path, kind, sums in started:
        one, two = _added(sums)
        found[path] = f"{kind}:{one:08x}{two:08x}"
    return found


def of_json(value: Any) -> str:
    """The digest of a value that JSON can hold."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


def _crc32(data: Any) -> str:
    return f"{zlib.crc32(data):08x}"


def _sum64(data: Any) -> str:
    """The sum of the bytes' 64-bit words modulo 2^64, without the last odd bytes."""
    words = np.frombuffer(data, "<u8", count=len(data) // 8)
    return f"{int(words.sum(dtype=np.uint64)):016x}"


# By the name that digests.json says, where one of before says none; a digest is all of
# its parts in a row. CRC-32 sees every flipped bit and every cut, and with the sum is
# more than twice as fast as SHA-256 where a processor has instructions for that.
METHODS: dict[str, tuple[Callable[[Any], str], ...]] = {
    "sha256": (_sha256,),
    "crc32+sum64": (_crc32, _sum64),
}
OLD, METHOD = "sha256", "crc32+sum64"
SMALL = 1 << 15  # values of a part that a CPU sums without a program
THREADS = 4  # that read files; the parts of one are computed beside each other too


def _files(folder: pathlib.Path, method: str) -> dict[str, list[Any]]:
    """{relative path: [bytes, digest]} of all files below a folder, but LATE ones."""
    found: dict[str, list[Any]] = {}
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and name not in LATE:
                size = path.stat().st_size
                data: Any = b""
                with path.open("rb") as file:
                    if size:  # nothing can't be mapped
                        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                found[name] = [size, [pool.submit(f, data) for f in METHODS[method]]]
    return {
        name: [size, "".join(part.result() for part in parts)]
        for name, (size, parts) in found.items()
    }


class Known(NamedTuple):
    """A step's digests."""

    step: int
    arrays: dict[str, str]
    progress: str | None  # of what lies beside a whole state
    files: dict[str, list[Any]]
    method: str = OLD  # of the files' digests


def write(folder: pathlib.Path, step: int, started: Any, progress: str | None) -> None:
    """Writes the digests of a step's folder that is otherwise complete."""
    found = _files(folder, METHOD)
    known = Known(step, finish(started), progress, found, METHOD)._asdict()
    with (folder / FILE).open("w", encoding="utf-8") as file:
        json.dump(known | {"self": of_json(known)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def read(folder: pathlib.Path, files: bool = True) -> Known | None:
    """A step's digests, once its files have been found to be as written.

    folder: named by the step. None where the step was written before there were
    digests. Raises Damaged naming the first file that is not as written, and
    ConfigError where a later version wrote it.
    """
    step, metadata = int(folder.name), folder / "_CHECKPOINT_METADATA"
    if (
        not (folder / FILE).exists()
        and metadata.is_file()
        and MARK not in metadata.read_text("utf-8", errors="replace")
    ):
        return None
    try:
        record = json.loads((folder / FILE).read_bytes())
        own = record.pop("self")
        known = Known(**record)
    except OSError:
        raise Damaged(f"{FILE} is gone") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{FILE} does not read: {error!r}") from None
    if own != of_json(record):
        raise Damaged(f"{FILE} differs from what was written")
    if known.step != step:
        raise Damaged(f"{FILE} is that of step {known.step}, not of {step}")
    if known.method not in METHODS:
        raise ConfigError(
            f"{folder} was written by a later fmjax, whose digests {known.method!r} "
            "this one does not know: go on with that one"
        )
    found = _files(folder, known.method) if files else known.files
    for name in sorted(set(known.files) | set(found)):
        there, here = known.files.get(name), found.get(name)
        if here is None:
            raise Damaged(f"{name} is gone")
        if there is None:
            raise Damaged(f"{name} does not belong there")
        if there[0] != here[0]:
            raise Damaged(f"{name} has {here[0]} bytes, {there[0]} were written")
        if there != here:
            raise Damaged(f"{name} differs from what was written")
    return known


def agreed(folder: pathlib.Path) -> Known | None:
    """`read` by all processes of a run together: process 0 reads the files for all."""
    problem, known = "", None
    try:
        known = read(folder, files=jax.process_index() == 0)
    except Damaged as error:
        problem = str(error)
    if jax.process_count() > 1:
        bad = multihost_utils.process_allgather(np.int32(bool(problem)))
        if bad.any() and not problem:
            problem = f"process {bad.argmax()} finds it damaged"
    if problem:
        raise Damaged(problem)
    return known


def put_aside(folder: pathlib.Path) -> pathlib.Path:
    """Moves a step WORKDIR/ROOM/STEP to WORKDIR/damaged/ROOM-STEP, or ROOM-STEP.1"""
    room = folder.parent.parent / "damaged"
    room.mkdir(exist_ok=True)
    names = (f"{folder.parent.name}-{folder.name}{i}" for i in _endings())
    new = next(room / name for name in names if not (room / name).exists())
    return folder.rename(new)


def _endings() -> Iterator[str]:
    yield ""
    yield from (f".{i}" for i in itertools.count(1))


def check(known: Known, tree: Any, progress: Any = None) -> None:
    """Raises Damaged naming the first array that is not what was written.

    tree: what was restored; every process of a run must call this.
    """
    found = finish(start(tree))
    for path in sorted(set(known.arrays) | set(found)):
        there, here = known.arrays.get(path), found.get(path)
        if there != here:
            raise Damaged(f"{path}: {there} was written, {here} is read")
    if known.progress is not None and known.progress != of_json(progress):
        raise Damaged("progress differs from what was written")
