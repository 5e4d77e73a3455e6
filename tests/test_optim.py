"""Optimizers against optax's own, schedules against closed forms, patterns by path."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmjax import copies, optim, trees
from fmjax.config import ConfigError

LR = 0.1


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


PARAMS = {
    "embed": {"table": normal(0, 5, 4)},
    "layer0": {"mlp": {"kernel": normal(1, 4, 4), "bias": normal(2, 4)}},
    "layer1": {"mlp": {"kernel": normal(3, 4, 4), "bias": normal(4, 4)}},
    "norm": {"scale": normal(5, 4)},
    "head": {"kernel": normal(6, 4, 3, 2), "bias": normal(7, 3, 2)},
}
DECAYED = {
    "embed": {"table": True},
    "layer0": {"mlp": {"kernel": True, "bias": False}},
    "layer1": {"mlp": {"kernel": True, "bias": False}},
    "norm": {"scale": False},
    "head": {"kernel": True, "bias": False},
}
FLAT = optax.contrib.MuonDimensionNumbers()
MATRICES = {
    "embed": {"table": FLAT},
    "layer0": {"mlp": {"kernel": FLAT, "bias": None}},
    "layer1": {"mlp": {"kernel": FLAT, "bias": None}},
    "norm": {"scale": None},
    "head": {"kernel": optax.contrib.MuonDimensionNumbers((0, 1), 2), "bias": FLAT},
}
STEPS = 5


def gradient(step):
    leaves, tree = jax.tree.flatten(PARAMS)
    made = [normal(1000 + 100 * step + i, *leaf.shape) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(tree, made)


def walk(tx, steps=STEPS, params=PARAMS):
    """(the parameters after each step, the optimizer's last state)."""

    @jax.jit
    def update(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state, seen = jax.jit(tx.init)(params), []
    for step in range(steps):
        params, state = update(params, state, gradient(step))
        seen.append(params)
    return seen, state


def make(total=STEPS, **settings):
    return optim.make(PARAMS, total, **({"lr": LR} | settings))[0]


def same(found, want, **tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, **({"rtol": 1e-6, "atol": 1e-7} | tolerance))


def untouched(params, *names):
    return all(
        np.array_equal(a, b)
        for name in names
        for a, b in zip(
            jax.tree.leaves(params[name]), jax.tree.leaves(PARAMS[name]), strict=True
        )
    )


FALLING = {"schedule": "linear", "warmup": 2, "final": 0.1}
RATES = LR * np.array([1 / 3, 2 / 3, 1.0, 1 - 0.9 / 3, 1 - 0.9 * 2 / 3], np.float32)


def falling(count):
    return jnp.asarray(RATES)[count]


OPTAX = {
    "adamw": (
        {"weight_decay": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-6},
        optax.adamw(falling, 0.8, 0.95, 1e-6, weight_decay=0.1, mask=DECAYED),
    ),
    "adam": (
        {"b1": 0.8, "b2": 0.95, "eps": 1e-6},
        optax.adam(falling, 0.8, 0.95, 1e-6),
    ),
    "sgd": (
        {"weight_decay": 0.1, "momentum": 0.8, "nesterov": True},
        optax.chain(
            optax.masked(optax.add_decayed_weights(0.1), DECAYED),
            optax.sgd(falling, 0.8, nesterov=True),
        ),
    ),
    "rmsprop": (
        {"weight_decay": 0.1, "momentum": 0.8, "b2": 0.95, "eps": 1e-2},
        optax.chain(
            optax.add_decayed_weights(0.1, DECAYED),
            optax.rmsprop(falling, 0.95, 1e-2, 1.0, momentum=0.8),
        ),
    ),
    "sgd without momentum": ({"momentum": 0.0}, optax.sgd(falling)),
    "lamb": (
        {"weight_decay": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-6},
        optax.lamb(falling, 0.8, 0.95, 1e-6, weight_decay=0.1, mask=DECAYED),
    ),
    "lars": (
        {"weight_decay": 0.1, "momentum": 0.8},
        optax.lars(
            falling,
            weight_decay=0.1,
            weight_decay_mask=DECAYED,
            trust_ratio_mask=DECAYED,
            momentum=0.8,
        ),
    ),
    "adafactor": (
        {"weight_decay": 0.1},
        optax.adafactor(falling, weight_decay_rate=0.1, weight_decay_mask=DECAYED),
    ),
    "lion": (
        {"weight_decay": 0.1, "b1": 0.8, "b2": 0.95},
        optax.lion(falling, 0.8, 0.95, weight_decay=0.1, mask=DECAYED),
    ),
    "muon": (
        {"weight_decay": 0.1, "b1": 0.8, "b2": 0.95},
        optax.contrib.muon(
            falling,
            weight_decay=0.1,
            weight_decay_mask=DECAYED,
            adam_b1=0.8,
            adam_b2=0.95,
            muon_weight_dimension_numbers=MATRICES,
        ),
    ),
    "muon rms": (
        {"rms": 0.2},
        optax.contrib.muon(
            falling, muon_weight_dimension_numbers=MATRICES, consistent_rms=0.2
        ),
    ),
}


class TestOptimizers:
    @pytest.mark.parametrize("case", OPTAX)
    def test_step_by_step_as_optax(self, case):
        settings, theirs = OPTAX[case]
        want, _ = walk(theirs)
        got, _ = walk(make(name=case.split()[0], **FALLING, **settings))
        same(got, want)
        assert not np.allclose(want[0]["norm"]["scale"], PARAMS["norm"]["scale"])

    def test_rmsprop_begins_at_1_with_eps_within_the_root(self):
        # TensorFlow's rule, by hand; half of the mean square is the new one.
        got = walk(make(name="rmsprop", lr=LR, b2=0.5, eps=2.0, momentum=0.0), 1)[0][0]
        want = jax.tree.map(
            lambda p, g: p - LR * g / np.sqrt(0.5 + 0.5 * g**2 + 2.0),
            PARAMS,
            gradient(0),
        )
        same(got, want, rtol=1e-5)

    @pytest.mark.parametrize(
        "name",
        ["adamw", "bertadam", "sgd", "rmsprop", "lamb", "lars", "lion", "muon"],
    )
    def test_decay_spares_biases_and_scales(self, name):
        plain, decayed = (
            walk(make(name=name, weight_decay=w), 1)[0][0] for w in (0, 1)
        )
        for path, a, b in zip(
            trees.paths(plain), *map(jax.tree.leaves, (plain, decayed)), strict=True
        ):
            assert np.array_equal(a, b) == path.endswith(("bias", "scale")), path

    def test_no_decay_can_be_told(self):
        plain, decayed = (
            walk(make(weight_decay=w, no_decay="^(layer|head)"), 1)[0][0]
            for w in (0, 1)
        )
        for path, a, b in zip(
            trees.paths(plain), *map(jax.tree.leaves, (plain, decayed)), strict=True
        ):
            assert np.allclose(a, b) == path.startswith(("layer", "head")), path

    def test_bertadam_by_hand(self):
        # The authors' update: moving averages that begin at zero, as they are.
        got, _ = walk(make(name="bertadam", weight_decay=0.1, eps=1e-6, **FALLING))
        w, m, v = PARAMS["layer0"]["mlp"]["kernel"].astype(np.float64), 0.0, 0.0
        for step, rate in enumerate(RATES):
            g = gradient(step)["layer0"]["mlp"]["kernel"].astype(np.float64)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            w = w - rate * (m / (np.sqrt(v) + 1e-6) + 0.1 * w)
            same(got[step]["layer0"]["mlp"]["kernel"], w, rtol=1e-5, atol=1e-6)

    def test_adamw_decay_is_decoupled_from_the_gradient(self):
        plain, decayed = (walk(make(weight_decay=w), 1)[0][0] for w in (0, 0.5))
        shrunk = optax.tree.sub(decayed, plain)
        same(
            shrunk["embed"],
            jax.tree.map(lambda p: -LR * 0.5 * p, PARAMS["embed"]),
            atol=1e-6,
        )

    def test_muon_makes_the_updates_of_matrices_orthogonal(self):
        got = walk(make(name="muon"), 1)[0][0]
        # A convolution's kernel, all but whose last axis are one, is a matrix too.
        for path in (("layer0", "mlp"), ("head",)):
            old, new = PARAMS, got
            for name in path:
                old, new = old[name], new[name]
            moved = (old["kernel"] - new["kernel"]).reshape(-1, old["kernel"].shape[-1])
            values = np.linalg.svd(moved / LR, compute_uv=False)
            # Five Newton-Schulz steps bring singular values near to 1, not to it.
            assert 0.5 < values.min() <= values.max() < 1.5
        adam = walk(optax.nadam(LR), 1)[0][0]
        # What is no matrix moves as by Nesterov's Adam.
        same(got["norm"], adam["norm"])

    def test_muons_updates_have_the_rms_that_is_asked_for(self):
        got = walk(make(name="muon", rms=0.2), 1)[0][0]
        for part in (("layer0", "mlp"), ("head",)):
            old, new = PARAMS, got
            for name in part:
                old, new = old[name], new[name]
            moved = (old["kernel"] - new["kernel"]) / LR
            assert 0.14 < np.sqrt(np.mean(np.square(moved))) < 0.25

    def test_adam_with_decay_is_refused(self):
        message = r"adam has no weight decay; set optim\.name=adamw"
        with pytest.raises(ConfigError, match=message):
            make(name="adam", weight_decay=0.01)

    def test_unknown_names_list_the_known(self):
        with pytest.raises(
            ConfigError, match=r"'adamm'; did you mean 'adamw?'\? known: "
        ):
            make(name="adamm")
        with pytest.raises(
            ConfigError, match=r"unknown setting optim\.lrr; did you mean"
        ):
            make(lrr=1)


def closed_form(step, *, total, start, schedule, final, fall):
    """The papers' formulas, written out; `step` counts from 0."""
    rise = (step + 1) / (start + 1) if step < start else 1.0
    through = min(max((step - start) / (total - start), 0.0), 1.0)
    shape = {
        "constant": 1.0,
        "linear": 1 + (final - 1) * through,
        "cosine": final + (1 - final) * 0.5 * (1 + np.cos(np.pi * through)),
        "rsqrt": min(1.0, (start / max(step, 1)) ** 0.5),
        "wsd": 1.0
        if step <= total - fall
        else 1 + (final - 1) * (step - (total - fall)) / fall,
        "exponential": np.exp(np.log(final or 1) * through),
        "step": 1.0 if step < 60 else 0.1 if step < 85 else 0.01,
    }
    return LR * rise * shape[schedule]


class TestSchedules:
    @pytest.mark.parametrize("final", [0.0, 0.25])
    @pytest.mark.parametrize("schedule", optim.SCHEDULES)
    def test_closed_form_on_host_and_device(self, schedule, final):
        final = final or 0.5 if schedule == "exponential" else final
        drops = ("60%", "85 steps") if schedule == "step" else ()
        given = dict(warmup=20, final=final, cooldown="30%", drops=drops)
        rate = optim.curve(100, lr=LR, schedule=schedule, **given)
        traced = jax.jit(rate)
        for step in (0, 10, 19, 20, 21, 60, 70, 85, 99, 100):
            want = closed_form(
                step, total=100, start=20, schedule=schedule, final=final, fall=30
            )
            assert float(rate(step)) == pytest.approx(want, rel=1e-9), step
            assert not isinstance(rate(step), jax.Array), "host steps stay on the host"
            near = pytest.approx(want, rel=1e-5, abs=1e-6 * LR)
            assert float(traced(jnp.int32(step))) == near, step

    def test_the_ends(self):
        ends = {"constant": 1.0, "linear": 0.1, "cosine": 0.1, "wsd": 0.1}
        for schedule, end in ends.items():
            rate = optim.curve(50, lr=LR, schedule=schedule, warmup=0, final=0.1)
            assert float(rate(0)) == pytest.approx(LR)
            assert float(rate(50)) == pytest.approx(LR * end)
        rate = optim.curve(400, lr=LR, schedule="rsqrt", warmup=100)
        assert float(rate(400)) == pytest.approx(LR / 2)

    @pytest.mark.parametrize(
        "given",
        [
            {"schedule": "step"},
            {"schedule": "cosine", "drops": ("50%",)},
            {"schedule": "exponential"},
        ],
    )
    def test_what_a_schedule_needs_is_said(self, given):
        with pytest.raises(ConfigError, match=r"'step' and no other has optim\.drops"):
            optim.curve(50, lr=LR, **given)

    def test_warmup_and_cooldown_are_durations(self):
        by_part = optim.curve(50, lr=LR, schedule="wsd", warmup="10%", cooldown="20%")
        by_step = optim.curve(50, lr=LR, schedule="wsd", warmup=5, cooldown="10 steps")
        assert [by_part(s) for s in range(51)] == [by_step(s) for s in range(51)]

    @pytest.mark.parametrize("schedule", optim.SCHEDULES)
    @pytest.mark.parametrize("warmup", [0, 3])
    def test_runs_of_few_steps_stay_finite(self, schedule, warmup):
        given = {"step": {"drops": ("50%",)}, "exponential": {"final": 0.1}}
        rate = optim.curve(
            3,
            lr=LR,
            schedule=schedule,
            warmup=warmup,
            cooldown=0,
            **given.get(schedule, {}),
        )
        values = [float(rate(step)) for step in range(4)]
        assert np.isfinite(values).all()
        assert 0 <= min(values) <= max(values) <= LR

    def test_the_optimizer_uses_it_and_the_report_sees_it(self):
        tx, rate, _ = optim.make(
            PARAMS, STEPS, name="sgd", momentum=0.0, lr=LR, **FALLING
        )
        seen, _ = walk(tx)
        before = PARAMS["norm"]["scale"]
        for step, params in enumerate(seen):
            moved = before - params["norm"]["scale"]
            want = float(rate(step)) * gradient(step)["norm"]["scale"]
            np.testing.assert_allclose(moved, want, rtol=1e-4, atol=1e-6)
            before = params["norm"]["scale"]
        assert [float(rate(s)) for s in range(STEPS)] == pytest.approx(RATES)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"schedule": "cosin"},
                "no schedule named 'cosin'; did you mean 'cosine'?",
            ),
            ({"warmup": 6}, "optim.warmup is 6 of 5 steps; lower it"),
            ({"warmup": "1 epoch"}, "optim.warmup='1 epoch' is no duration"),
            ({"cooldown": "soon"}, "optim.cooldown='soon' is no duration"),
        ],
    )
    def test_refuses(self, settings, message):
        with pytest.raises(ConfigError, match=re.escape(message)):
            make(**settings)


SGD = {"name": "sgd", "momentum": 0.0}


class TestPatterns:
    def test_paths(self):
        assert trees.paths(PARAMS)[:3] == ["embed/table", "head/bias", "head/kernel"]
        assert trees.paths({"a": [1, (2, 3)]}) == ["a/0", "a/1/0", "a/1/1"]

    def test_groups_have_their_own_settings_and_the_first_match_wins(self):
        groups = (
            ("head/kernel", {"lr": 1.0}),
            ("head", {"lr": 0.0}),
            ("norm", {"b1": 0.1}),
        )
        got = walk(make(name="adam", groups=groups))[0][-1]
        base, fast, other = (
            walk(make(name="adam", **own))[0][-1]
            for own in ({}, {"lr": 1.0}, {"b1": 0.1})
        )
        same(got["head"]["kernel"], fast["head"]["kernel"])
        same(got["head"]["bias"], PARAMS["head"]["bias"])
        same(got["norm"], other["norm"])
        same(got["layer0"], base["layer0"])
        assert not np.allclose(base["norm"]["scale"], other["norm"]["scale"])

    def test_a_group_may_have_another_optimizer_and_schedule(self):
        own = {"name": "sgd", "momentum": 0.0, "schedule": "linear"}
        got = walk(make(name="adam", groups=(("head", own),)))[0][-1]
        alone = walk(make(**own))[0][-1]
        same(got["head"], alone["head"])
        same(got["norm"], walk(make(name="adam"))[0][-1]["norm"])

    def test_freezing(self):
        tx, _, trainable = optim.make(
            PARAMS, STEPS, name="adam", lr=LR, freeze="^(embed|layer)"
        )
        got, state = walk(tx)
        assert untouched(got[-1], "embed", "layer0", "layer1")
        same(got[-1]["head"], walk(make(name="adam"))[0][-1]["head"])
        assert trainable == {
            name: jax.tree.map(lambda _, on=name in ("norm", "head"): on, sub)
            for name, sub in PARAMS.items()
        }
        held = sum(np.size(x) for x in jax.tree.leaves(state))
        moving = sum(x.size for x in jax.tree.leaves([PARAMS["norm"], PARAMS["head"]]))
        assert held == 2 * moving + 2  # two moments, Adam's and the schedule's count

    def test_freezing_wins_over_a_group(self):
        groups = (("head", {"lr": 1.0}),)
        got = walk(make(freeze="head/bias", groups=groups), 1)[0][0]
        assert np.array_equal(got["head"]["bias"], PARAMS["head"]["bias"])
        assert not np.array_equal(got["head"]["kernel"], PARAMS["head"]["kernel"])

    def test_nothing_frozen_is_none(self):
        assert optim.make(PARAMS, STEPS)[2] is None

    def test_clip_is_by_the_norm_over_all_groups(self):
        grads = gradient(0)
        norm = float(optax.tree.norm(grads))
        got = walk(make(**SGD, clip=1.0, groups=(("head", {"lr": 2 * LR}),)), 1)[0][0]
        for name, rate in (("norm", LR), ("head", 2 * LR)):
            want = jax.tree.map(
                lambda p, g, r=rate: p - r * g / norm, PARAMS[name], grads[name]
            )
            same(got[name], want, rtol=1e-5)
        loose = walk(make(**SGD, clip=2 * norm), 1)[0][0]
        same(loose, walk(make(**SGD), 1)[0][0])

    def test_layer_decay_factors(self):
        got = walk(make(**SGD, layer_decay=0.5), 1)[0][0]
        # As in MAE's and BEiT's code, where the last layer is one power from the head.
        want = {"embed": 0.125, "layer0": 0.25, "layer1": 0.5, "norm": 1, "head": 1}
        for name, factor in want.items():
            moved = jax.tree.map(
                lambda p, g, f=factor: p - LR * f * g, PARAMS[name], gradient(0)[name]
            )
            same(got[name], moved)

    def test_layer_decay_inside_a_group_counts_all_layers(self):
        groups = (("layer0", {"layer_decay": 0.5}),)
        got = walk(make(**SGD, groups=groups), 1)[0][0]
        alone = walk(make(**SGD, layer_decay=0.5), 1)[0][0]
        same(got["layer0"], alone["layer0"])
        same(got["embed"], walk(make(**SGD), 1)[0][0]["embed"])

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"freeze": "^hed/"},
                "optim.freeze: no parameter matches '^hed/'; parameters are",
            ),
            ({"groups": (("hed", {}),)}, "optim.groups: no parameter matches 'hed'"),
            (
                {"groups": (("head", {"lrr": 1}),)},
                "unknown setting optim.groups head.lrr",
            ),
            (
                {"groups": (("head", {"clip": 1}),)},
                "unknown setting optim.groups head.clip",
            ),
            (
                {"layer_decay": 0.5, "layer_pattern": r"block(\d+)"},
                r"optim.layer_pattern='block(\\d+)' matches no parameter",
            ),
        ],
    )
    def test_refuses(self, settings, message):
        with pytest.raises(ConfigError, match=re.escape(message)):
            make(**settings)

    def test_shapes_are_enough(self):
        shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, PARAMS))
        settings = {
            "freeze": "embed",
            "groups": (("head", {"lr": 1.0}),),
            "layer_decay": 0.9,
        }
        tx, _, _ = optim.make(shapes, STEPS, clip=1.0, ema=0.9, **settings)
        same(walk(tx)[0], walk(make(lr=1e-3, clip=1.0, ema=0.9, **settings))[0])


class TestAverage:
    @pytest.mark.parametrize("extra", [{}, {"freeze": "embed"}, {"clip": 1.0}])
    def test_is_the_moving_average_of_the_parameters(self, extra):
        plain = walk(make(**extra))[0]
        got, state = walk(make(ema=0.75, **extra))
        same(got, plain)
        want = PARAMS
        for params in plain:
            want = jax.tree.map(lambda a, p: 0.75 * a + 0.25 * p, want, params)
        same(copies.averaged(state, got[-1]), want, rtol=1e-5)
        far = optax.tree.sub(want, plain[-1])
        assert float(optax.tree.norm(far)) > 0.1

    def test_without_one_the_parameters_themselves(self):
        got, state = walk(make(), 1)
        found = copies.averaged(state, got[0])
        assert found["head"]["bias"] is got[0]["head"]["bias"]

    def test_begins_anew_from_other_parameters_and_keeps_the_rest(self):
        _, state = walk(make(ema=0.75), 2)
        other = jax.tree.map(functools.partial(jnp.add, 1.0), PARAMS)
        again = copies.restart(state, other)
        same(copies.averaged(again, None), other)
        moments = lambda s: jax.tree.leaves(s[0])  # noqa: E731
        same(moments(again), moments(state), rtol=0, atol=0)
        assert jax.tree.structure(again) == jax.tree.structure(state)
