"""BERT's sizes, relations between inputs and outputs, and errors when traced.

Equality with the reference is in tests/interop.
"""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.models.bert import SIZES, Model

FIELDS = dict(vocab_size=23, width=12, depth=2, heads=3, mlp_width=20, max_length=10)


def shapes(**fields):
    inputs = {"tokens": np.zeros((1, 4), np.int32)}
    return jax.eval_shape(Model(**FIELDS | fields).init, jax.random.key(0), inputs)


def count(**fields):
    fields = {"max_length": 512} | fields
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(**fields)))


# The encoder with its pooler. Published, in millions: 4.4, 11.3, 29.1, 41.7, 110
# (Turc et al. 2019, table 1), 340 and 110 (Devlin et al. 2019), 22.7 (MiniLM).
ENCODER = {
    "tiny": 4_385_920,
    "mini": 11_170_560,
    "small": 28_763_648,
    "medium": 41_373_184,
    "base": 109_482_240,
    "large": 335_141_888,
    "minilm-l6": 22_713_216,
}
# With both pre-training heads; equal to transformers' BertForPreTraining.
PRETRAIN = {
    "tiny": 4_433_468,
    "mini": 11_267_900,
    "small": 29_058_876,
    "medium": 41_668_412,
    "base": 110_106_428,
    "large": 336_226_108,
    "minilm-l6": 22_893_116,
}


@pytest.mark.parametrize("size", SIZES)
def test_parameter_counts(size):
    assert count(**SIZES[size]) == ENCODER[size]
    assert count(**SIZES[size], head="pretrain") == PRETRAIN[size]


@functools.partial(jax.jit, static_argnums=0)
def run(net, variables, inputs, key=None):
    rngs = None if key is None else {"dropout": key}
    return net.apply(variables, inputs, train=key is not None, rngs=rngs)


def build(batch=2, length=6, **changes):
    net = Model(**FIELDS | changes)
    random = np.random.default_rng(0)
    inputs = {
        "tokens": random.integers(0, 23, (batch, length), np.int32),
        "types": random.integers(0, 2, (batch, length), np.int32),
        "mask": np.ones((batch, length), bool),
    }
    variables = jax.jit(net.init)(jax.random.key(0), inputs)
    # Away from the initialiser's 0.02, where attention is nearly uniform.
    variables = jax.tree.map(lambda x: x * 10 if x.ndim == 2 else x, variables)
    return net, variables, inputs


def test_the_encoder_s_paths_are_equal_under_every_head():
    trees = [shapes(head=h, classes=3) for h in (None, "pretrain", "classify")]
    flat = [
        {jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in trees
    ]
    assert flat[0] < flat[1]
    assert flat[0] < flat[2]
    assert "['params']['layer1']['attention']['query']['kernel']" in flat[0]


def test_padding_changes_nothing():
    net, variables, inputs = build(length=6)
    hidden, pooled = run(net, variables, inputs)
    padded = {k: np.pad(v, ((0, 0), (0, 3))) for k, v in inputs.items()}
    padded["tokens"][:, 6:] = 7  # whatever stands there
    hidden_padded, pooled_padded = run(net, variables, padded)
    np.testing.assert_allclose(hidden_padded[:, :6], hidden, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pooled_padded, pooled, rtol=1e-5, atol=1e-6)


def test_masked_tokens_do_not_change_the_others_and_unmasked_do():
    net, variables, inputs = build()
    inputs["mask"][:, 3] = False
    changed = inputs | {"tokens": inputs["tokens"].copy()}
    changed["tokens"][:, 3] = (changed["tokens"][:, 3] + 1) % 23
    others = np.arange(6) != 3
    before, after = (run(net, variables, x)[0][:, others] for x in (inputs, changed))
    np.testing.assert_array_equal(before, after)
    changed["mask"] = inputs["mask"] = np.ones((2, 6), bool)
    before, after = (run(net, variables, x)[0][:, others] for x in (inputs, changed))
    assert (before != after).all(axis=-1).all()


def test_a_row_of_padding_alone_is_finite_and_touches_no_other():
    net, variables, inputs = build(head="classify", classes=2)
    alone = run(net, variables, inputs)
    inputs["mask"][1] = False
    out = run(net, variables, inputs)
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(out[0], alone[0])

    def first_row(variables):
        return run(net, variables, inputs)[0].sum()

    for leaf in jax.tree.leaves(jax.jit(jax.grad(first_row))(variables)):
        assert np.isfinite(leaf).all()


def test_absent_types_and_mask_are_zeros_and_ones():
    net, variables, inputs = build()
    given = inputs | {"types": np.zeros_like(inputs["types"])}
    short = {"tokens": inputs["tokens"]}
    for a, b in zip(
        run(net, variables, given), run(net, variables, short), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_positions_select_from_all_the_predictions():
    net, variables, inputs = build(head="pretrain")
    everywhere, pair = run(net, variables, inputs)
    positions = np.array([[5, 0], [2, 2]], np.int32)
    chosen, same = run(net, variables, inputs | {"positions": positions})
    assert everywhere.shape == (2, 6, 23)
    expected = np.take_along_axis(np.asarray(everywhere), positions[..., None], axis=1)
    np.testing.assert_allclose(chosen, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(pair, same)


def test_bfloat16_computes_on_float32_parameters():
    exact, variables, inputs = build(head="pretrain")
    net = exact.clone(dtype="bfloat16")
    for leaf in jax.tree.leaves(jax.eval_shape(net.init, jax.random.key(0), inputs)):
        assert leaf.dtype == jnp.float32
    seen = jax.eval_shape(
        lambda: net.apply(variables, inputs, capture_intermediates=True)[1]
    )
    assert seen["intermediates"]["layer1"]["__call__"][0][0].dtype == jnp.bfloat16
    for a, b in zip(
        run(net, variables, inputs), run(exact, variables, inputs), strict=True
    ):
        assert a.dtype == jnp.float32
        assert np.abs(a - b).max() < 0.05 * np.abs(b).max()
    grads = jax.jit(jax.grad(lambda v: net.apply(v, inputs)[0].sum()))(variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float32")}


def test_dropout_is_addressed_by_the_key():
    net, variables, inputs = build(head="classify", classes=2)
    first, again, other = (
        run(net, variables, inputs, jax.random.key(s)) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_head_dropout_stands_alone():
    rates = {"dropout": 0.0, "attention_dropout": 0.0}
    key = jax.random.key(0)
    net, variables, inputs = build(head="classify", classes=2, **rates)
    plain = run(net, variables, inputs)
    np.testing.assert_array_equal(run(net, variables, inputs, key), plain)
    net = net.clone(head_dropout=0.5)
    assert (run(net, variables, inputs, key) != plain).any()


def test_ids_outside_a_table_are_not_silently_others():
    net, variables, inputs = build()
    inputs["tokens"][0, 2] = 23
    assert np.isnan(run(net, variables, inputs)[0][0]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 11}, "tokens are 11 long, .* 1 to 10; truncate"),
        ({"heads": 5}, "width 12 does not divide by 5 heads"),
        ({"head": "pretrian"}, "'pretrian'; did you mean 'pretrain'"),
        ({"head": "classify"}, "needs classes, 1 or more; got None"),
        ({"activation": "geluu"}, "did you mean 'gelu'"),
    ],
)
def test_fields_that_mean_nothing_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tokens", np.zeros(6, np.int32), r"must be \[B, T\]"),
        ("tokens", np.zeros((2, 6)), "tokens must be integers"),
        ("types", np.zeros((2, 5), np.int32), r"types has shape \(2, 5\)"),
        ("mask", np.ones((2, 6), np.int32), "mask must be bool"),
    ],
)
def test_inputs_that_do_not_fit_are_named(name, value, message):
    net, variables, inputs = build()
    with pytest.raises(ValueError, match=message):
        net.apply(variables, inputs | {name: value})


def test_models_pull_in_no_checkpoints_data_sets_or_torch():
    heavy = "orbax tensorflow_datasets tensorflow torch grain transformers"
    code = (
        "import sys, fmjax.models.bert, fmjax.models.cnn, fmjax.interop.bert; "
        f"print(sorted(set('{heavy}'.split()) & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
