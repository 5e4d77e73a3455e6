"""Norms against flax's, and their written-out derivatives against numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads

from fmjax.layers.norm import LayerNorm, RMSNorm, norm, normalise

x = 3 + 2 * jax.random.normal(jax.random.key(0), (2, 5, 8))
t = jax.random.normal(jax.random.key(1), x.shape)
PARAMS = {
    "scale": jax.random.normal(jax.random.key(2), (8,)),
    "bias": jax.random.normal(jax.random.key(3), (8,)),
}
PAIRS = {
    "layer": (LayerNorm(1e-5), nn.LayerNorm(1e-5, use_fast_variance=False), PARAMS),
    "rms": (RMSNorm(1e-5), nn.RMSNorm(1e-5), {"scale": PARAMS["scale"]}),
}


def both(kind, dtype="float32"):
    own, theirs, params = PAIRS[kind]
    return own.clone(dtype=dtype), theirs.clone(dtype=dtype), {"params": params}


@pytest.mark.parametrize("kind", PAIRS)
def test_values_and_gradients_are_flaxs(kind):
    own, theirs, variables = both(kind)
    made = own.init(jax.random.key(0), x)
    assert jax.tree.structure(made) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, made, theirs.init(jax.random.key(0), x))

    def pulled(net):
        out, back = jax.vjp(net.apply, variables, x)
        return out, back(t)

    got, want = pulled(own), pulled(theirs)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("kind", PAIRS)
def test_forward_derivatives_are_flaxs(kind):
    own, theirs, variables = both(kind)
    got, want = (
        jax.jvp(lambda x, n=net: n.apply(variables, x), (x,), (t,))
        for net in (own, theirs)
    )
    np.testing.assert_allclose(got[1], want[1], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("centred", [True, False])
def test_derivatives_of_two_orders_both_ways(centred):
    with jax.enable_x64(True):
        wide = jnp.asarray(np.asarray(x[0], np.float64))
        check_grads(lambda x: normalise(x, 1e-5, centred), (wide,), order=2, rtol=1e-4)


def test_statistics_are_in_float32_and_hold_where_the_mean_is_large():
    own, _, variables = both("layer", "bfloat16")
    narrow = x.astype("bfloat16")
    out = own.apply(variables, narrow)
    wide = both("layer")[0].apply(variables, narrow.astype("float32"))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, wide.astype("bfloat16"))
    far = normalise(x + 1e4, 1e-5)
    np.testing.assert_allclose(far, normalise(x, 1e-5), atol=2e-3)


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match=r"unknown norm 'batch' \(known: layer, rms\)"):
        norm("batch", 1e-5, "float32")
