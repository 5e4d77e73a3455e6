"""Counted operations against numbers worked out by hand."""

import functools

import jax
import jax.numpy as jnp
import pytest

from fmjax import step
from fmjax.costs import flops
from fmjax.models import gpt, resnet
from fmjax.objectives import next_token


def zeros(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize(
    ("spec", "shapes", "want"),
    [
        ("ab,bc->ac", [(2, 3), (3, 5)], 2 * 2 * 3 * 5),
        ("zab,zbc->zac", [(7, 2, 3), (7, 3, 5)], 7 * 2 * 2 * 3 * 5),
        ("a,a->", [(9,), (9,)], 18),
    ],
)
def test_products(spec, shapes, want):
    product = functools.partial(jnp.einsum, spec)
    assert flops.count(product, *(zeros(*s) for s in shapes)) == want


def test_a_scan_counts_by_its_length_and_a_remat_counts_again():
    def layers(x, w):
        def body(x, w):
            return jnp.tanh(x @ w), None

        return jax.lax.scan(body, x, w)[0]

    one = 2 * 4 * 8 * 8
    x, w = zeros(4, 8), zeros(6, 8, 8)
    assert flops.count(layers, x, w) == 6 * one
    grad = lambda f: jax.value_and_grad(lambda x, w: f(x, w).sum(), 1)  # noqa: E731
    single = zeros(8, 8)
    layer = lambda x, w: jnp.tanh(jnp.tanh(x @ w) @ w)  # noqa: E731
    # Two products forwards; backwards two for w and one for what is between.
    assert flops.count(grad(layer), x, single) == 5 * one
    again = jax.checkpoint(layer)
    assert flops.count(grad(again), x, single) == 7 * one


def test_what_is_not_used_costs_nothing():
    def function(x, w):
        losses = jax.jit(lambda x: (x @ w, x.sum()))(x)
        return losses[1]

    assert flops.count(function, zeros(4, 8), zeros(8, 8)) == 0


def test_a_loop_of_unknown_length_is_refused():
    def loop(x):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, x)

    with pytest.raises(ValueError, match="no fixed length"):
        flops.count(loop, zeros(3, 3))


def test_a_convolution_and_its_gradients_cost_the_same():
    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    x, w = zeros(3, 8, 8, 4), zeros(3, 3, 4, 5)
    # An output every 2 of 8; SAME pads one behind: of 4 x 3 positions 1 is padding.
    want = 2 * 3 * 5 * 4 * (4 * 3 - 1) ** 2
    assert flops.count(convolve, x, w) == want
    for argument in (0, 1):
        gradient = jax.grad(lambda x, w: convolve(x, w).sum(), argument)
        assert flops.count(gradient, x, w) == want, "the sum itself needs no product"


def test_gpt_is_six_a_parameter_a_token_and_attention():
    fields = dict(vocab_size=64, width=16, depth=3, heads=2, mlp_width=48, dropout=0.0)
    net = gpt.Model(**fields, attention_dropout=0.0, embed_dropout=0.0, max_length=8)
    tokens = jax.ShapeDtypeStruct((4, 8), jnp.int32)
    batch = {"inputs": {"tokens": tokens}, "targets": tokens}
    batch |= {"weights": zeros(4, 8), "mask": zeros(4)}
    init = functools.partial(step.init, net, batch["inputs"])
    params = jax.eval_shape(init, jax.random.key(0))["params"]

    def loss(params, batch):
        apply = step.pure(net)
        # As the train step does: weights are had from an evaluation of their own.
        weights = next_token.objective(apply, params, {}, batch, None)[0]
        key = jax.random.key(0)
        losses, _, _ = next_token.objective(apply, params, {}, batch, key)
        return losses["next_token"][0] / weights["next_token"][1]

    matrices = 3 * (4 * 16 * 16 + 2 * 16 * 48) + 64 * 16
    attention = 3 * 2 * (2 * 8 * 16)  # a token: scores and values over 8 tokens
    want = 3 * 32 * (2 * matrices + attention)
    assert flops.count(jax.grad(loss), params, batch) == want


def test_resnet_50_is_as_published():
    """4.09e9 multiply-adds an image, those with padding among them (torchvision)."""
    net = resnet.Model(**resnet.SIZES["50"], classes=1000)
    images = zeros(1, 224, 224, 3)
    variables = jax.eval_shape(
        functools.partial(step.init, net, images), jax.random.key(0)
    )
    run = lambda variables, x: net.apply(variables, x, train=False)  # noqa: E731
    assert flops.count(run, variables, images) / 2 == pytest.approx(4.09e9, rel=0.04)
