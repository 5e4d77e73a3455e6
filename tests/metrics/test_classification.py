"""Our numbers are the library's and the hand's; bad inputs are named."""

import json
import sys

import numpy as np
import pytest
import sklearn.metrics

from fmjax.metrics import calibration, classification


def sample(seed=0, count=400, classes=3, dtype=np.float32):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, classes)) * 2
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return random.integers(classes, size=count), scores.astype(dtype)


def test_by_hand():
    # Five examples whose every number can be checked on paper.
    probabilities = [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]]
    got = classification.compute(
        labels=np.array([0, 0, 1, 1, 1]),
        probabilities=probabilities,
        classes=("negative", "positive"),
    )
    assert got["count"] == 5
    assert got["accuracy"] == pytest.approx(3 / 5)
    assert got["confusion"] == [[1, 1], [1, 2]]  # rows: truth
    assert got["positive"] == "positive"
    assert got["f1"] == pytest.approx(2 / 3)
    assert got["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    nll = -np.log([0.9, 0.4, 0.8, 0.7, 0.4]).mean()
    assert got["nll"] == pytest.approx(nll)
    assert got["brier"] == pytest.approx(2 * (0.01 + 0.36 + 0.04 + 0.09 + 0.36) / 5)
    # 0.6 (once wrong on each class) shares the bin (8/15, 9/15]; the rest are alone.
    assert got["ece"] == pytest.approx((0.1 + 1.2 + 0.2 + 0.3) / 5)
    negative, positive = got["per_class"]
    assert negative == {
        "class": "negative",
        "support": 2,
        "precision": 0.5,
        "recall": 0.5,
        "f1": 0.5,
    }
    assert positive["support"] == 3
    assert positive["recall"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_equals_the_library(classes):
    labels, scores = sample(classes=classes)
    names = [f"class {index}" for index in range(classes)]
    got = classification.compute(labels=labels, probabilities=scores, classes=names)
    predicted = scores.argmax(axis=1)
    exact = scores.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    assert got["accuracy"] == sklearn.metrics.accuracy_score(labels, predicted)
    assert ("top5_accuracy" in got) == (classes > 5)
    if classes > 5:
        theirs = sklearn.metrics.top_k_accuracy_score(labels, exact, k=5)
        assert got["top5_accuracy"] == theirs
        assert got["accuracy"] < got["top5_accuracy"] < 1
    assert got["macro_f1"] == pytest.approx(
        sklearn.metrics.f1_score(labels, predicted, average="macro")
    )
    assert got["nll"] == pytest.approx(sklearn.metrics.log_loss(labels, exact))
    expected = sum(
        sklearn.metrics.brier_score_loss(labels == index, exact[:, index])
        for index in range(classes)
    )
    assert got["brier"] == pytest.approx(expected)
    assert np.sum(got["confusion"]) == got["count"] == len(labels)
    support = [entry["support"] for entry in got["per_class"]]
    assert np.sum(got["confusion"], axis=1).tolist() == support
    assert ("f1" in got) == (classes == 2)
    assert json.loads(json.dumps(got, allow_nan=False)) == got


def test_calibration_error_by_definition():
    # Guo et al. 2017, eq. 5, as a plain loop over bins (m / M, (m + 1) / M].
    labels, scores = sample(seed=1, dtype=np.float64)
    confidence, correct = scores.max(axis=1), scores.argmax(axis=1) == labels
    expected = 0.0
    for index in range(15):
        low, high = index / 15, (index + 1) / 15
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            expected += inside.mean() * gap
    curve = calibration.reliability(labels=labels, probabilities=scores)
    assert expected > 0.1
    assert curve["ece"] == pytest.approx(expected, abs=1e-12)
    assert sum(curve["counts"]) == len(labels)
    assert len(curve["edges"]) == 16
    empty = [count == 0 for count in curve["counts"]]
    assert empty == [value is None for value in curve["accuracy"]]
    assert empty == [value is None for value in curve["confidence"]]


def test_bins_hold_their_upper_edge():
    curve = calibration.reliability(
        labels=[0, 1, 1], probabilities=[[0.5, 0.5], [0.25, 0.75], [0, 1]], bins=2
    )
    assert curve["counts"] == [1, 2]
    assert curve["accuracy"] == [1, 1]
    assert curve["confidence"] == [0.5, 0.875]
    assert curve["ece"] == pytest.approx((0.5 + 0.25) / 3)


def test_calibrated_predictions_have_little_error():
    random = np.random.default_rng(2)
    p = random.uniform(size=100_000)
    curve = calibration.reliability(
        labels=(random.uniform(size=p.size) < p).astype(np.int32),
        probabilities=np.stack([1 - p, p], axis=1),
    )
    assert curve["ece"] < 0.01


def test_certain_predictions():
    eye = np.eye(3)
    right = classification.compute(labels=[0, 1, 2], probabilities=eye, classes=3)
    assert right["accuracy"] == right["macro_f1"] == 1
    assert right["ece"] == right["brier"] == 0
    assert right["nll"] < 1e-12
    wrong = classification.compute(labels=[1, 2, 0], probabilities=eye, classes=3)
    assert wrong["ece"] == 1
    assert wrong["brier"] == 2
    assert np.isfinite(wrong["nll"])


def test_absent_class_counts_as_zero():
    got = classification.compute(
        labels=[0, 1], probabilities=np.eye(3)[:2], classes="abc"
    )
    assert got["per_class"][2]["f1"] == 0
    assert got["per_class"][2]["support"] == 0
    assert got["macro_f1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("labels", "probabilities", "classes", "message"),
    [
        ([], np.zeros((0, 2)), 2, "empty"),
        ([0, 1], np.full((3, 2), 0.5), 2, "2 labels for 3 rows"),
        ([0, 2], np.full((2, 2), 0.5), 2, "label 2 of example 1 is out of range"),
        ([0, -1], np.full((2, 2), 0.5), 2, "label -1 of example 1"),
        ([0.0, 1.0], np.full((2, 2), 0.5), 2, "integers"),
        ([0], [[np.nan, 1.0]], 2, "example 0 are not finite"),
        ([0], [[np.inf, 1.0]], 2, "not finite"),
        ([0], [[2.0, 3.0]], 2, "row 0 is no distribution.*softmax"),
        ([0], [[1.5, -0.5]], 2, "no distribution"),
        ([0], [[1.0]], 1, "1 column"),
        ([0], [0.5, 0.5], 2, r"probabilities \[N, C\]"),
        ([0], [[0.5, 0.5]], ("a", "b", "c"), r"3 classes \(a, b, c\)"),
    ],
)
def test_bad_inputs_are_named(labels, probabilities, classes, message):
    with pytest.raises(ValueError, match=message):
        classification.compute(
            labels=labels, probabilities=probabilities, classes=classes
        )


def test_bins_must_be_positive():
    with pytest.raises(ValueError, match="bins"):
        calibration.reliability(labels=[0], probabilities=[[0.5, 0.5]], bins=0)


def test_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(ModuleNotFoundError, match=r"fmjax\[experiments\]"):
        classification.compute(labels=[0], probabilities=[[0.5, 0.5]], classes=2)
