"""Sums of the language objectives, by hand or by a library."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax

from fmjax import config
from fmjax.objectives import (
    cosine_similarity,
    next_token,
    span_qa,
    token_classify,
)
from tests import runs

RNG = np.random.default_rng(0)
B, T, V = 4, 7, 9
LOGITS = RNG.normal(size=(B, T, V)).astype(np.float32) * 2
TARGETS = RNG.integers(0, V, (B, T))
WEIGHTS = (RNG.random((B, T)) < 0.7).astype(np.float32)
MASK = np.array([1, 1, 0, 1], np.float32)
BATCH = {"inputs": LOGITS, "targets": TARGETS, "weights": WEIGHTS, "mask": MASK}
KEY = jax.random.key(0)
HERE = WEIGHTS * MASK[:, None]
NLL = -np.take_along_axis(
    log_softmax(LOGITS.astype(np.float64), axis=-1), TARGETS[..., None], -1
)[..., 0]


def apply(params, extras, inputs, key=None):
    """A net that says its inputs, times a parameter."""
    return inputs * params["scale"], extras


def run(objective, batch=BATCH, key=None, **fields):
    losses, metrics, _ = objective(apply, {"scale": 1.0}, {}, batch, key, **fields)
    return jax.tree.map(float, (losses, metrics))


@pytest.mark.parametrize(
    ("objective", "name"),
    [
        (next_token.objective, "next_token"),
        (token_classify.objective, "token_classify"),
    ],
)
def test_sums_over_real_tokens(objective, name):
    losses, metrics = run(objective)
    assert losses[name] == pytest.approx(((NLL * HERE).sum(), HERE.sum()), rel=1e-6)
    right = (LOGITS.argmax(-1) == TARGETS) * HERE
    assert metrics == {"accuracy": pytest.approx((right.sum(), HERE.sum()))}
    spoiled = {**BATCH, "inputs": np.where(HERE[..., None] > 0, LOGITS, 1e4)}
    assert run(objective, spoiled)[0][name] == pytest.approx(losses[name], rel=1e-6)


def test_smoothing_is_optaxs_and_for_training_only():
    smoothed = optax.smooth_labels(jax.nn.one_hot(TARGETS, V), 0.1)
    wanted = optax.softmax_cross_entropy(jnp.asarray(LOGITS), smoothed)
    found, _ = run(next_token.objective, key=KEY, label_smoothing=0.1)
    assert found["next_token"][0] == pytest.approx(
        float((wanted * HERE).sum()), rel=1e-5
    )
    plain = run(next_token.objective)
    assert run(next_token.objective, label_smoothing=0.1, z_loss=1.0) == plain


def test_z_loss_adds_the_normalisers_square():
    logz = np.log(np.exp(LOGITS.astype(np.float64)).sum(-1))
    found, _ = run(next_token.objective, key=KEY, z_loss=0.5)
    wanted = ((NLL + 0.5 * logz**2) * HERE).sum()
    assert found["next_token"][0] == pytest.approx(wanted, rel=1e-5)


def test_a_rows_surprise():
    said = next_token.predict(apply, {"scale": 1.0}, {}, BATCH)
    np.testing.assert_allclose(said["nll"], (NLL * WEIGHTS).sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(said["predicted"], WEIGHTS.sum(-1))


def test_tags_where_words_begin():
    said = token_classify.predict(apply, {"scale": 1.0}, {}, BATCH)["tags"]
    np.testing.assert_array_equal(said, np.where(WEIGHTS > 0, LOGITS.argmax(-1), -1))


def test_cosine():
    vectors = RNG.normal(size=(B, 2, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    score = RNG.random(B).astype(np.float32)
    batch = {"inputs": vectors, "score": score, "mask": MASK}
    cosine = (vectors[:, 0] * vectors[:, 1]).sum(-1)
    losses, metrics = run(cosine_similarity.objective, batch)
    wanted = ((cosine - score) ** 2 * MASK).sum()
    assert losses == {"cosine_similarity": pytest.approx((wanted, 3.0), rel=1e-5)}
    assert metrics == {}
    said = cosine_similarity.predict(apply, {"scale": 1.0}, {}, batch)
    np.testing.assert_allclose(said["cosine"], cosine, rtol=1e-5)


def span_net(params, extras, inputs, key=None):
    return inputs["logits"] * params["scale"], extras


def test_spans():
    logits = RNG.normal(size=(B, T, 2)).astype(np.float32)
    real = np.ones((B, T), bool)
    real[:, 6] = False
    types = np.zeros((B, T), np.int32)
    types[:, 3:6] = 1  # the last of them is the [SEP] that ends the context
    inputs = {"logits": logits, "mask": real, "types": types}
    start, end = np.array([3, 0, 4, 3]), np.array([4, 0, 4, 3])
    batch = {"inputs": inputs, "start": start, "end": end, "mask": MASK}
    losses, metrics, _ = span_qa.objective(span_net, {"scale": 1.0}, {}, batch, None)
    log_p = log_softmax(logits[:, :6].astype(np.float64), axis=1)
    rows = np.arange(B)
    nll = -(log_p[rows, start, 0] + log_p[rows, end, 1]) / 2
    total, weight = map(float, losses["span_qa"])
    assert (total, weight) == pytest.approx(((nll * MASK).sum(), 3.0), rel=1e-5)
    exact = (log_p.argmax(1) == np.stack([start, end], 1)).all(1)
    assert float(metrics["exact_span"][0]) == (exact * MASK).sum()

    def loss(scale):
        losses, _, _ = span_qa.objective(span_net, {"scale": scale}, {}, batch, KEY)
        return losses["span_qa"][0]

    assert np.isfinite(jax.grad(loss)(1.0))
    said = span_qa.predict(span_net, {"scale": 1.0}, {}, batch)
    for b in range(B):
        pairs = [(3, 3), (3, 4), (4, 4)]  # in the context, not backwards, no [SEP]
        scores = [logits[b, s, 0] + logits[b, e, 1] for s, e in pairs]
        best = int(np.argmax(scores))
        assert (int(said["first"][b]), int(said["last"][b])) == pairs[best]
        none = logits[b, 0, 0] + logits[b, 0, 1]
        assert float(said["margin"][b]) == pytest.approx(scores[best] - none, abs=1e-5)
    short = span_qa.predict(span_net, {"scale": 1.0}, {}, batch, max_answer=1)
    np.testing.assert_array_equal(short["first"], short["last"])


def test_the_longest_answer_is_a_setting():
    logits = np.zeros((1, 8, 2), np.float32)
    logits[0, 2, 0] = logits[0, 5, 1] = 9  # four pieces
    logits[0, 6, 0] = logits[0, 6, 1] = 6
    real = np.ones((1, 8), bool)
    inputs = {"logits": logits, "mask": real, "types": np.ones((1, 8), np.int32)}
    batch = {"inputs": inputs, "start": np.array([2]), "end": np.array([5])}
    batch["mask"] = np.ones(1, np.float32)
    settings = runs.tiny("configs/bert/questions.py")

    def spans(**own):
        settings["objective"] = {"name": "span_qa"} | own
        parts = config.assemble(settings)
        sums = parts.objective(span_net, {"scale": 1.0}, {}, batch, KEY)
        said = parts.predict(span_net, {"scale": 1.0}, {}, batch)
        span = int(said["first"][0]), int(said["last"][0])
        return span, float(sums[0]["span_qa"][0])

    (whole, loss), (short, same) = spans(), spans(max_answer=3)
    assert (whole, short) == ((2, 5), (6, 6))
    assert spans(max_answer=4)[0] == spans(max_answer=30)[0] == whole
    assert loss == same  # what is learnt is the same
    for wrong in (0, -1, 2.5, True, None):
        with pytest.raises(ValueError, match=r"objective\.max_answer=.* from 1"):
            spans(max_answer=wrong)
