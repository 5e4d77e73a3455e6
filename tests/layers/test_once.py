"""`once` is the identity, forwards and backwards, and its gradient is one array."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fmjax import lowering  # noqa: F401  (for its effect)
from fmjax.layers.once import once

x = jax.random.normal(jax.random.key(0), (4, 6, 8))


def loss(x, mark=once):
    return jnp.sum(jnp.sin(mark(x) * 2) ** 2)


def test_it_changes_no_number():
    np.testing.assert_array_equal(once(x), x)
    plain = lambda x: x  # noqa: E731
    for way in (jax.grad, jax.jacfwd, jax.hessian):
        got, want = way(loss)(x[0, :2]), way(loss)(x[0, :2], plain)
        np.testing.assert_allclose(got, want, rtol=1e-6)
        got = jax.jit(way(loss))(x[0, :2])
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(loss))(x), jax.grad(loss)(x))
    np.testing.assert_array_equal(jax.vmap(once, in_axes=1, out_axes=1)(x), x)
    ahead = jax.checkpoint(loss)
    np.testing.assert_allclose(jax.grad(ahead)(x), jax.grad(loss)(x), rtol=1e-6)


def largest(depth, mark):
    """Operands of the largest fusion in the gradient of so many residual blocks."""

    def net(kernels, x):
        for kernel in kernels:
            centred = x - x.mean(-1, keepdims=True)
            x = mark(x + jnp.tanh(centred @ kernel))
        return jnp.sum(x * x)

    kernels = [jnp.eye(8)] * depth
    text = jax.jit(jax.grad(net)).lower(kernels, x).compile().as_text()
    fusions = re.findall(r" fusion\((.*?)\), kind", text)
    return max(line.count("%") for line in fusions)


def test_a_gradient_is_not_added_up_again_in_every_block_below():
    assert largest(8, lambda x: x) > largest(4, lambda x: x) + 3
    assert largest(8, once) == largest(4, once)


@pytest.mark.parametrize("devices", [1, 2])
def test_only_programs_of_one_cpu_device_hold_it(devices):
    mesh = jax.make_mesh((devices,), ("data",), (jax.sharding.AxisType.Auto,))
    put = jax.device_put(x, NamedSharding(mesh, P("data")))
    text = jax.jit(jax.grad(loss)).lower(put).as_text()
    assert ('inlineable = "false"' in text) == (devices == 1)
    tpu = jax.jit(jax.grad(loss)).trace(x).lower(lowering_platforms=("tpu",))
    assert "inlineable" not in tpu.as_text()
