"""Floating-point operations of a function, counted on its jaxpr.

Matrix products and convolutions alone, a multiplication and an addition as two; all
else is small beside them. Exact for what is traced: loops count by their lengths, and
results that are not used, by nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core


def count(function: Callable, *args: Any) -> int:
    """Operations of one call; args are arrays or shapes.

    Raises ValueError where a loop of no fixed length has products in it.
    """
    closed = jax.make_jaxpr(function)(*args)
    return _walk(closed.jaxpr, [True] * len(closed.jaxpr.outvars))[0]


def _walk(jaxpr: Any, used: Sequence[bool]) -> tuple[int, list[bool]]:
    """(operations that the used outputs need, which inputs they need)."""
    pairs = zip(jaxpr.outvars, used, strict=True)
    live = {var for var, on in pairs if on and not isinstance(var, core.Literal)}
    total = 0
    for eqn in reversed(jaxpr.eqns):
        on = [var in live for var in eqn.outvars]
        if not (any(on) or eqn.effects):
            continue
        more, needed = _equation(eqn, on)
        total += more
        found = zip(eqn.invars, needed, strict=True)
        live |= {v for v, need in found if need and not isinstance(v, core.Literal)}
    return total, [var in live for var in jaxpr.invars]


def _equation(eqn: Any, used: list[bool]) -> tuple[int, list[bool]]:
    """As `_walk`, of one equation."""
    name, params = eqn.primitive.name, eqn.params
    every = [True] * len(eqn.invars)
    if name == "dot_general":
        return dot(eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape, params), every
    if name == "conv_general_dilated":
        return _convolution(eqn), every
    inner = [sub for value in params.values() for sub in jaxprs(value)]
    if name in ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint"):
        return _walk(inner[0], used)
    counts = [_walk(sub, [True] * len(sub.outvars))[0] for sub in inner]
    if name == "scan":
        return params["length"] * sum(counts), every
    if name == "cond":
        return max(counts), every
    if name == "while" and sum(counts):
        raise ValueError("a loop of no fixed length has products in it: use a scan")
    return sum(counts), every


def jaxprs(value: Any) -> list[Any]:
    """The jaxprs in a parameter of an equation."""
    if isinstance(value, core.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, core.Jaxpr):
        return [value]
    if isinstance(value, tuple | list):
        return [sub for item in value for sub in jaxprs(item)]
    return []


def dot(lhs: Sequence[int], out: Sequence[int], params: dict[str, Any]) -> int:
    """Operations of a `dot_general` by the shapes of its left side and its result."""
    (contracted, _), _ = params["dimension_numbers"]
    return 2 * math.prod(out) * math.prod(lhs[i] for i in contracted)


def _convolution(eqn: Any) -> int:
    lhs, rhs = (var.aval.shape for var in eqn.invars)
    out, params = eqn.outvars[0].aval.shape, eqn.params
    numbers = params["dimension_numbers"]
    spatial = [
        touching(lhs[i], out[o], rhs[k], stride, low, dilation, spread)
        for i, o, k, stride, (low, _), dilation, spread in zip(
            numbers.lhs_spec[2:],
            numbers.out_spec[2:],
            numbers.rhs_spec[2:],
            params["window_strides"],
            params["padding"],
            params["lhs_dilation"],
            params["rhs_dilation"],
            strict=True,
        )
    ]
    rows, features = (out[i] for i in numbers.out_spec[:2])
    return 2 * rows * features * rhs[numbers.rhs_spec[1]] * math.prod(spatial)


@functools.cache
def touching(
    size: int, out: int, kernel: int, stride: int, low: int, dilation: int, spread: int
) -> int:
    """Pairs of (output, kernel position) that meet an input, along one dimension.

    size, out, kernel: lengths; low: padding before; dilation: of the input, between
    whose elements are holes; spread: of the kernel. Padding and holes cost nothing, so
    that a convolution's gradients cost what it costs itself.
    """
    at = np.arange(out)[:, None] * stride + np.arange(kernel) * spread - low
    inside = (at >= 0) & (at <= (size - 1) * dilation) & (at % dilation == 0)
    return int(inside.sum())
