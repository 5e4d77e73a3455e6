"""How products in a net and its gradient are handed to XLA's CPU compiler.

The gradient of a kernel sums over all tokens or pixels: over two axes or three. XLA
makes such a product into one over one axis with a transposed copy of an operand, and on
a CPU that copy is fused with whatever makes the operand. Where that is the residual
stream's gradient, everything back to the last block is computed once more for each
block: in time, depth squared. Axes that lie together are one axis as they are, and
nothing is copied. And a convolution by a kernel of one pixel, or with an image as large
as itself, which is such a kernel's gradient, is a matrix product, and faster as one.
What `fmjax.layers.once` marks is one array (experiments/speed has what each gains).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.interpreters import mlir

from fmjax.layers.once import kept_p


def flat(lhs: jax.Array, rhs: jax.Array, *, axes: int, **kwargs: Any) -> jax.Array:
    """[K..., M...], [K..., N...] to [M..., N...]: a sum over the first `axes` axes."""
    join = lambda x: lax.reshape(x, (math.prod(x.shape[:axes]), *x.shape[axes:]))  # noqa: E731
    return lax.dot_general(join(lhs), join(rhs), (((0,), (0,)), ((), ())), **kwargs)


def pointwise(
    image: jax.Array,
    kernel: jax.Array,
    *,
    strides: tuple[int, ...],
    edges: list[tuple[int, int, int]],
    numbers: lax.ConvDimensionNumbers,
    **kwargs: Any,
) -> jax.Array:
    """A convolution by a kernel of one pixel: with zeros around each place, or steps.

    edges: as `lax.pad` takes them, a spatial axis each. Zeros stay zeros, and are put
    in afterwards.
    """
    rows, features, *space = numbers.lhs_spec
    if any(step > 1 for step in strides) and not any(map(any, edges)):
        steps = dict(zip(space, strides, strict=True))
        image = image[tuple(slice(None, None, steps.get(i)) for i in range(image.ndim))]
        strides = (1,) * len(strides)
    # The axes that stay are those of the image, in its order, and then the outputs'.
    dims = (((features,), (numbers.rhs_spec[1],)), ((), ()))
    made = lax.dot_general(image, kernel, dims, **kwargs)
    made = made.reshape(*made.shape[: image.ndim - 1], -1)
    stay = [axis for axis in range(image.ndim) if axis != features]
    found = [stay.index(rows), image.ndim - 1, *(stay.index(axis) for axis in space)]
    made = made.transpose([found[numbers.out_spec.index(i)] for i in range(made.ndim)])
    if any(map(any, edges)):
        put = dict(zip(numbers.out_spec[2:], edges, strict=True))
        zero = made.dtype.type(0)
        made = lax.pad(made, zero, [put.get(i, (0, 0, 0)) for i in range(made.ndim)])
    steps = dict(zip(numbers.out_spec[2:], strides, strict=True))
    return made[tuple(slice(None, None, steps.get(i)) for i in range(made.ndim))]


def whole(
    image: jax.Array,
    kernel: jax.Array,
    *,
    edges: list[tuple[int, int, int]],
    spread: tuple[int, ...],
    numbers: lax.ConvDimensionNumbers,
    **kwargs: Any,
) -> jax.Array:
    """A convolution whose window is all of the image: one place comes out.

    edges: as `lax.pad` takes them, a spatial axis each; spread: the kernel's dilation.
    """
    _, features, *space = numbers.lhs_spec
    _, inputs, *window = numbers.rhs_spec
    if any(map(any, edges)):
        put = dict(zip(space, edges, strict=True))
        around = [put.get(i, (0, 0, 0)) for i in range(image.ndim)]
        image = lax.pad(image, image.dtype.type(0), around)
    sizes = [
        (kernel.shape[i] - 1) * by + 1 for i, by in zip(window, spread, strict=True)
    ]
    steps = dict(zip(space, zip(sizes, spread, strict=True), strict=True))
    seen = [slice(0, *steps.get(i, (None,))) for i in range(image.ndim)]
    image = image[tuple(seen)]
    pairs = sorted(zip([features, *space], [inputs, *window], strict=True))
    left, right = zip(*pairs, strict=True)
    dims = ((left, right), ((), ()))
    made = lax.dot_general(image, kernel, dims, **kwargs)  # [rows, outputs]
    made = lax.expand_dims(made, range(2, image.ndim))
    return made.transpose([numbers.out_spec.index(i) for i in range(made.ndim)])


def register() -> None:
    """From here on, such products are flat in programs for one CPU device.

    In programs that are cut over devices they stay as they are: axes that are cut apart
    do not lie together. Other platforms have jax's own always.
    """
    try:
        from jax._src.lax.convolution import _conv_general_dilated_lower as convolved
        from jax._src.lax.lax import _dot_general_lower as product
    except ImportError:  # a later jax, whose own rules are elsewhere: slower, no less
        return
    product = functools.partial(product, platform="cpu")
    convolved = functools.partial(convolved, expand_complex_convolutions=True)

    def handed(ctx, made, lhs, rhs, params, **kwargs):
        kept = {key: params[key] for key in ("precision", "preferred_element_type")}
        made = functools.partial(made, **kept, **kwargs)
        return mlir.lower_fun(made, multiple_results=False)(ctx, lhs, rhs)

    def dot(ctx, lhs, rhs, **params):
        (left, right), (batch, _) = params["dimension_numbers"]
        axes = len(left)
        leading = tuple(left) == tuple(right) == tuple(range(axes))
        if axes < 2 or not leading or batch or cut(ctx):
            return product(ctx, lhs, rhs, **params)
        return handed(ctx, flat, lhs, rhs, params, axes=axes)

    def conv(ctx, lhs, rhs, **params):
        numbers, (out,) = params["dimension_numbers"], ctx.avals_out
        groups = params["feature_group_count"] * params["batch_group_count"]
        holes = [step - 1 for step in params["lhs_dilation"]]
        around = zip(params["padding"], holes, strict=True)
        edges = [(low, high, hole) for (low, high), hole in around]
        sizes = ctx.avals_in[1].shape
        if groups > 1 or out.size == 0 or cut(ctx):
            return convolved(ctx, lhs, rhs, **params)
        if all(sizes[i] == 1 for i in numbers.rhs_spec[2:]):
            strides = params["window_strides"]
            told = dict(strides=strides, edges=edges, numbers=numbers)
            return handed(ctx, pointwise, lhs, rhs, params, **told)
        if all(out.shape[i] == 1 for i in numbers.out_spec[2:]):
            told = dict(spread=params["rhs_dilation"], edges=edges, numbers=numbers)
            return handed(ctx, whole, lhs, rhs, params, **told)
        return convolved(ctx, lhs, rhs, **params)

    mlir.register_lowering(lax.dot_general_p, dot, platform="cpu")
    mlir.register_lowering(lax.conv_general_dilated_p, conv, platform="cpu")


_same = jax.jit(lax.optimization_barrier)


def kept(ctx: mlir.LoweringRuleContext, x: Any) -> Any:
    """x as the result of a call that is not inlined, so that it is an array.

    An optimization barrier alone is gone before XLA's CPU compiler fuses.
    """
    if cut(ctx):
        return [x]

    def called(x: jax.Array) -> jax.Array:
        with set_xla_metadata(inlineable="false"):
            return _same(x)

    return mlir.lower_fun(called, multiple_results=False)(ctx, x)


def cut(ctx: mlir.LoweringRuleContext) -> bool:
    """Whether the partitioner cuts this part of a program over devices."""
    context = ctx.module_context.axis_context
    if isinstance(context, mlir.SPMDAxisContext):  # inside shard_map
        return set(context.manual_axes) != set(context.mesh.axis_names)
    return getattr(context, "num_devices", 1) > 1  # pmap has a program a device


mlir.register_lowering(kept_p, kept, platform="cpu")
register()
