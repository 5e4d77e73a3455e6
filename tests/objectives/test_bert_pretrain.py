"""BERT's two losses by hand, with their unlike denominators."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax, softmax

from fmjax.objectives import bert_pretrain

# B batch, P masked positions, V words
B, P, V = 4, 3, 7
RNG = np.random.default_rng(0)
TOKENS = RNG.normal(size=(B, P, V)).astype(np.float32) * 2
PAIR = RNG.normal(size=(B, 2)).astype(np.float32) * 2
BATCH = {
    "inputs": {"tokens": TOKENS, "pair": PAIR},
    "targets": RNG.integers(V, size=(B, P)),
    "weights": np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]], np.float32),
    "next": np.array([0, 1, 1, 0]),
    "mask": np.array([1, 1, 1, 0], np.float32),  # the last row is padding
}


def apply(params, extras, inputs, key=None):
    return (inputs["tokens"], inputs["pair"]), extras


def run(batch=BATCH, key=None):
    return bert_pretrain.objective(apply, {}, {}, batch, key)


def test_each_term_has_its_sum_and_weight():
    losses, metrics, extras = run()
    words = -np.take_along_axis(
        log_softmax(TOKENS.astype(np.float64), axis=-1), BATCH["targets"][..., None], -1
    )[..., 0]
    used = BATCH["weights"][:3] > 0
    pair = -log_softmax(PAIR.astype(np.float64), axis=-1)[np.arange(B), BATCH["next"]]
    assert set(losses) == {"masked_lm", "next_sentence"}
    total, weight = losses["masked_lm"]
    assert float(total) == pytest.approx(words[:3][used].sum(), rel=1e-6)
    assert float(weight) == 6
    total, weight = losses["next_sentence"]
    assert float(total) == pytest.approx(pair[:3].sum(), rel=1e-6)
    assert float(weight) == 3

    right = (TOKENS.argmax(-1) == BATCH["targets"])[:3][used].sum()
    assert tuple(map(float, metrics["masked_lm_accuracy"])) == (right, 6)
    right = (PAIR.argmax(-1) == BATCH["next"])[:3].sum()
    assert tuple(map(float, metrics["next_sentence_accuracy"])) == (right, 3)
    assert extras == {}


def test_as_optax():
    losses, _, _ = run()
    loss = optax.softmax_cross_entropy_with_integer_labels
    weights = BATCH["weights"] * BATCH["mask"][:, None]
    want = (loss(TOKENS, BATCH["targets"]) * weights).sum()
    assert float(losses["masked_lm"][0]) == pytest.approx(float(want), rel=1e-6)
    want = (loss(PAIR, BATCH["next"]) * BATCH["mask"]).sum()
    assert float(losses["next_sentence"][0]) == pytest.approx(float(want), rel=1e-6)


def test_unused_positions_and_padding_have_no_say():
    used = (BATCH["weights"] * BATCH["mask"][:, None])[..., None] > 0
    other = BATCH | {
        "inputs": {
            "tokens": np.where(used, TOKENS, 1e4).astype(np.float32),
            "pair": np.where(BATCH["mask"][:, None] > 0, PAIR, -1e4).astype(np.float32),
        },
        "targets": np.where(used[..., 0], BATCH["targets"], 0),
    }
    for got, want in zip(*map(jax.tree.leaves, (run(other), run())), strict=True):
        assert float(got) == pytest.approx(float(want), rel=1e-6)


def test_gradients_stay_with_their_term():
    def loss(inputs, name):
        return run(BATCH | {"inputs": inputs})[0][name][0]

    words = jax.grad(loss)(BATCH["inputs"], "masked_lm")
    weights = BATCH["weights"] * BATCH["mask"][:, None]
    want = (softmax(TOKENS, axis=-1) - np.eye(V)[BATCH["targets"]]) * weights[..., None]
    np.testing.assert_allclose(words["tokens"], want, atol=1e-6)
    assert not words["pair"].any()
    pair = jax.grad(loss)(BATCH["inputs"], "next_sentence")
    want = (softmax(PAIR, axis=-1) - np.eye(2)[BATCH["next"]]) * BATCH["mask"][:, None]
    np.testing.assert_allclose(pair["pair"], want, atol=1e-6)
    assert not pair["tokens"].any()


def test_half_precision_logits_are_summed_in_float32():
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), BATCH["inputs"])
    wide = jax.tree.map(lambda x: np.asarray(x, np.float32), half)
    found, want = run(BATCH | {"inputs": half}), run(BATCH | {"inputs": wide})
    assert jax.tree.map(float, found) == jax.tree.map(float, want)
    assert found[0]["masked_lm"][0].dtype == jnp.float32


def test_a_batch_of_padding_weighs_nothing():
    losses, metrics, _ = run(BATCH | {"mask": np.zeros(B, np.float32)})
    assert {float(x) for x in jax.tree.leaves((losses, metrics))} == {0.0}
