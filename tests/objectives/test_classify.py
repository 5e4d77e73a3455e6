"""Cross-entropy and accuracy by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax, softmax

from fmjax.objectives import classify

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4)).astype(np.float32) * 3
LABEL = np.array([0, 1, 2, 3, 0, 1])
MASK = np.array([1, 1, 0, 1, 1, 0], np.float32)
BATCH = {"inputs": LOGITS, "label": LABEL, "mask": MASK}
KEY = jax.random.key(0)


def apply(params, extras, inputs, key=None):
    """A net that says its inputs, times a parameter; training counts the calls."""
    return inputs * params["scale"], extras if key is None else {
        "calls": extras["calls"] + 1
    }


def run(key=None, batch=BATCH, extras=None, **fields):
    extras = {"calls": 0} if extras is None else extras
    return classify.objective(apply, {"scale": 1.0}, extras, batch, key, **fields)


def test_sums_of_the_real_rows():
    losses, metrics, _ = run()
    nll = -log_softmax(LOGITS.astype(np.float64), axis=-1)[np.arange(6), LABEL]
    total, weight = losses["classify"]
    assert set(losses) == {"classify"}
    assert float(total) == pytest.approx(nll[MASK > 0].sum(), rel=1e-6)
    assert float(weight) == 4
    theirs = optax.softmax_cross_entropy_with_integer_labels(LOGITS, LABEL)
    assert float(total) == pytest.approx(float((theirs * MASK).sum()), rel=1e-6)
    right, count = metrics["accuracy"]
    assert float(right) == (LOGITS.argmax(-1) == LABEL)[MASK > 0].sum()
    assert float(count) == 4


def test_padding_has_no_say():
    batch = BATCH | {"inputs": np.where(MASK[:, None] > 0, LOGITS, 1e4)}
    batch = batch | {"label": np.where(MASK > 0, LABEL, 0)}
    for got, want in zip(*map(jax.tree.leaves, (run(batch=batch), run())), strict=True):
        assert float(got) == pytest.approx(float(want), rel=1e-6)


def test_all_padding_is_zero_over_zero():
    losses, metrics, _ = run(batch=BATCH | {"mask": np.zeros(6, np.float32)})
    assert jax.tree.map(float, (losses, metrics)) == (
        {"classify": (0, 0)},
        {"accuracy": (0, 0)},
    )


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_smoothing_is_for_training_alone(smoothing):
    target = np.eye(4)[LABEL] * (1 - smoothing) + smoothing / 4
    want = -(target * log_softmax(LOGITS.astype(np.float64), axis=-1)).sum(-1)
    plain = -log_softmax(LOGITS.astype(np.float64), axis=-1)[np.arange(6), LABEL]
    trained = run(KEY, label_smoothing=smoothing)[0]["classify"][0]
    tested = run(None, label_smoothing=smoothing)[0]["classify"][0]
    assert float(trained) == pytest.approx((want * MASK).sum(), rel=1e-6)
    assert float(tested) == pytest.approx((plain * MASK).sum(), rel=1e-6)
    assert float(trained) != pytest.approx(float(tested), rel=1e-3)


def test_no_smoothing_unless_asked():
    assert float(run(KEY)[0]["classify"][0]) == float(run()[0]["classify"][0])


def test_gradient_is_probability_minus_label():
    def loss(logits):
        total, _ = run(batch=BATCH | {"inputs": logits})[0]["classify"]
        return total

    want = (softmax(LOGITS, axis=-1) - np.eye(4)[LABEL]) * MASK[:, None]
    np.testing.assert_allclose(jax.grad(loss)(LOGITS), want, atol=1e-6)


def test_half_precision_logits_are_summed_in_float32():
    half = jnp.asarray(LOGITS, jnp.bfloat16)
    losses, _, _ = run(batch=BATCH | {"inputs": half})
    want, _, _ = run(batch=BATCH | {"inputs": np.asarray(half, np.float32)})
    assert losses["classify"][0].dtype == jnp.float32
    assert float(losses["classify"][0]) == float(want["classify"][0])


def test_extras_come_from_the_net():
    assert run(KEY)[2] == {"calls": 1}
    assert run(None)[2] == {"calls": 0}


def test_weights_depend_on_the_batch_alone():
    for scale in (0.0, 5.0):
        losses, _, _ = classify.objective(apply, {"scale": scale}, {}, BATCH, None)
        assert float(losses["classify"][1]) == 4


def test_predictions_are_probabilities_of_every_row():
    batch = {"inputs": LOGITS.astype(jnp.bfloat16)}  # no label, no mask
    found = classify.predict(apply, {"scale": 1.0}, {}, batch)
    assert set(found) == {"probabilities"}
    assert found["probabilities"].dtype == jnp.float32
    want = softmax(np.asarray(batch["inputs"], np.float64), axis=-1)
    np.testing.assert_allclose(found["probabilities"], want, atol=1e-6)


def test_mixtures_are_trained_towards_both_labels():
    share = np.array([1, 0.8, 0.5, 0.3, 0, 0.9], np.float32)
    other = np.array([3, 2, 1, 0, 1, 2])
    batch = BATCH | {"label2": other, "share": share}
    target = np.eye(4)[LABEL] * share[:, None] + np.eye(4)[other] * (1 - share)[:, None]
    nll = -(target * log_softmax(LOGITS.astype(np.float64), axis=-1)).sum(-1)
    losses, metrics, _ = run(KEY, batch=batch)
    assert float(losses["classify"][0]) == pytest.approx((nll * MASK).sum(), rel=1e-5)
    assert float(losses["classify"][1]) == 4
    greater = np.where(share >= 0.5, LABEL, other)
    right = (LOGITS.argmax(-1) == greater)[MASK > 0].sum()
    assert float(metrics["accuracy"][0]) == right
    whole = run(KEY, batch=BATCH | {"label2": other, "share": np.ones(6, np.float32)})
    assert float(whole[0]["classify"][0]) == pytest.approx(
        float(run(KEY)[0]["classify"][0]), rel=1e-6
    )
