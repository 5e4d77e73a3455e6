"""Gradual unfreezing, layer-wise rates, and biases alone, by pattern."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmjax import checkpoint, config, optim, trees
from fmjax.interop import names
from fmjax.train import prepare
from tests import runs
from tests.test_optim import LR, PARAMS, gradient, make, same, untouched, walk

RULES = (("embed|layer0", 3), ("layer1", "40%"))  # of 5 steps: 3 and 2
CASES = {
    "adamw": {"name": "adamw", "weight_decay": 0.1},
    "sgd": {"name": "sgd", "weight_decay": 0.1},
    "lion": {"name": "lion"},
}


def late(at, rate, settings):
    """What an optimizer that begins at step `at` makes of the gradients from there."""
    theirs = {
        "adamw": lambda r: optax.adamw(r, weight_decay=0.1, mask=decayed),
        "sgd": lambda r: optax.chain(
            optax.add_decayed_weights(0.1, decayed), optax.sgd(r, 0.9)
        ),
        "lion": lambda r: optax.lion(r, 0.9, 0.999, weight_decay=0),
    }
    tx = theirs[settings["name"]](lambda count: rate(count + at))
    params, state = PARAMS, tx.init(PARAMS)
    for number in range(at, 5):
        updates, state = tx.update(gradient(number), state, params)
        params = optax.apply_updates(params, updates)
    return params


def decayed(tree):
    return trees.by_path(lambda path: not path.endswith(("bias", "scale")), tree)


@pytest.mark.parametrize("case", CASES)
def test_each_group_begins_at_its_step_as_if_its_optimizer_began_there(case):
    settings = CASES[case] | {"schedule": "linear", "warmup": 1, "final": 0.1}
    seen, _ = walk(make(unfreeze=RULES, **settings))
    for number, params in enumerate(seen, 1):
        assert untouched(params, "embed", "layer0") == (number <= 3)
        assert untouched(params, "layer1") == (number <= 2)
        assert not untouched(params, "norm", "head")
    rate = optim.curve(5, lr=LR, schedule="linear", warmup=1, final=0.1)
    starts = {"embed": 3, "layer0": 3, "layer1": 2, "norm": 0, "head": 0}
    for name, at in starts.items():
        same(seen[-1][name], late(at, rate, settings)[name], rtol=2e-5)


def test_what_waits_does_not_count_when_gradients_are_clipped():
    settings = {"name": "sgd", "momentum": 0.0, "clip": 1.0}
    seen, _ = walk(make(unfreeze=RULES, **settings))
    for number, moving in ((0, ("norm", "head")), (2, ("norm", "head", "layer1"))):
        grads = {name: gradient(number)[name] for name in moving}
        scale = 1 / float(optax.tree.norm(grads))
        before = seen[number - 1] if number else PARAMS
        want = jax.tree.map(
            lambda p, g, s=scale: p - LR * s * g,
            {name: before[name] for name in moving},
            grads,
        )
        same({name: seen[number][name] for name in moving}, want, rtol=1e-5)


def test_groups_keep_their_settings_and_what_is_frozen_never_moves():
    groups = (("layer0", {"lr": 0.5}),)
    given = dict(name="sgd", momentum=0.0, groups=groups, freeze="embed")
    seen, state = walk(make(unfreeze=RULES, **given))
    assert untouched(seen[-1], "embed")
    want = jax.tree.map(
        lambda p, a, b: p - 0.5 * a - 0.5 * b,
        *(tree["layer0"] for tree in (PARAMS, gradient(3), gradient(4))),
    )
    same(seen[-1]["layer0"], want)
    held = jax.tree.leaves(state)
    assert all(np.ndim(x) == 0 for x in held), "numbers of steps alone"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((("nothing", 1),), "optim.unfreeze: no parameter matches 'nothing'"),
        ((("[", 1),), "is no pattern"),
        (((".", 1),), "every parameter waits"),
        ((("head", "soon"),), "optim.unfreeze head='soon' is no duration"),
    ],
)
def test_what_is_wrong_is_named(rules, message):
    with pytest.raises(config.ConfigError, match=re.escape(message)):
        make(unfreeze=rules)


SENTIMENT = "configs/bert/sentiment.py"
DEFAULTS = dict(tokenizer=None, accum=1, parallel=None, seed=0)


def weights(folder):
    return names.flatten(checkpoint.weights(folder)["params"])


def begun(settings):
    """The parameters that a run of these settings begins with, by path."""
    setup = prepare(DEFAULTS | settings)
    state = jax.jit(setup.create)(jax.random.key(settings["seed"]))
    return names.flatten(jax.device_get(state.params))


def test_a_run_that_stopped_goes_on_bit_for_bit(tmp_path):
    settings = runs.tiny(SENTIMENT, model__depth=2) | {"parallel": {"devices": 1}}
    per_epoch = prepare(DEFAULTS | settings).train_set.examples / 16
    settings["evaluate"] = None  # the last weights are then kept as the best
    settings["optim"]["unfreeze"] = (
        ("^embed", "100%"),
        ("^layer0/", f"{4 / per_epoch:.6f} epochs"),
        ("^layer1/", "2 steps"),
    )
    runs.run(tmp_path / "straight", settings)
    for stop in (1, 3):
        runs.run(tmp_path / "cut", settings, stop_at=stop)
    runs.run(tmp_path / "cut", settings)
    assert runs.losses(tmp_path / "cut") == runs.losses(tmp_path / "straight")
    first, last, cut = (
        begun(settings),
        *map(weights, map(tmp_path.joinpath, ("straight", "cut"))),
    )
    for path, value in last.items():
        np.testing.assert_array_equal(cut[path], value)
        still = np.array_equal(first[path], value)
        if path.startswith("embed"):
            assert still, path
        elif path.endswith("kernel"):
            assert not still, path


def test_biases_alone_are_trained_where_the_pattern_says_so(tmp_path):
    """BitFit (Ben Zaken et al. 2022): nothing but biases and the classifier moves."""
    from configs.bert import peft

    settings = runs.tiny(SENTIMENT, model__depth=2) | {"parallel": {"devices": 1}}
    settings["optim"]["train"] = peft.METHODS["bitfit"][0]
    settings["checkpoint"]["trained_only"] = True
    runs.run(tmp_path, settings)
    first, saved = begun(settings), weights(tmp_path)
    biases = {path for path in first if path.endswith("/bias")}
    assert set(saved) == biases | {"classify/kernel"}
    moved = {path for path in saved if not np.array_equal(first[path], saved[path])}
    # No output depends on the keys' biases: a softmax does not see what all share.
    assert set(saved) - moved <= {path for path in biases if "/key/" in path}


def test_layer_wise_rates_are_those_of_the_formula():
    """Rate of layer l: rate / 2.6 ** (L - l) (Howard and Ruder 2018, section 3.2).

    L is the classifier, as in their code: the last block is one below it.
    """
    settings = runs.tiny(SENTIMENT, model__depth=4)
    setup = prepare(DEFAULTS | settings)
    params = jax.tree.map(lambda x: jnp.zeros(x.shape), setup.state.params)
    tx, _, _ = optim.make(
        params, 10, name="sgd", momentum=0.0, lr=1.0, layer_decay=1 / 2.6
    )
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = tx.update(ones, tx.init(params), params)
    powers = {"embed": 5, "layer0": 4, "layer1": 3, "layer2": 2, "layer3": 1}
    powers |= {"pooler": 0, "classify": 0}
    seen = set()
    for path, value in names.flatten(updates).items():
        part = path.split("/")[0]
        seen.add(part)
        np.testing.assert_allclose(value, -(2.6 ** -powers[part]), rtol=1e-6)
    assert seen == set(powers)
