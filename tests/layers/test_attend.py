"""`attend` against plain numpy, and relations that hold whatever the numbers are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.layers.attend import attend


def arrays(queries=5, keys=5, heads=4, groups=4, batch=2, width=3):
    random = np.random.default_rng(0)
    shapes = [(batch, queries, heads, width)] + [(batch, keys, groups, width)] * 2
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


def plain(query, key, value, scale):
    """The paper's formula, one query at a time, in float64."""
    out = np.zeros(query.shape)
    for b, t, h in np.ndindex(*query.shape[:3]):
        scores = key[b, :, h].astype(float) @ query[b, t, h] * scale
        weights = np.exp(scores - scores.max())
        out[b, t, h] = weights @ value[b, :, h] / weights.sum()
    return out


@pytest.mark.parametrize("keys", [5, 9])
@pytest.mark.parametrize("scale", [None, 1.0])
def test_equals_the_formula(keys, scale):
    query, key, value = arrays(keys=keys)
    expected = plain(query, key, value, scale or 3**-0.5)
    np.testing.assert_allclose(
        attend(query, key, value, scale=scale), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_grouped_queries_equal_repeated_heads(groups):
    query, key, value = arrays(keys=7, groups=groups)
    mask = jnp.arange(7) < jnp.array([[3], [7]])
    mask = mask[:, None, None, :]
    bias = jax.random.normal(jax.random.key(0), (1, 4, 5, 7))
    repeated = [np.repeat(x, 4 // groups, axis=2) for x in (key, value)]
    np.testing.assert_allclose(
        attend(query, key, value, mask=mask, bias=bias),
        attend(query, *repeated, mask=mask, bias=bias),
        rtol=1e-5,
        atol=1e-6,
    )


def test_masked_keys_equal_absent_keys():
    query, key, value = arrays(keys=8)
    mask = jnp.arange(8)[None, None, None] < 6
    np.testing.assert_allclose(
        attend(query, key, value, mask=mask),
        attend(query, key[:, :6], value[:, :6]),
        rtol=1e-6,
        atol=1e-6,
    )


def test_causal_gradient_is_zero_for_every_later_token():
    query, key, value = arrays()

    def at(t, both):
        return attend(query, *both, causal=True)[:, t].sum()

    for t in range(5):
        for grad in jax.grad(at, argnums=1)(t, (key, value)):
            assert not grad[:, t + 1 :].any()
    # The first token attends to itself alone, so only its value matters; later keys do.
    assert np.all(jax.grad(at, argnums=1)(4, (key, value))[1] != 0)


def test_causal_adds_to_a_mask():
    query, key, value = arrays()
    mask = jnp.array([True, False, True, True, True])[None, None, None]
    both = np.tri(5, dtype=bool) & np.asarray(mask)
    np.testing.assert_array_equal(
        attend(query, key, value, mask=mask, causal=True),
        attend(query, key, value, mask=jnp.asarray(both)),
    )


def test_bias_of_minus_infinity_equals_the_mask():
    query, key, value = arrays()
    mask = jnp.array([True, False, True, True, False])[None, None, None]
    np.testing.assert_allclose(
        attend(query, key, value, bias=jnp.where(mask, 0, -jnp.inf)),
        attend(query, key, value, mask=mask),
        rtol=1e-6,
    )


def test_a_query_which_sees_no_key_gets_finite_values_and_gradients():
    query, key, value = arrays()
    mask = jnp.zeros((2, 1, 5, 5), bool).at[1].set(True)

    def total(query, key, value):
        return (attend(query, key, value, mask=mask) ** 2).sum()

    out = attend(query, key, value, mask=mask)
    expected = np.broadcast_to(value[0].mean(0), out[0].shape)
    np.testing.assert_allclose(out[0], expected, rtol=1e-5, atol=1e-6)
    for grad in jax.grad(total, argnums=(0, 1, 2))(query, key, value):
        assert np.isfinite(grad).all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("scale", [None, 1.0])
def test_the_library_s_implementation_is_the_same(causal, groups, scale):
    keys = 5 if causal else 7
    given = arrays(keys=keys, groups=groups)
    mask = (jnp.arange(keys) < jnp.array([[3], [keys]]))[:, None, None]
    bias = jax.random.normal(jax.random.key(0), (1, 4, 5, keys))

    @functools.partial(jax.jit, static_argnums=0)
    def values(implementation, given, bias):
        def total(given, bias):
            options = dict(mask=mask, causal=causal, scale=scale)
            out = attend(*given, bias=bias, implementation=implementation, **options)
            return (out**3).sum(), out

        return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(given, bias)

    ours, theirs = values(None, given, bias), values("xla", given, bias)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def test_an_unknown_implementation_is_named():
    with pytest.raises(
        ValueError, match=r"no implementation 'flsh' \(xla, cudnn, flash\)"
    ):
        attend(*arrays(), implementation="flsh")


def test_softmax_is_in_float32_and_the_result_in_values_dtype():
    query, key, value = (jnp.asarray(x, jnp.bfloat16) for x in arrays(keys=300))
    out = attend(query * 8, key, value)
    assert out.dtype == jnp.bfloat16
    exact = attend(*(x.astype(jnp.float32) for x in (query * 8, key, value)))
    # One rounding of inputs to 8 bits of fraction, not an accumulation over 300 keys.
    np.testing.assert_allclose(out.astype(jnp.float32), exact, atol=0.03)


def test_dropout_is_on_the_probabilities_and_addressed_by_the_key():
    query, key, value = arrays(queries=64, keys=64, batch=4)
    value = np.ones_like(value)
    first, again, other = (
        attend(query, key, value, dropout=0.25, rng=jax.random.key(seed))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert first.mean() == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(
        attend(query, key, value, dropout=0.25), np.ones_like(first), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": 3}, "4 query heads is not a multiple of 3"),
        ({"keys": 7, "causal": True}, "causal needs as many queries as keys"),
        ({"mask": jnp.ones((1, 1, 5, 5))}, "mask must be bool"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    options = {k: change.pop(k) for k in ("causal", "mask") if k in change}
    with pytest.raises(ValueError, match=message):
        attend(*arrays(**change), **options)


def test_unlike_keys_and_values_are_named():
    query, key, value = arrays()
    with pytest.raises(ValueError, match=r"key is .* but value is"):
        attend(query, key, value[:, :3])
    with pytest.raises(ValueError, match="batch and head width"):
        attend(query[..., :2], key, value)
