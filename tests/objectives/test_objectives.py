"""Objectives against sums done by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.objectives import bert_pretrain, classify

RNG = np.random.default_rng(0)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def apply_to(outputs):
    return lambda params, extras, inputs, key=None: (outputs, extras)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("training", [True, False])
def test_classify(smoothing, training):
    logits = RNG.normal(size=(4, 3)).astype(np.float32)
    batch = {
        "inputs": None,
        "label": jnp.array([0, 1, 2, 2]),
        "mask": jnp.array([1.0, 1.0, 1.0, 0.0]),
    }
    losses, metrics, extras = classify.objective(
        apply_to(jnp.asarray(logits)),
        {},
        {"kept": 1},
        batch,
        "a key" if training else None,
        label_smoothing=smoothing,
    )
    e = smoothing if training else 0.0
    target = np.eye(3)[[0, 1, 2]] * (1 - e) + e / 3
    want = -(target * log_softmax(logits[:3])).sum()
    assert float(losses["classify"][0]) == pytest.approx(want, rel=1e-5)
    assert float(losses["classify"][1]) == 3
    right = (logits[:3].argmax(-1) == [0, 1, 2]).sum()
    assert [float(x) for x in metrics["accuracy"]] == [right, 3]
    assert extras == {"kept": 1}
    p = classify.predict(apply_to(jnp.asarray(logits)), {}, {}, batch)["probabilities"]
    np.testing.assert_allclose(p, np.exp(log_softmax(logits)), rtol=1e-5)


def test_pretraining_terms_have_weights_of_their_own():
    tokens = RNG.normal(size=(3, 2, 7)).astype(np.float32)
    pair = RNG.normal(size=(3, 2)).astype(np.float32)
    batch = {
        "inputs": None,
        "targets": jnp.array([[1, 2], [3, 4], [5, 6]]),
        "weights": jnp.array([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]),
        "next": jnp.array([0, 1, 1]),
        "mask": jnp.array([1.0, 1.0, 0.0]),  # the last row is padding
    }
    outputs = (jnp.asarray(tokens), jnp.asarray(pair))
    losses, metrics, _ = bert_pretrain.objective(apply_to(outputs), {}, {}, batch, None)
    t, p = log_softmax(tokens), log_softmax(pair)
    masked = -(t[0, 0, 1] + t[0, 1, 2] + t[1, 0, 3])
    assert float(losses["masked_lm"][0]) == pytest.approx(masked, rel=1e-5)
    assert float(losses["masked_lm"][1]) == 3
    assert float(losses["next_sentence"][0]) == pytest.approx(
        -(p[0, 0] + p[1, 1]), rel=1e-5
    )
    assert float(losses["next_sentence"][1]) == 2
    assert float(metrics["masked_lm_accuracy"][1]) == 3
    assert float(metrics["next_sentence_accuracy"][1]) == 2
