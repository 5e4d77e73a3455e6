"""Batch normalisation by hand: formula, running statistics, edges."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.layers.batch_norm import BatchNorm, moments, over

RANDOM = np.random.default_rng(0)
IMAGES = (5 + 3 * RANDOM.normal(size=(8, 3, 2, 4))).astype(np.float32)
VARIABLES = {
    "params": {
        "scale": RANDOM.uniform(0.5, 2, 4).astype(np.float32),
        "bias": RANDOM.normal(size=4).astype(np.float32),
    },
    "batch_stats": {
        "mean": RANDOM.normal(size=4).astype(np.float32),
        "var": RANDOM.uniform(1, 2, 4).astype(np.float32),
    },
}


def run(net, images=IMAGES, train=True):
    out, changed = net.apply(VARIABLES, images, train=train, mutable=["batch_stats"])
    return np.asarray(out), changed["batch_stats"]


def by_hand(mean, var, eps):
    x = (IMAGES - mean) / np.sqrt(var + eps)
    return x * VARIABLES["params"]["scale"] + VARIABLES["params"]["bias"]


def test_in_training_equals_the_formula_and_moves_the_running_statistics():
    out, stats = run(BatchNorm(eps=0.1, momentum=0.75))
    mean, var = IMAGES.mean((0, 1, 2)), IMAGES.var((0, 1, 2))
    np.testing.assert_allclose(out, by_hand(mean, var, 0.1), atol=1e-5)
    old = VARIABLES["batch_stats"]
    want = {
        "mean": 0.75 * old["mean"] + 0.25 * mean,
        "var": 0.75 * old["var"] + 0.25 * IMAGES.var((0, 1, 2), ddof=1),
    }
    for name, value in want.items():
        np.testing.assert_allclose(stats[name], value, rtol=1e-6)


@pytest.mark.parametrize(("train", "frozen"), [(False, False), (True, True)])
def test_evaluation_and_frozen_use_the_running_ones_and_leave_them(train, frozen):
    out, stats = run(BatchNorm(frozen=frozen), train=train)
    old = VARIABLES["batch_stats"]
    np.testing.assert_allclose(out, by_hand(old["mean"], old["var"], 1e-5), atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, stats, old)


def test_frozen_statistics_have_no_gradient_through_the_batch():
    def other_rows(frozen):
        first = lambda x: BatchNorm(frozen=frozen).apply(  # noqa: E731
            VARIABLES, x, train=True, mutable=["batch_stats"]
        )[0][0]
        return jax.grad(lambda x: jnp.square(first(x)).sum())(IMAGES)[1:]

    assert np.abs(other_rows(frozen=False)).max() > 1e-3
    assert np.abs(other_rows(frozen=True)).max() == 0


def test_a_large_mean_loses_no_digits():
    x = (1e4 + RANDOM.normal(size=(4096, 1))).astype(np.float32)
    _, var, count = moments(x)
    assert count == 4096
    np.testing.assert_allclose(var, x.astype(np.float64).var(0), rtol=1e-3)


def test_bfloat16_in_and_out_with_float32_statistics():
    half = IMAGES.astype(jnp.bfloat16)
    out, stats = run(BatchNorm(dtype="bfloat16", momentum=0.0), half)
    assert out.dtype == jnp.bfloat16
    want = half.astype(np.float32).mean((0, 1, 2))
    np.testing.assert_allclose(stats["mean"], want, rtol=1e-6)


@pytest.mark.parametrize("devices", [2, 8])
def test_over_a_mapped_axis_equals_the_whole_batch(devices):
    net = BatchNorm()
    loss = lambda variables, x: (  # noqa: E731
        lambda out, stats: (jnp.sin(out).sum(), (out, stats))
    )(*net.apply(variables, x, train=True, mutable=["batch_stats"]))
    gradient = jax.grad(loss, argnums=1, has_aux=True)
    want, (out, stats) = gradient(VARIABLES, IMAGES)

    mapped = jax.pmap(
        over("data")(gradient),
        "data",
        in_axes=(None, 0),
        devices=jax.devices()[:devices],
    )
    rows = IMAGES.reshape(devices, -1, *IMAGES.shape[1:])
    got, (outs, each) = mapped(VARIABLES, rows)
    np.testing.assert_allclose(outs.reshape(out.shape), out, atol=1e-6)
    np.testing.assert_allclose(got.reshape(want.shape), want, atol=1e-6)
    for a, b in zip(*map(jax.tree.leaves, (each, stats)), strict=True):
        np.testing.assert_allclose(a, np.broadcast_to(b, a.shape), atol=1e-6)


def test_one_value_a_channel_is_refused_in_training_alone():
    one = IMAGES[:1, :1, :1]
    run(BatchNorm(), one, train=False)
    run(BatchNorm(frozen=True), one)
    with pytest.raises(ValueError, match=r"one value a channel.*a larger batch"):
        run(BatchNorm(), one)


def test_initialising_in_training_moves_nothing():
    init = functools.partial(BatchNorm().init, train=True)
    stats = jax.jit(init)(jax.random.key(0), IMAGES)["batch_stats"]
    assert (np.asarray(stats["mean"]) == 0).all()
    assert (np.asarray(stats["var"]) == 1).all()
