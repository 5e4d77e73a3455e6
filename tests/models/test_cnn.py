"""The small convolutional nets: counts, shapes, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.models.cnn import SIZES, Model

# By hand for 28x28x1: classic is 320 + 13*13*32*64 + 64 + 64*10 + 10; the other two
# begin with 320 + 18,496, and 5*5*64 = 1,600 features are left.
COUNTS = {
    "classic": 320 + 346_112 + 64 + 650,
    "two": 320 + 18_496 + 16_010,
    "two-dense": 320 + 18_496 + 204_928 + 1_290,
}


@pytest.mark.parametrize("size", SIZES)
def test_parameter_counts(size):
    net, images = Model(**SIZES[size]), np.zeros((1, 28, 28, 1), np.float32)
    params = jax.eval_shape(net.init, jax.random.key(0), images)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == COUNTS[size]


def test_equals_the_formula():
    net = Model(classes=3, channels=(2,), dense=4)
    images = np.random.default_rng(0).normal(size=(2, 7, 6, 1)).astype(np.float32)
    params = jax.jit(net.init)(jax.random.key(0), images)["params"]
    kernel, maps = np.asarray(params["conv0"]["kernel"]), np.zeros((2, 5, 4, 2))
    for i, j in np.ndindex(5, 4):
        patch = images[:, i : i + 3, j : j + 3]
        maps[:, i, j] = np.einsum("bijc,ijcf->bf", patch, kernel)
    maps = np.maximum(maps + params["conv0"]["bias"], 0)[:, :4]
    x = maps.reshape(2, 2, 2, 2, 2, 2).max((2, 4)).reshape(2, -1)
    for name in ("dense", "classify"):
        x = x @ params[name]["kernel"] + params[name]["bias"]
        x = np.maximum(x, 0) if name == "dense" else x
    np.testing.assert_allclose(net.apply({"params": params}, images), x, atol=1e-5)


def test_dropout_is_addressed_by_the_key_and_off_in_evaluation():
    net, images = Model(**SIZES["two-dense"]), jnp.ones((2, 14, 14, 1))
    variables = jax.jit(net.init)(jax.random.key(0), images)
    first, again, other = (
        net.apply(variables, images, train=True, rngs={"dropout": jax.random.key(s)})
        for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    plain = net.clone(dropout=0.0)
    np.testing.assert_array_equal(
        net.apply(variables, images), plain.apply(variables, images, train=True)
    )


def test_bfloat16_keeps_float32_parameters_and_logits():
    net, images = Model(dtype="bfloat16"), jnp.ones((2, 8, 8, 3))
    variables = jax.jit(net.init)(jax.random.key(0), images)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert net.apply(variables, images).dtype == jnp.float32


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 28, 28), np.float32), "needs a channel axis"),
        (np.zeros((2, 28, 28, 1), np.uint8), "got uint8; scale"),
        (np.zeros((2, 3, 28, 1), np.float32), "images of 3x28 are gone after level 0"),
    ],
)
def test_images_that_do_not_fit_are_named(images, message):
    with pytest.raises(ValueError, match=message):
        Model().init(jax.random.key(0), images)
