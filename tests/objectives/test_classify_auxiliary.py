"""Two classifiers: the second one's share of the loss, in training alone."""

import jax
import numpy as np
import pytest

from fmjax.objectives import classify, classify_auxiliary


def apply(params, extras, inputs, key=None, both=False):
    logits = inputs * params, inputs[:, ::-1] * params
    return (logits if both else logits[0]), {"seen": extras["seen"] + both}


RANDOM = np.random.default_rng(0)
BATCH = {
    "inputs": RANDOM.normal(size=(5, 3)).astype(np.float32),
    "label": np.array([0, 1, 2, 1, 0]),
    "mask": np.array([1, 1, 1, 1, 0], np.float32),
}


@pytest.mark.parametrize("share", [0.3, 0.0])
def test_loss_is_the_first_and_a_share_of_the_second(share):
    run = classify_auxiliary.objective
    given = (2.0, {"seen": 0}, BATCH, jax.random.key(0))
    losses, metrics, extras = run(apply, *given, share=share, label_smoothing=0.1)
    want = 0
    for factor, turn in ((1, 1), (share, -1)):
        x = 2 * BATCH["inputs"][:4, ::turn]
        logs = x - np.log(np.exp(x).sum(1, keepdims=True))
        target = 0.9 * np.eye(3)[BATCH["label"][:4]] + 0.1 / 3
        want -= factor * (target * logs).sum()
    total, weight = losses["classify"]
    assert float(total) == pytest.approx(want, rel=1e-5)
    assert weight == 4
    assert extras == {"seen": 1}
    right = (BATCH["inputs"][:4].argmax(1) == BATCH["label"][:4]).sum()
    assert float(metrics["accuracy"][0]) == right


def test_evaluation_is_that_of_one_classifier():
    given = (2.0, {"seen": 0}, BATCH, None)
    got = classify_auxiliary.objective(apply, *given, share=0.3, label_smoothing=0.1)
    want = classify.objective(apply, *given)
    jax.tree.map(np.testing.assert_array_equal, got, want)
