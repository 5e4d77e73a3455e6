"""Sums over several leading axes are over one in programs for a single CPU device."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fmjax import lowering

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
