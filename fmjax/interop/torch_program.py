"""Programs for a stack machine, which torch's files begin with, as far as tensors go.

A general interpreter of such programs would call whatever they name. This one knows the
few instructions that tensors need and the names of `DTYPES`, `ORDERED_DICT` and
`REBUILD`, none of which it looks up: everything else is refused by its name.
"""

import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

RANK_LIMIT = 32
# A tensor takes some 40. One byte of a program may make a dictionary of 64, so that the
# program's length alone bounds no memory.
STEP_LIMIT = 1_000_000

DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
ORDERED_DICT = "collections.OrderedDict"
REBUILD = "torch._utils._rebuild_tensor_v2"


class Name(NamedTuple):
    """A name that a program may use; it stands for itself and is never looked up."""

    text: str


class Storage(NamedTuple):
    """One file of raw numbers."""

    dtype: np.dtype
    key: str
    size: int  # elements


class Tensor(NamedTuple):
    """A view of a storage: offset and strides are numbers of elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def run(program: bytes) -> tuple[Any, int]:
    """What a program builds of dicts, lists, numbers, texts and Tensors, and its end.

    Raises ValueError where it is truncated, holds an instruction or a name that
    tensors do not need, or more than STEP_LIMIT instructions.
    """
    machine = _Machine(program)
    try:
        return machine.run(), machine.at
    except (IndexError, struct.error, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"the program is malformed at byte {machine.at:,}") from error


class _Mark:
    """Where a group of values begins on the stack."""


class _Machine:
    """The stack machine; `at` is the place in the program."""

    def __init__(self, program: bytes):
        self.program, self.at = program, 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(STEP_LIMIT):
            code = self.take(1)
            if code == b".":
                if len(self.stack) != 1:
                    raise TypeError("one value is left at the end")
                return self.stack[0]
            if code not in STEPS:
                raise ValueError(
                    f"the program has the instruction {code!r} at byte "
                    f"{self.at - 1:,}, which tensors do not need"
                )
            STEPS[code](self)
        raise ValueError(f"the program has more than {STEP_LIMIT:,} instructions")

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.program):
            raise ValueError("the program is truncated")
        self.at += count
        return self.program[self.at - count : self.at]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        end = self.program.index(b"\n", self.at, self.at + 256)
        return self.take(end - self.at + 1)[:-1].decode("ascii")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, kind: type) -> Any:
        value = self.stack.pop()
        if type(value) is not kind:
            raise TypeError(f"{kind.__name__} expected")
        return value

    def several(self, least: int, most: int) -> tuple[Any, ...]:
        """A tuple of so many values."""
        values: tuple[Any, ...] = self.pop(tuple)
        if not least <= len(values) <= most:
            raise TypeError(f"{least} to {most} values expected")
        return values

    def group(self) -> list[Any]:
        """What was pushed since the last mark."""
        values = []
        while (value := self.stack.pop()) is not _Mark:
            values.append(value)
        return values[::-1]

    def tuple_of(self, count: int) -> None:
        values = [self.stack.pop() for _ in range(count)]
        if _Mark in values:
            raise TypeError("a mark is no value")
        self.push(tuple(values[::-1]))

    def name(self, module: str, name: str) -> None:
        text = f"{module}.{name}"
        if text not in (ORDERED_DICT, REBUILD) and not (
            module == "torch" and name in DTYPES
        ):
            raise ValueError(
                f"the program names {text!r:.120}, which is no part of plain tensors; "
                "nothing was run. If you trust the file, load it with torch elsewhere "
                "and save its state_dict() as safetensors"
            )
        self.push(Name(text))

    def stack_name(self) -> None:
        name, module = self.pop(str), self.pop(str)
        self.name(module, name)

    def storage(self) -> None:
        kind, name, key, place, count, *view = self.several(5, 6)
        known = isinstance(name, Name) and name.text.startswith("torch.")
        if kind != "storage" or not known or type(place) is not str or any(view):
            raise TypeError("not a storage")
        if not isinstance(key, str) or not re.fullmatch(r"\w{1,64}", key, re.ASCII):
            raise TypeError("not a storage's key")
        dtype = DTYPES[name.text.removeprefix("torch.")]
        self.push(Storage(dtype, key, *sizes((count,))))

    def call(self) -> None:
        name = self.stack[-2]
        if type(name) is not Name:
            raise TypeError("a name expected")
        if name.text == ORDERED_DICT:
            self.several(0, 0)
            self.stack[-1] = {}
        elif name.text == REBUILD:
            storage, offset, shape, strides, *_ = self.several(6, 7)
            if type(storage) is not Storage:
                raise TypeError("not a tensor")
            if len(shape) != len(strides) or len(shape) > RANK_LIMIT:
                raise TypeError("not a tensor's shape")
            (start,) = sizes((offset,))
            self.stack[-1] = Tensor(storage, start, sizes(shape), sizes(strides))
        else:
            raise TypeError(f"{name.text} can't be called")

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(values) % 2:
            raise TypeError("no dictionary")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) not in (str, int):
                raise TypeError("a key is a text or a number")
            if key in target:
                raise ValueError(f"the key {key!r:.80} is there twice")
            target[key] = value

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise TypeError("no list")
        target.extend(values)

    def attributes(self) -> None:
        # state_dict() hangs its versions on the dictionary; they are not needed.
        self.pop(dict)
        if type(self.stack[-1]) is not dict:
            raise TypeError("no dictionary")

    def long(self) -> None:
        count = self.number("<B")
        if count > 8:
            raise ValueError("a number of more than 64 bits")
        self.push(int.from_bytes(self.take(count), "little", signed=True))

    def memoize(self, index: int) -> None:
        self.memo[index] = self.stack[-1]


def sizes(values: Any) -> tuple[int, ...]:
    """Values that are whole numbers of 0 or more, and no truth values."""
    if type(values) is not tuple or not all(
        type(value) is int and 0 <= value < 2**62 for value in values
    ):
        raise TypeError("not sizes")
    return values


Step = Callable[[_Machine], None]
# https://docs.python.org/3/library/pickletools.html documents the instructions.
STEPS: Mapping[bytes, Step] = {
    b"\x80": lambda m: m.number("<B") and None,  # the protocol's version
    b"\x95": lambda m: m.number("<Q") and None,  # a frame's length
    b"c": lambda m: m.name(m.line(), m.line()),
    b"\x93": lambda m: m.stack_name(),
    b"Q": lambda m: m.storage(),
    b"R": lambda m: m.call(),
    b"b": lambda m: m.attributes(),
    b"(": lambda m: m.push(_Mark),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.group())),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"}": lambda m: m.push({}),
    b"s": lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    b"u": lambda m: m.set_items(m.group()),
    b"]": lambda m: m.push([]),
    b"a": lambda m: m.append([m.stack.pop()]),
    b"e": lambda m: m.append(m.group()),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"J": lambda m: m.push(m.number("<i")),
    b"\x8a": lambda m: m.long(),
    b"G": lambda m: m.push(m.number(">d")),
    b"X": lambda m: m.push(m.take(m.number("<I")).decode()),
    b"\x8c": lambda m: m.push(m.take(m.number("<B")).decode()),
    b"q": lambda m: m.memoize(m.number("<B")),
    b"r": lambda m: m.memoize(m.number("<I")),
    b"\x94": lambda m: m.memoize(len(m.memo)),
    b"h": lambda m: m.push(m.memo[m.number("<B")]),
    b"j": lambda m: m.push(m.memo[m.number("<I")]),
}
