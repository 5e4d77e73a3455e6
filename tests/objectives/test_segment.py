"""Cross-entropy and soft Dice by hand; cut up, padded, cropped."""

import jax
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from fmjax.metrics import segmentation
from fmjax.objectives import segment

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4, 5, 6, 3)).astype(np.float32) * 2
TARGETS = RNG.integers(0, 2, (4, 5, 6))  # class 2 is nowhere
WEIGHTS = (RNG.random((4, 5, 6)) < 0.8).astype(np.float32)
WEIGHTS[3] = 0  # an image of pixels that count for nothing
MASK = np.array([1, 1, 0, 1], np.float32)
BATCH = {"inputs": LOGITS, "targets": TARGETS, "weights": WEIGHTS, "mask": MASK}


def apply(params, extras, inputs, key=None):
    return inputs, extras


def run(batch=BATCH, **fields):
    return segment.objective(apply, {}, {}, batch, None, **fields)


def by_hand():
    real = WEIGHTS * MASK[:, None, None]
    log_p = log_softmax(LOGITS.astype(float), axis=-1)
    entropy = -np.take_along_axis(log_p, TARGETS[..., None], -1)[..., 0]
    dice = []
    for i in (0, 1):
        p = softmax(LOGITS[i].astype(float), axis=-1)[real[i] > 0]
        t = np.eye(3)[TARGETS[i][real[i] > 0]]
        every = (p**2).sum(0) + (t**2).sum(0)
        dice.append(((2 * (p * t).sum(0) + 1) / (every + 1)).mean())
    return (entropy * real).sum(), real.sum(), np.array(dice)


def test_sums():
    losses, metrics, _ = run()
    entropy, pixels, dice = by_hand()
    want = {"cross_entropy": (entropy, pixels), "dice": (2 - dice.sum(), 2)}
    for name, pair in want.items():
        np.testing.assert_allclose(losses[name], pair, rtol=1e-5)
    right = (LOGITS.argmax(-1) == TARGETS) * WEIGHTS * MASK[:, None, None]
    np.testing.assert_allclose(metrics["accuracy"], (right.sum(), pixels))
    np.testing.assert_allclose(metrics["soft_dice"], (dice.sum(), 2), rtol=1e-5)


def test_factors():
    losses, _, _ = run(dice=0, cross_entropy=3.0)
    assert set(losses) == {"cross_entropy"}
    plain = run()[0]["cross_entropy"]
    np.testing.assert_allclose(losses["cross_entropy"][0], 3 * plain[0], rtol=1e-6)
    doubled = run(dice=2.0)[0]["dice"]
    np.testing.assert_allclose(doubled[0], 2 * run()[0]["dice"][0], rtol=1e-6)


def test_parts_of_a_batch_add_up_to_it():
    parts = [
        run({name: value[i : i + 2] for name, value in BATCH.items()}) for i in (0, 2)
    ]
    whole = run()
    for a, b, c in zip(*map(jax.tree.leaves, (*parts, whole)), strict=True):
        np.testing.assert_allclose(a + b, c, rtol=1e-5)


def test_padding_and_pixels_that_do_not_count_have_no_say():
    real = (WEIGHTS * MASK[:, None, None]) > 0
    batch = BATCH | {
        "inputs": np.where(real[..., None], LOGITS, 50),
        "targets": np.where(real, TARGETS, 1 - TARGETS),
    }
    for a, b in zip(*map(jax.tree.leaves, (run(batch), run())), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_the_best_there_is_costs_nothing():
    logits = 50 * np.eye(3, dtype=np.float32)[TARGETS]
    losses, metrics, _ = run(BATCH | {"inputs": logits})
    np.testing.assert_allclose([losses[k][0] for k in losses], [0, 0], atol=1e-4)
    assert metrics["accuracy"][0] == metrics["accuracy"][1]


def test_smaller_maps_are_of_the_middle():
    inner = {k: BATCH[k][:, 1:4, 1:5] for k in ("inputs", "targets", "weights")}
    want = run(BATCH | inner)
    got = run(BATCH | {"inputs": inner["inputs"]})
    for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="larger than targets"):
        run(BATCH | {k: BATCH[k][:, 1:] for k in ("targets", "weights")})


def test_predictions_are_confusion_matrices():
    found = segment.predict(apply, {}, {}, BATCH)["confusion"]
    assert found.shape == (4, 3, 3)
    real = (WEIGHTS * MASK[:, None, None]) > 0
    said = LOGITS.argmax(-1)
    for i in range(4):
        want = np.zeros((3, 3))
        np.add.at(want, (TARGETS[i][real[i]], said[i][real[i]]), 1)
        np.testing.assert_array_equal(found[i], want)
    numbers = segmentation.compute(confusion=found)
    _, metrics, _ = run()
    right, pixels = metrics["accuracy"]
    assert numbers["accuracy"] == pytest.approx(float(right / pixels))


def test_maps_are_the_likeliest_classes_and_255_around_the_middle():
    whole = segment.maps(apply, {}, {}, BATCH)["map"]
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(whole, LOGITS.argmax(-1))
    inner = segment.maps(apply, {}, {}, BATCH | {"inputs": LOGITS[:, 1:4, 1:4]})["map"]
    want = np.full((4, 5, 6), 255)
    want[:, 1:4, 1:4] = LOGITS[:, 1:4, 1:4].argmax(-1)
    np.testing.assert_array_equal(inner, want)
    with pytest.raises(ValueError, match="larger than targets"):
        segment.maps(apply, {}, {}, BATCH | {"targets": TARGETS[:, 1:]})
