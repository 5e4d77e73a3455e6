"""Convolutions and pools by hand."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from fmjax.layers.conv import ConvNorm, max_pool, mean_pool, mean_to

IMAGES = np.random.default_rng(0).normal(size=(2, 7, 5, 3)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 3, 6, 7])
def test_means_to_a_size_are_those_of_the_places(size):
    def places(side):
        for i in range(size):
            yield slice(
                int(np.floor(i * side / size)), int(np.ceil((i + 1) * side / size))
            )

    want = np.array(
        [[IMAGES[:, h, w].mean((1, 2)) for w in places(5)] for h in places(7)]
    )
    np.testing.assert_allclose(
        mean_to(IMAGES, size), want.transpose(2, 0, 1, 3), atol=1e-6
    )


def test_pools_pad_evenly_with_nothing_and_with_zeros():
    low = -np.abs(IMAGES) - 1
    padded = {
        v: np.pad(low, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=v)
        for v in (0, -99)
    }
    for i, j in ((0, 0), (3, 2), (1, 1)):
        window = slice(2 * i, 2 * i + 3), slice(2 * j, 2 * j + 3)
        most = padded[-99][:, *window].max((1, 2))
        np.testing.assert_array_equal(max_pool(low, 3, 2, 1)[:, i, j], most)
        mean = padded[0][:, *window].mean((1, 2))
        np.testing.assert_allclose(mean_pool(low, 3, 2, 1)[:, i, j], mean, rtol=1e-5)


@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1)])
def test_a_pool_and_its_gradient_are_xlas_own(size, stride, padding):
    # After ReLU most windows have equals; the gradient is the first one's.
    x = np.maximum(np.random.default_rng(0).integers(-3, 3, (2, 7, 6, 3)), 0.0)
    x = x.astype(np.float32)
    around = ((padding, padding),) * 2
    own = lambda x: nn.max_pool(x, (size, size), (stride, stride), around)  # noqa: E731
    ours = lambda x: max_pool(x, size, stride, padding)  # noqa: E731
    weights = np.random.default_rng(1).normal(size=own(x).shape)
    want, got = (
        jax.jit(jax.value_and_grad(lambda x: (pool(x) * weights).sum()))(x)  # noqa: B023
        for pool in (own, ours)
    )
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-6)
    spoiled = np.where(np.arange(7)[:, None, None] == 3, np.nan, x)
    np.testing.assert_array_equal(ours(spoiled), own(spoiled))


def test_accelerators_keep_xlas_pool():
    gradient = jax.jit(jax.grad(lambda x: max_pool(x, 2, 2).sum()))
    traced = gradient.trace(jax.ShapeDtypeStruct((1, 4, 4, 1), "float32"))
    lowered = {
        where: traced.lower(lowering_platforms=(where,)).as_text()
        for where in ("cpu", "tpu")
    }
    assert "select_and_scatter" in lowered["tpu"]
    assert "select_and_scatter" not in lowered["cpu"]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 2, None), ((1, 3), 1, None), (3, 2, 0)]
)
def test_a_convolution_pads_evenly_by_default(kernel, stride, padding):
    net = ConvNorm(4, kernel, stride, padding, act=None, eps=0.0)
    init = jax.jit(net.init, static_argnames="train")
    variables = init(jax.random.key(0), IMAGES, train=False)
    weights = np.asarray(variables["params"]["conv"]["kernel"])
    height, width = weights.shape[:2]
    around = [(k - 1) // 2 if padding is None else padding for k in (height, width)]
    padded = np.pad(IMAGES, ((0, 0), *((p, p) for p in around), (0, 0)))
    rows, columns = (
        range(0, n - k + 1, stride)
        for n, k in zip(padded.shape[1:3], (height, width), strict=True)
    )
    want = np.array(
        [
            [
                np.einsum(
                    "bhwc,hwcf->bf", padded[:, i : i + height, j : j + width], weights
                )
                for j in columns
            ]
            for i in rows
        ]
    )
    out = net.apply(variables, IMAGES, train=False)
    np.testing.assert_allclose(out, want.transpose(2, 0, 1, 3), atol=1e-5)
