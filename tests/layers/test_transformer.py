"""Attention, MLP and block as modules: shapes, parameters, relations."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fmjax.layers.activation import ACTIVATIONS, activation
from fmjax.layers.attention import Attention
from fmjax.layers.transformer import MLP, Block


def shapes(net, *inputs):
    params = jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def test_attention_s_kernels_are_matrices_and_may_be_grouped():
    x, source = jnp.ones((2, 3, 8)), jnp.ones((2, 5, 6))
    net = Attention(heads=4, kv_heads=2, head_width=3, use_bias=False)
    assert shapes(net, x, source) == {
        "query/kernel": (8, 12),
        "key/kernel": (6, 6),
        "value/kernel": (6, 6),
        "out/kernel": (12, 8),
    }


def test_heads_that_do_not_divide_are_named_with_the_remedy():
    with pytest.raises(ValueError, match=r"width 10 .* 4 heads.*1, 2, 5, 10"):
        Attention(heads=4).init(jax.random.key(0), jnp.ones((1, 2, 10)))


def test_initial_kernels_are_a_truncated_normal():
    net = MLP(2048)
    kernel = net.init(jax.random.key(0), jnp.ones((1, 512)))["params"]["up"]["kernel"]
    assert np.abs(kernel).max() <= 0.04
    # A normal cut at two deviations has 0.8796 of its deviation.
    assert kernel.std() == pytest.approx(0.02 * 0.8796, rel=0.01)


def test_block_is_post_norm():
    net = Block(heads=2, mlp_width=12)
    x = jax.random.normal(jax.random.key(1), (2, 3, 8))
    out, _ = net.apply(jax.jit(net.init)(jax.random.key(0), x), x)
    np.testing.assert_allclose(out.mean(-1), np.zeros((2, 3)), atol=1e-6)
    np.testing.assert_allclose(out.std(-1), np.ones((2, 3)), rtol=1e-5)


def test_block_drops_by_key_and_only_in_training():
    net = Block(heads=2, mlp_width=12, dropout=0.3, attention_dropout=0.3)
    x = jax.random.normal(jax.random.key(1), (2, 3, 8))
    variables = jax.jit(net.init)(jax.random.key(0), x)

    def loss(variables, seed):
        return (net.apply(variables, x, rng=jax.random.key(seed))[0] ** 3).sum()

    grad = jax.jit(jax.grad(loss))
    first, again, other = (grad(variables, seed) for seed in (1, 1, 2))
    equal = jax.tree.map(lambda a, b: bool((a == b).all()), first, again)
    assert all(jax.tree.leaves(equal))
    assert (first["params"]["mlp"]["up"]["kernel"] != 0).any()
    unequal = jax.tree.map(lambda a, b: bool((a != b).any()), first, other)
    assert any(jax.tree.leaves(unequal))
    plain = Block(heads=2, mlp_width=12)
    np.testing.assert_array_equal(
        net.apply(variables, x)[0], plain.apply(variables, x)[0]
    )


@pytest.mark.parametrize("rates", [(0.5, 0.0), (0.0, 0.5)])
def test_both_kinds_of_dropout_do_something(rates):
    net = Block(heads=2, mlp_width=12, dropout=rates[0], attention_dropout=rates[1])
    x = jax.random.normal(jax.random.key(1), (2, 6, 8)) * 50
    variables = jax.jit(net.init)(jax.random.key(0), x)
    dropped, _ = net.apply(variables, x, rng=jax.random.key(2))
    assert (dropped != net.apply(variables, x)[0]).any()


# Values at x = 1 from the definitions, in double precision.
AT_ONE = {
    "gelu": 0.8413447461,
    "gelu_tanh": 0.8411919906,
    "gelu_sigmoid": 0.8457957659,
    "relu": 1.0,
    "silu": 0.7310585786,
    "tanh": 0.7615941560,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    assert float(activation(name)(jnp.float32(1))) == pytest.approx(
        AT_ONE[name], rel=1e-6
    )


def test_gelu_is_torchs_in_float32_and_jaxs_in_narrower_types():
    x = jnp.linspace(-6, 6, 101)
    exact = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()]
    np.testing.assert_allclose(activation("gelu")(x), exact, atol=1e-6)
    narrow, theirs = x.astype("bfloat16"), nn.gelu(x.astype("bfloat16"), False)
    np.testing.assert_array_equal(activation("gelu")(narrow), theirs)
    # Far below zero 1 + erf has no digits left there, and its complement has.
    assert (theirs[x < -3] != 0).all()


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match=r"'gleu'; did you mean 'gelu'.*gelu_tanh"):
        activation("gleu")


def test_parallel_block_adds_both_branches_of_one_norm():
    net = Block(
        heads=2,
        mlp_width=12,
        order="parallel",
        norm="rms",
        qk_norm="rms",
        use_bias=False,
        mlp_bias=True,
    )
    x = jax.random.normal(jax.random.key(1), (2, 3, 8))
    variables = jax.jit(net.init)(jax.random.key(0), x)
    assert set(shapes(net, x)) == {
        "norm/scale",
        *(f"attention/{name}/kernel" for name in ("query", "key", "value", "out")),
        "attention/query_norm/scale",
        "attention/key_norm/scale",
        *(
            f"mlp/{name}/{leaf}"
            for name in ("up", "down")
            for leaf in ("kernel", "bias")
        ),
    }
    params = variables["params"]
    params["mlp"]["down"]["kernel"] *= 0
    params["mlp"]["down"]["bias"] += 1
    params["attention"]["out"]["kernel"] *= 0
    np.testing.assert_allclose(net.apply(variables, x)[0], x + 1, rtol=1e-6)
    with pytest.raises(ValueError, match="parallel' has no cross"):
        net.clone(cross=True).init(jax.random.key(0), x, source=x)


def test_normalised_queries_and_keys_do_not_see_the_kernels_scale():
    net = Attention(heads=2, qk_norm="layer", use_bias=False, eps=1e-12)
    x = jax.random.normal(jax.random.key(1), (2, 3, 8))
    variables = jax.jit(net.init)(jax.random.key(0), x)
    out, kept = net.apply(variables, x)
    np.testing.assert_allclose(kept["key"].std(-1), np.ones((2, 2, 3)), rtol=1e-4)
    for name in ("query", "key"):
        variables["params"][name]["kernel"] *= 7
    np.testing.assert_allclose(net.apply(variables, x)[0], out, rtol=1e-4, atol=1e-6)
