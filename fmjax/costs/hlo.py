"""Costs of a compiled program, read from the text of its optimized HLO.

The compiler's own analysis counts the body of a loop once; here it counts as often as
the loop runs. All numbers are of one device of a program for many.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from fmjax.costs.collectives import COLLECTIVES, Collective, groups
from fmjax.costs.flops import touching

# Name a buffer that is there already, or one that is counted where it is read.
FREE = (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "iota",
    "partition-id",
    "replica-id",
    "after-all",
    "opt-barrier",
)


class Array(NamedTuple):
    """An array of an instruction's result, as it lies on one device."""

    dtype: str
    shape: tuple[int, ...]
    near: bool  # in the core's own memory (a TPU's VMEM), not in HBM

    @property
    def bytes(self) -> int:
        """Bytes, without the padding of tiles."""
        digits = re.search(r"\d+", self.dtype)
        bits = int(digits[0]) if digits else 8  # pred
        return math.prod(self.shape) * bits // 8


class Instruction(NamedTuple):
    """`name = results opcode(operands), rest`."""

    name: str
    results: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    inside: str  # between the opcode's brackets, as written
    rest: str
    root: bool


Computation = dict[str, Instruction]


class Module(NamedTuple):
    """The computations of a program by name."""

    computations: dict[str, Computation]
    entry: str


class Costs(NamedTuple):
    """What one run of a program does on one device."""

    flops: int  # of matrix products and convolutions
    bytes: int  # read from and written to HBM, at the borders of fused loops
    collectives: tuple[Collective, ...]
    loops: tuple[tuple[str, int], ...]  # how often each loop runs; 0: not known, as 1


_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")


def parse(text: str) -> Module:
    """The module that `compiled.as_text()` prints. Raises ValueError for other text."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif line == "}":  # "}}, ..." goes on with a kernel's settings
            current = None
        elif current is not None and (match := _LINE.match(line)):
            made = _instruction(line[match.end() :], match[2], bool(match[1]))
            current[made.name] = made
    if not entry:
        raise ValueError("this is not the text of an HLO module: it has no ENTRY")
    return Module(computations, entry)


def _instruction(text: str, name: str, root: bool) -> Instruction:
    end = _closing(text, 0) if text.startswith("(") else text.index(" ")
    results = tuple(
        Array(kind, tuple(int(n.lstrip("<=")) for n in dims.split(",") if n), _near(at))
        for kind, dims, at in _ARRAY.findall(text[:end])
    )
    opcode, _, after = text[end:].strip().partition("(")
    close = _closing("(" + after, 0) - 2
    inside = after[:close]
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(
        name, results, opcode, operands, inside, after[close + 1 :], root
    )


def _closing(text: str, start: int) -> int:
    """Where the bracket that opens at `start` has been closed."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, start):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.end()
    raise ValueError(f"a bracket is not closed in {text[:80]!r}")


def _near(layout: str) -> bool:
    space = re.search(r"S\((\d+)\)", layout)
    return bool(space) and space[1] != "0"  # type: ignore[index]


def costs(module: Module) -> Costs:
    """Adds up all that runs, each as often as it does."""
    total = Costs(0, 0, (), ())
    for instruction, computation, times, fused in _run(module, module.entry, 1, False):
        opcode = instruction.opcode
        flops, moved, collectives, loops = total
        if opcode == "dot":
            flops += times * _dot(instruction, computation)
        elif opcode == "convolution":
            flops += times * _convolution(instruction, computation)
        elif opcode == "custom-call":
            flops += times * _attention(instruction, computation)
        elif opcode.removesuffix("-start") in COLLECTIVES:
            found = _collective(instruction, computation, times, module)
            collectives = (*collectives, found)
        elif opcode == "while":
            loops = (
                *loops,
                (instruction.name, _trips(instruction, computation, module)),
            )
        if not fused:
            moved += times * _moved(instruction, computation, module)
        total = Costs(flops, moved, collectives, loops)
    return total


def _run(
    module: Module, name: str, times: int, fused: bool
) -> Iterator[tuple[Instruction, Computation, int, bool]]:
    """(instruction, its computation, how often it runs, is it inside a fusion)."""
    computation = module.computations[name]
    for instruction in computation.values():
        yield instruction, computation, times, fused
        opcode, often, inner = instruction.opcode, times, fused
        called = _called(instruction)
        if opcode == "while":
            often *= _trips(instruction, computation, module) or 1
        elif opcode == "fusion":
            inner = True
        elif opcode == "conditional":
            # The dearest branch: which is taken is not known here.
            called = called[-1:] if len(called) < 2 else [_dearest(module, called)]
        elif opcode not in ("call", "async-start", "map"):
            called = []
        for other in called:
            yield from _run(module, other, often, inner)


def _called(instruction: Instruction) -> list[str]:
    names = r"(?:calls|to_apply|body|condition|true_computation|false_computation)"
    found = re.findall(rf"\b{names}=%?([\w.\-]+)", instruction.rest)
    branches = re.search(r"branch_computations=\{([^}]*)\}", instruction.rest)
    return found + (re.findall(r"[\w.\-]+", branches[1]) if branches else [])


def _dearest(module: Module, names: Sequence[str]) -> str:
    return max(names, key=lambda name: costs(Module(module.computations, name))[:2])


def _trips(loop: Instruction, computation: Computation, module: Module) -> int:
    """How often a loop runs; 0 where nothing tells.

    The compiler writes it down, or the condition compares a counter, which begins at a
    constant and grows by one, with a constant.
    """
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.rest):
        return int(known[1])
    match = re.search(r"condition=%?([\w.\-]+)", loop.rest)
    condition = module.computations[match[1]] if match else {}
    start = computation.get(loop.operands[0])
    roots = [i for i in condition.values() if i.root]
    # A fused condition is one that computes the same.
    while roots and roots[0].opcode == "fusion":
        condition = module.computations[_called(roots[0])[0]]
        roots = [i for i in condition.values() if i.root]
    if not roots or roots[0].opcode != "compare":
        return 0

    def value(name: str) -> tuple[int | None, bool]:
        """(number, is it the counter's beginning?) of the condition's operand."""
        found = condition[name]
        if found.opcode == "constant":
            return int(found.inside), False
        index = re.search(r"index=(\d+)", found.rest)
        if found.opcode != "get-tuple-element" or not index:
            return None, True
        first = start.operands[int(index[1])] if start and start.operands else ""
        known = _constant(computation, first)
        return known, True

    (a, a_counts), (b, b_counts) = (value(name) for name in roots[0].operands[:2])
    if a_counts and b is not None and "direction=LT" in roots[0].rest:
        return max(b - (a or 0), 0)
    if b_counts and a is not None and "direction=GT" in roots[0].rest:
        return max(a - (b or 0), 0)
    return 0


def _constant(computation: Computation, name: str) -> int | None:
    found = computation.get(name)
    while found and found.opcode in ("copy", "bitcast", "copy-done", "copy-start"):
        found = computation.get(found.operands[0])
    if found and found.opcode == "constant" and re.fullmatch(r"-?\d+", found.inside):
        return int(found.inside)
    return None


def _numbers(text: str, name: str) -> list[int]:
    found = re.search(rf"\b{name}=\{{([\d,]*)\}}", text)
    return [int(n) for n in found[1].split(",") if n] if found else []


def _dot(instruction: Instruction, computation: Computation) -> int:
    left = computation[instruction.operands[0]].results[0].shape
    contracted = _numbers(instruction.rest, "lhs_contracting_dims")
    out = instruction.results[0].shape
    return 2 * math.prod(out) * math.prod(left[i] for i in contracted)


def _attention(instruction: Instruction, computation: Computation) -> int:
    """Of a kernel of `fmjax.flash`, by its name: products of [T, K] and [K, S].

    Blocks that a causal mask hides are counted, as the plain code computes them; the
    backward kernels compute the weights again, a product each.
    """
    products = {"fwd": 2, "dq": 3, "dkv": 4}
    kind = re.match(r"splash_mha_(fwd|dq|dkv)_", instruction.name)
    if not kind:
        return 0
    arrays = [a for name in instruction.operands for a in computation[name].results]
    query, key = [a.shape for a in arrays if a.dtype in ("bf16", "f16", "f32")][:2]
    return 2 * products[kind[1]] * math.prod(query) * key[-2]


def _convolution(instruction: Instruction, computation: Computation) -> int:
    """As `fmjax.costs.flops`: positions in padding and in holes cost nothing."""
    lhs, rhs = (computation[name].results[0].shape for name in instruction.operands[:2])
    out = instruction.results[0].shape
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.rest)
    assert labels, instruction.rest
    window = re.search(r"window=\{([^}]*)\}", instruction.rest)
    fields = dict(re.findall(r"(\w+)=(\S+)", window[1] if window else ""))
    read = lambda name, i, none: (  # noqa: E731
        int(re.split(r"x", fields[name])[i]) if name in fields else none
    )
    positions = 1
    for i in range(len(lhs) - 2):
        low = fields["pad"].split("x")[i].split("_")[0] if "pad" in fields else "0"
        positions *= touching(
            lhs[labels[1].index(str(i))],
            out[labels[3].index(str(i))],
            rhs[labels[2].index(str(i))],
            read("stride", i, 1),
            int(low),
            read("lhs_dilate", i, 1),
            read("rhs_dilate", i, 1),
        )
    rows, features = out[labels[3].index("b")], out[labels[3].index("f")]
    return 2 * rows * features * rhs[labels[2].index("i")] * positions


def _collective(
    instruction: Instruction, computation: Computation, times: int, module: Module
) -> Collective:
    kind = instruction.opcode.removesuffix("-start")
    name = next(n for n, c in module.computations.items() if c is computation)
    size = lambda arrays: sum(array.bytes for array in arrays)  # noqa: E731
    given = sum(size(computation[name].results) for name in instruction.operands)
    results = size(instruction.results)
    if instruction.opcode.endswith("-start"):  # (operands, results, ...)
        results = max(results - given, given)
    if "all-reduce-scatter" in name:  # a sum of which each device keeps its part
        kind = "reduce-scatter"
    moved = max(given, results)
    return Collective(kind, instruction.name, moved, groups(instruction.rest), times)


def _moved(instruction: Instruction, computation: Computation, module: Module) -> int:
    """Bytes that an instruction outside of fusions reads from and writes to HBM."""
    opcode = instruction.opcode
    if opcode in FREE or opcode in ("while", "conditional", "call"):
        return 0
    if opcode.endswith("-done"):
        return 0
    far = lambda arrays: sum(a.bytes for a in arrays if not a.near)  # noqa: E731
    operands = [
        computation[name].results
        for name in instruction.operands
        if name in computation
    ]
    if opcode in ("dynamic-slice", "slice", "gather"):
        return 2 * far(instruction.results)
    if opcode == "dynamic-update-slice":
        return 2 * far(operands[1])
    if opcode == "fusion":
        inside = module.computations[_called(instruction)[0]]
        return _through(inside, instruction.results, operands)
    if opcode.endswith("-start"):  # its results name the operands again
        return 2 * sum(far(o) for o in operands)
    return far(instruction.results) + sum(far(o) for o in operands)


def _through(inside: Computation, results: Any, operands: Sequence[Any]) -> int:
    """Bytes that cross a fusion's border: of what is sliced inside, the slice alone."""
    total = 0
    users: dict[str, list[Instruction]] = {}
    for instruction in inside.values():
        for name in instruction.operands:
            users.setdefault(name, []).append(instruction)
    written: dict[int, int] = {}
    roots = [i for i in inside.values() if i.root]
    parts = (
        roots[0].operands
        if roots and roots[0].opcode == "tuple"
        else [root.name for root in roots]
    )
    for i, name in enumerate(parts):
        made = _origin(inside, name)
        if made.opcode == "dynamic-update-slice":
            update = inside[made.operands[1]].results
            written[i] = sum(a.bytes for a in update)
    for i, array in enumerate(results):
        total += 0 if array.near else written.get(i, array.bytes)
    for instruction in inside.values():
        if instruction.opcode != "parameter":
            continue
        arrays = operands[int(instruction.inside)]
        found = _uses(users, instruction.name)
        if found and all(
            user.opcode in ("dynamic-slice", "slice", "gather")
            or (user.opcode == "dynamic-update-slice" and user.operands[0] == name)
            for user, name in found
        ):
            sliced = [
                user.results if user.opcode != "dynamic-update-slice" else ()
                for user, _ in found
            ]
            part = sum(a.bytes for results in sliced for a in results)
            total += 0 if all(a.near for a in arrays) else part
        else:
            total += sum(a.bytes for a in arrays if not a.near)
    return total


def _origin(inside: Computation, name: str) -> Instruction:
    found = inside[name]
    while found.opcode in ("bitcast", "copy", "convert") and found.operands:
        found = inside[found.operands[0]]
    return found


def _uses(
    users: dict[str, list[Instruction]], name: str
) -> list[tuple[Instruction, str]]:
    """(who uses it, under which name); bitcasts are seen through."""
    found = []
    for user in users.get(name, ()):
        if user.opcode == "bitcast":
            found += _uses(users, user.name)
        else:
            found.append((user, name))
    return found
