"""How a gradient's matrix products are handed to XLA's CPU compiler.

The gradient of a kernel sums over all tokens: over two axes, B and T. XLA makes such a
product of two axes into one of one axis with a transposed copy of an operand, and on a
CPU that copy is fused with whatever makes the operand. Where that is the residual
stream's gradient, everything back to the last block is computed once more for each
block: in time, depth squared. Two axes that lie together are one axis as they are, and
nothing is copied (experiments/speed has what that gains).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
from jax import lax
from jax.interpreters import mlir


def flat(lhs: jax.Array, rhs: jax.Array, *, axes: int, **kwargs: Any) -> jax.Array:
    """[K..., M...], [K..., N...] to [M..., N...]: a sum over the first `axes` axes."""
    join = lambda x: lax.reshape(x, (math.prod(x.shape[:axes]), *x.shape[axes:]))  # noqa: E731
    return lax.dot_general(join(lhs), join(rhs), (((0,), (0,)), ((), ())), **kwargs)


def register() -> None:
    """From here on, such products are flat in programs for one CPU device.

    In programs that are cut over devices they stay as they are: axes that are cut apart
    do not lie together. Other platforms have jax's own always.
    """
    try:
        from jax._src.lax.lax import _dot_general_lower as own
    except ImportError:  # a later jax, whose own rule is elsewhere: slower, no less
        return
    own = functools.partial(own, platform="cpu")

    def rule(ctx, lhs, rhs, **params):
        (left, right), (batch, _) = params["dimension_numbers"]
        axes = len(left)
        leading = tuple(left) == tuple(right) == tuple(range(axes))
        if axes < 2 or not leading or batch or params["out_sharding"] or cut(ctx):
            return own(ctx, lhs, rhs, **params)
        kept = {key: params[key] for key in ("precision", "preferred_element_type")}
        made = functools.partial(flat, axes=axes, **kept)
        return mlir.lower_fun(made, multiple_results=False)(ctx, lhs, rhs)

    mlir.register_lowering(lax.dot_general_p, rule, platform="cpu")


def cut(ctx: mlir.LoweringRuleContext) -> bool:
    """Whether the partitioner cuts this part of a program over devices."""
    context = ctx.module_context.axis_context
    if isinstance(context, mlir.SPMDAxisContext):  # inside shard_map
        return set(context.manual_axes) != set(context.mesh.axis_names)
    return getattr(context, "num_devices", 1) > 1  # pmap has a program a device


register()
