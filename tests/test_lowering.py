"""Sums over several leading axes are over one in programs for a single CPU device."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fmjax import lowering

NUMBERS = ("NHWC", "HWIO", "NHWC")
x = jax.random.normal(jax.random.key(0), (4, 6, 8))
y = jax.random.normal(jax.random.key(1), (4, 6, 5))


def product(x, y):
    return jnp.einsum("btd,btm->dm", x, y)


def summed(lowered):
    """How many axes each product of a program sums over."""
    found = re.findall(r"contracting_dims = \[([\d, ]*)\] x", lowered.as_text())
    return [len(axes.split(",")) for axes in found]


def test_they_are_flat_on_one_cpu_device_and_the_same():
    assert summed(jax.jit(product).lower(x, y)) == [1]
    expected = np.einsum("btd,btm->dm", np.asarray(x), np.asarray(y))
    np.testing.assert_allclose(jax.jit(product)(x, y), expected, rtol=1e-5, atol=1e-5)
    weak = jax.jit(lambda x, y: product(x.astype("bfloat16"), y.astype("bfloat16")))
    assert summed(weak.lower(x, y)) == [1]
    assert weak(x, y).dtype == jnp.bfloat16
    np.testing.assert_allclose(weak(x, y).astype("float32"), expected, atol=0.2)


def test_they_are_flat_where_jax_writes_a_sharding_on_them():
    mesh = jax.make_mesh((1,), ("data",), (jax.sharding.AxisType.Auto,))
    put = [jax.device_put(a, NamedSharding(mesh, P("data"))) for a in (x, y)]
    slope = jax.jit(jax.grad(lambda w, x: jnp.sum(jnp.tanh(x @ w))))
    assert set(summed(slope.lower(jnp.ones((8, 5)), put[0]))) == {1}
    assert summed(jax.jit(product).lower(*put)) == [1]


def test_a_tpu_has_what_jax_says():
    traced = jax.jit(product).trace(x, y)
    assert summed(traced.lower(lowering_platforms=("tpu",))) == [2]


def test_axes_that_may_be_cut_stay():
    mesh = jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,))
    rows = NamedSharding(mesh, P("data"))
    put = [jax.device_put(a, rows) for a in (x, y)]
    assert summed(jax.jit(product).lower(*put)) == [2]
    # Inside shard_map the program is that of one device, however many there are.
    mapped = jax.shard_map(
        lambda x, y: jax.lax.psum(product(x, y), "data"),
        mesh=mesh,
        in_specs=P("data"),
        out_specs=P(),
    )
    assert summed(jax.jit(mapped).lower(*put)) == [1]
    np.testing.assert_allclose(jax.jit(mapped)(*put), product(x, y), rtol=1e-5)


@pytest.mark.parametrize(
    "sums", ["tbd,btm->dm", "dbt,mbt->dm", "btd,btd->b", "btd,ctm->bdcm", "btd,btd->"]
)
def test_all_else_is_as_it_was(sums):
    left = x.reshape([dict(b=4, t=6, d=8)[a] for a in sums.split(",")[0]])
    sizes = dict(b=4, t=6, d=8, m=5, c=3)
    right = jnp.ones([sizes[a] for a in sums.split(",")[1].split("-")[0]])
    expected = np.einsum(sums, np.asarray(left), np.asarray(right))
    found = jax.jit(lambda a, b: jnp.einsum(sums, a, b))(left, right)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_a_layer_is_flat():
    assert lowering.register() is None  # twice does no harm
    kernel = jnp.ones((8, 3))
    slope = jax.jit(jax.grad(lambda k: jnp.sum(jnp.tanh(x @ k))))
    assert set(summed(slope.lower(kernel))) == {1}
    inside = 1 - np.tanh(np.asarray(x) @ np.ones((8, 3))) ** 2
    expected = np.einsum("btd,btm->dm", np.asarray(x), inside)
    np.testing.assert_allclose(slope(kernel), expected, rtol=1e-4, atol=1e-5)


def convolutions(lowered):
    return lowered.as_text().count("stablehlo.convolution")


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 1)])
@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((1, 0), (2, 1))])
def test_a_kernel_of_one_pixel_is_a_product_with_the_same_gradients(
    stride, size, padding
):
    image = jax.random.normal(jax.random.key(2), (2, *size, 3))
    kernel = jax.random.normal(jax.random.key(3), (1, 1, 3, 4))

    def conv(image, kernel):
        return jax.lax.conv_general_dilated(
            image, kernel, (stride,) * 2, padding, dimension_numbers=NUMBERS
        )

    whole = jax.jit(lambda x, w: jax.vjp(conv, x, w)[1](jnp.cos(conv(x, w))))
    assert convolutions(whole.lower(image, kernel)) == 0
    places = jnp.pad(image, ((0, 0), *padding, (0, 0)))[:, ::stride, ::stride]
    np.testing.assert_allclose(  # not to the bit: another processor adds otherwise
        jax.jit(conv)(image, kernel), places @ kernel[0, 0], rtol=1e-5, atol=1e-6
    )

    def plain(image, kernel):
        padded = jnp.pad(image, ((0, 0), *padding, (0, 0)))
        return padded[:, ::stride, ::stride] @ kernel[0, 0]

    expected = jax.vjp(plain, image, kernel)[1](jnp.cos(plain(image, kernel)))
    for ours, theirs in zip(whole(image, kernel), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spread", [1, 2])
@pytest.mark.parametrize(
    "numbers", [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NHWC")]
)
def test_a_window_of_a_whole_image_is_a_product(numbers, spread):
    image = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype("float32")
    kernel = np.random.default_rng(1).normal(size=(3, 3, 3, 4)).astype("float32")
    around = ((0, -1), (-1, 0)) if spread == 1 else ((0, 0), (0, 0))
    image = image[:, :4, :5] if spread == 1 else image
    order = lambda x, was, to: x.transpose([was.index(a) for a in to])  # noqa: E731
    given = order(image, "NHWC", numbers[0]), order(kernel, "HWIO", numbers[1])
    conv = jax.jit(
        lambda x, w: jax.lax.conv_general_dilated(
            *(x, w, (3, 3), around),
            rhs_dilation=(spread,) * 2,
            dimension_numbers=numbers,
        )
    )
    assert convolutions(conv.lower(*given)) == 0
    seen = image[:, :3, 1:4] if spread == 1 else image[:, :5:2, :5:2]
    expected = np.einsum("nhwi,hwio->no", seen, kernel)[:, None, None]
    np.testing.assert_allclose(conv(*given), expected, rtol=1e-4, atol=1e-4)


def test_other_convolutions_stay():
    image, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 6))
    plain = lambda x, w, **more: jax.lax.conv_general_dilated(  # noqa: E731
        x, w, (1, 1), "SAME", dimension_numbers=NUMBERS, **more
    )
    assert convolutions(jax.jit(plain).lower(image, kernel)) == 1
    grouped = functools.partial(plain, feature_group_count=2)
    one = jnp.ones((1, 1, 2, 6))
    assert convolutions(jax.jit(grouped).lower(image, one)) == 1
    tpu = jax.jit(plain).trace(image, jnp.ones((1, 1, 4, 6)))
    assert convolutions(tpu.lower(lowering_platforms=("tpu",))) == 1
    assert convolutions(tpu.lower()) == 0
