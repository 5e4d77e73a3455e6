"""The intervals are scipy's, the normal approximation's, and cover what they claim."""

import json

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from fmjax.metrics import bootstrap


def correct(seed, shape, rate=0.8):
    return np.random.default_rng(seed).uniform(size=shape) < rate


def test_mean_equals_scipy():
    values = np.random.default_rng(0).exponential(size=80)  # skewed: not symmetric
    ours = bootstrap.interval(values, seed=1, draws=40_000)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, method="percentile", rng=2
    )
    assert ours["value"] == pytest.approx(values.mean())
    tolerance = 0.05 * theirs.standard_error
    assert ours["error"] == pytest.approx(theirs.standard_error, rel=0.03)
    assert ours["low"] == pytest.approx(theirs.confidence_interval.low, abs=tolerance)
    assert ours["high"] == pytest.approx(theirs.confidence_interval.high, abs=tolerance)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_large_sample_is_normal(level):
    hits = correct(3, 4000)
    got = bootstrap.interval(hits, seed=0, draws=10_000, level=level)
    error = np.sqrt(hits.mean() * (1 - hits.mean()) / hits.size)
    half = scipy.stats.norm.ppf((1 + level) / 2) * error
    assert got["error"] == pytest.approx(error, rel=0.03)
    assert got["low"] == pytest.approx(hits.mean() - half, abs=0.08 * error)
    assert got["high"] == pytest.approx(hits.mean() + half, abs=0.08 * error)
    assert (got["level"], got["examples"]) == (level, 4000)


def test_covers_the_truth_as_often_as_stated():
    random = np.random.default_rng(4)
    inside = 0
    for trial in range(400):
        values = random.normal(size=100)
        got = bootstrap.interval(values, seed=trial, draws=400, level=0.9)
        inside += got["low"] <= 0 <= got["high"]
    assert 0.86 < inside / 400 < 0.94  # 0.9 +- 2.7 standard errors


@pytest.mark.parametrize("positive", [None, 1])
def test_f1_equals_resampling_by_index(positive):
    random = np.random.default_rng(5)
    labels = random.integers(2, size=150)
    predictions = np.where(random.uniform(size=150) < 0.75, labels, 1 - labels)
    average = "macro" if positive is None else "binary"
    got = bootstrap.interval(
        labels, predictions, statistic=bootstrap.f1(2, positive), seed=0, draws=4000
    )
    whole = sklearn.metrics.f1_score(labels, predictions, average=average)
    assert got["value"] == pytest.approx(whole)
    draws = []
    for _ in range(500):
        rows = random.integers(150, size=150)
        truth, guess = labels[rows], predictions[rows]
        draws.append(sklearn.metrics.f1_score(truth, guess, average=average))
    low, high = np.quantile(draws, [0.025, 0.975])
    assert got["low"] == pytest.approx(low, abs=0.4 * got["error"])
    assert got["high"] == pytest.approx(high, abs=0.4 * got["error"])


def test_f1_averages_over_seeds():
    labels = np.array([0, 1, 2, 1])
    predictions = np.array([[0, 1, 2, 1], [1, 1, 0, 0]])
    weights = np.ones((1, 4))
    statistic = bootstrap.f1(3)
    each = [statistic(weights, labels, row)[0] for row in predictions]
    assert statistic(weights, labels, predictions)[0] == pytest.approx(np.mean(each))
    with_library = sklearn.metrics.f1_score(labels, predictions[1], average="macro")
    assert each == pytest.approx([1, with_library])


def test_paired_difference_uses_the_pairing():
    # Arms that agree on most examples: the paired interval must be far narrower than
    # that of two independent samples.
    base = correct(6, 1000)
    flipped = base.copy()
    flipped[:30] = True
    got = bootstrap.paired_difference(flipped, base, seed=0)
    difference = flipped.astype(float) - base
    assert got["value"] == pytest.approx(difference.mean())
    assert got["error"] == pytest.approx(difference.std() / np.sqrt(1000), rel=0.05)
    unpaired = np.sqrt((flipped.var() + base.var()) / 1000)
    assert got["error"] < unpaired / 3
    assert got["a"]["std"] is None
    assert got["seed_error"] is None


def test_paired_difference_over_seeds():
    a, b = correct(7, (3, 500), 0.85), correct(8, (2, 500), 0.8)
    got = bootstrap.paired_difference(a, b, seed=0)
    assert got["value"] == pytest.approx(a.mean() - b.mean())
    each = a.mean(axis=1)
    assert got["a"]["seeds"] == pytest.approx(each.tolist())
    assert got["a"]["mean"] == pytest.approx(a.mean())
    assert got["a"]["std"] == pytest.approx(np.std(each, ddof=1))
    expected = np.sqrt(np.var(each, ddof=1) / 3 + np.var(b.mean(axis=1), ddof=1) / 2)
    assert got["seed_error"] == pytest.approx(expected)
    again = bootstrap.interval(a.mean(axis=0) - b.mean(axis=0), seed=0)
    assert (got["low"], got["high"]) == (again["low"], again["high"])
    swapped = bootstrap.paired_difference(b, a, seed=0)
    assert swapped["value"] == pytest.approx(-got["value"])
    assert swapped["low"] == pytest.approx(-got["high"])
    assert json.loads(json.dumps(got, allow_nan=False)) == got


def test_seed_axis_is_the_mean_over_seeds():
    hits = correct(9, (3, 200))
    ours = bootstrap.interval(hits, seed=0, draws=500)
    assert ours == bootstrap.interval(hits.mean(axis=0), seed=0, draws=500)


def test_deterministic_and_independent_of_chunks(monkeypatch):
    hits = correct(10, 333)
    first = bootstrap.interval(hits, seed=0, draws=1000)
    assert first == bootstrap.interval(hits, seed=0, draws=1000)
    other = bootstrap.interval(hits, seed=1, draws=1000)
    assert other["error"] != first["error"]
    assert other["value"] == first["value"]
    for chunk in (1, 333 * 7):
        monkeypatch.setattr(bootstrap, "CHUNK", chunk)
        assert bootstrap.interval(hits, seed=0, draws=1000) == pytest.approx(first)


def test_spread():
    assert bootstrap.spread([1.0, 2.0, 4.0])["std"] == pytest.approx(np.sqrt(7 / 3))
    assert bootstrap.spread([3.0]) == {"mean": 3.0, "std": None, "seeds": [3.0]}
    with pytest.raises(ValueError, match="finite"):
        bootstrap.spread([])


@pytest.mark.parametrize(
    ("arrays", "fields", "message"),
    [
        (([],), {}, "at least one example"),
        ((), {}, "wants arrays"),
        (([1.0, np.nan],), {}, "finite"),
        (([1.0],), {"level": 95}, "level"),
        (([1.0],), {"draws": 1}, "draws"),
        (([1.0, 2.0], [1.0]), {"statistic": bootstrap.f1(2)}, "share"),
    ],
)
def test_bad_inputs_are_named(arrays, fields, message):
    with pytest.raises(ValueError, match=message):
        bootstrap.interval(*arrays, seed=0, **fields)


def test_undefined_statistic_is_an_error():
    def ratio(weights, values):
        with np.errstate(divide="ignore", invalid="ignore"):
            return weights.sum(axis=1) / (weights @ values)

    with pytest.raises(ValueError, match="not finite on"):
        bootstrap.interval([0, 0, 1], seed=0, statistic=ratio, draws=200)


def test_arms_must_share_examples():
    with pytest.raises(ValueError, match="share their examples"):
        bootstrap.paired_difference(np.ones(3), np.ones(4), seed=0)
