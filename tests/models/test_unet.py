"""U-Net: the paper's sizes and count, and what each pixel sees."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.models import unet

TINY = unet.Model(classes=3, channels=(4, 6, 8), padding="same")


def test_the_paper_s_net():
    net = unet.Model(**unet.SIZES["paper"])
    images = jnp.zeros((1, 572, 572, 1))
    variables = jax.eval_shape(net.init, jax.random.key(0), images)
    leaves = jax.tree.leaves(variables["params"])
    assert sum(math.prod(leaf.shape) for leaf in leaves) == 31_030_658
    assert jax.eval_shape(net.apply, variables, images).shape == (1, 388, 388, 2)
    same = unet.Model(**unet.SIZES["paper-same"])
    images = jnp.zeros((1, 512, 256, 1))
    assert jax.eval_shape(same.apply, variables, images).shape == (1, 512, 256, 2)


@pytest.mark.parametrize(
    ("padding", "side", "skip"),
    [("same", 24, True), ("same", 24, False), ("valid", 44, True)],
)
def test_each_level_is_seen_and_used(padding, side, skip):
    net = TINY.clone(padding=padding, skip=skip)
    x = jax.random.normal(jax.random.key(1), (1, side, side, 1))
    variables = jax.jit(net.init)(jax.random.key(0), x)
    out = jax.jit(net.apply)(variables, x)
    size = unet.output_size(side, 3, padding)
    assert out.shape == (1, size, size, 3)
    grads = jax.jit(jax.grad(lambda v: (net.apply(v, x) ** 2).sum()))(variables)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.abs(leaf).max() > 0, path


def test_without_padding_the_map_moves_with_the_image():
    net = TINY.clone(padding="valid")
    x = jax.random.normal(jax.random.key(1), (1, 60, 60, 1))
    variables = jax.jit(net.init)(jax.random.key(0), x[:, :44, :44])
    whole = net.apply(variables, x)
    # By whole strides, 4 pixels: a part of the image gives that part of the map.
    part = net.apply(variables, x[:, 8:52, 4:48])
    np.testing.assert_allclose(whole[:, 8:12, 4:8], part, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("side", "levels", "padding", "message"),
    [
        (570, 5, "valid", "nearest that do: 572, 556"),
        (30, 3, "same", "nearest that do: 28, 32"),
        (20, 5, "valid", "nearest that do: 188, 204"),
        (32, 3, "reflect", "'same' or 'valid', not 'reflect'"),
    ],
)
def test_sides_that_do_not_halve_are_named_with_the_remedy(
    side, levels, padding, message
):
    with pytest.raises(ValueError, match=message):
        unet.output_size(side, levels, padding)


def test_inputs_are_floating_images():
    with pytest.raises(ValueError, match="must be floating"):
        TINY.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1), jnp.int32))
