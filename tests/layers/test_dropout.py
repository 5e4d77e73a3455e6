"""Dropout: its rate, its scale, and that equal keys give equal masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.layers.dropout import Dropout, drop


@pytest.mark.parametrize("shape", [(200_001,), (401, 499), (100, 2000)])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_and_scale(shape, rate):
    out = np.asarray(drop(jnp.ones(shape), rate, jax.random.key(0)))
    kept = out[out != 0]
    # Four standard errors.
    error = 4 * np.sqrt(rate * (1 - rate) / out.size)
    assert kept.size / out.size == pytest.approx(1 - rate, abs=error)
    np.testing.assert_allclose(kept, 1 / (1 - rate), rtol=2e-4)


def test_neighbours_are_independent():
    # Two elements share a random word.
    kept = np.asarray(drop(jnp.ones((500, 400)), 0.5, jax.random.key(1))) != 0
    for shift in (1, 2, 200):
        agree = (kept[:, shift:] == kept[:, :-shift]).mean()
        assert agree == pytest.approx(0.5, abs=0.006)


def test_keys_address_the_mask():
    x = jnp.ones((8, 33))
    first, again, other = (drop(x, 0.3, jax.random.key(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_gradient_is_the_mask():
    x = jax.random.normal(jax.random.key(0), (64,))

    def total(x):
        return drop(x, 0.4, jax.random.key(3)).sum()

    np.testing.assert_allclose(
        jax.grad(total)(x), drop(jnp.ones(64), 0.4, jax.random.key(3)), rtol=1e-6
    )


def test_dtype_is_kept_and_a_rate_next_to_nothing_drops_nothing():
    x = jnp.ones((64,), jnp.bfloat16)
    out = drop(x, 1e-9, jax.random.key(0))
    assert out.dtype == x.dtype
    np.testing.assert_array_equal(out, x)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_outside_is_refused(rate):
    with pytest.raises(ValueError, match="rate lies in"):
        drop(jnp.ones(3), rate, jax.random.key(0))


def test_the_module_is_the_identity_in_evaluation():
    x = jnp.ones((3, 5))
    assert Dropout(0.5).apply({}, x, train=False) is x
    out = Dropout(0.5).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    assert set(np.unique(out)) == {0, 2}
