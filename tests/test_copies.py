"""Parameters in bfloat16: float32 masters, stochastic rounding, runs of both."""

import functools
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from fmjax import checkpoint, copies, evaluate, gradients, optim
from fmjax.config import ConfigError
from fmjax.start import resume
from fmjax.train import prepare
from tests import runs
from tests.test_optim import LR, PARAMS, gradient, same, walk

BERT = "configs/bert/sentiment.py"
HALF = jnp.bfloat16
DEFAULTS = dict(transforms=None, accum=1, checkpoint=None, parallel={"devices": 1})
WAYS = {"masters": True, "stochastic": False}


def made(masters, **settings):
    return optim.make(
        PARAMS, 5, **({"lr": LR} | settings), params_dtype="bfloat16", masters=masters
    )[0]


def half_walk(tx, steps=5, seed=0):
    """(the parameters after each step, the optimizer's last state)."""
    state, params, seen = jax.jit(tx.init)(PARAMS), copies.begun(tx, PARAMS), []
    for number in range(steps):
        updates, state = jax.jit(tx.update)(gradient(number), state, params)
        key = jax.random.fold_in(jax.random.key(seed), number)
        move = jax.jit(functools.partial(copies.moved, tx))
        params = move(params, updates, state, key)
        seen.append(params)
    return seen, state


class TestRounding:
    def test_gives_one_of_two_neighbours_and_the_number_on_average(self):
        x = jnp.asarray([1.0, 1.001, -3.3, 1e-20, 0.0, 255.3, np.inf, np.nan])
        keys = jax.random.split(jax.random.key(0), 20_000)
        many = jax.vmap(copies.round_stochastically, (0, None))(keys, x)
        assert many.dtype == HALF
        got = np.asarray(many, np.float64)
        assert np.isposinf(got[:, 6]).all()
        assert np.isnan(got[:, 7]).all()
        got, exact = got[:, :6], np.asarray(x[:6])
        words = exact.view(np.uint32) & np.uint32(0xFFFF0000)
        near, far = words.view(np.float32), (words + np.uint32(2**16)).view(np.float32)
        assert ((got == near) | (got == far)).all()
        for i in (0, 4):
            assert (got[:, i] == exact[i]).all(), "a bfloat16 stays what it is"
        for i in (1, 2, 3, 5):
            gap = abs(float(far[i]) - float(near[i]))
            assert set(np.unique(got[:, i])) == {float(near[i]), float(far[i])}
            # The deviation of a mean of 20,000 is at most gap / 2 / sqrt(20,000).
            assert abs(got[:, i].mean() - float(exact[i])) < 4 * gap / 2 / 20_000**0.5

    def test_small_updates_are_not_lost(self):
        """Each a hundredth of a gap: rounded to the nearest, nothing would move."""
        params = {"w": jnp.ones(512)}
        tx = optim.make(
            params, 300, name="sgd", momentum=0.0, lr=1e-4, params_dtype="bfloat16",
            masters=False,
        )[0]  # fmt: skip
        state, half = tx.init(params), copies.begun(tx, params)

        @jax.jit
        def move(params, state, key):
            updates, state = tx.update({"w": -jnp.ones(512, HALF)}, state, params)
            return copies.moved(tx, params, updates, state, key), state

        assert (half["w"] + HALF(1e-4) == half["w"]).all()
        for number in range(300):
            half, state = move(half, state, jax.random.key(number))
        assert half["w"].dtype == HALF
        # Each moved by 2^-7 with a chance of 0.0128: the mean has deviation 6e-4.
        assert float(half["w"].astype(jnp.float32).mean()) == pytest.approx(
            1.03, abs=4e-3
        )

    def test_is_by_seed_step_and_path(self):
        tx = made(False)
        first, again, other = (half_walk(tx, seed=seed)[0] for seed in (0, 0, 1))
        same(first, again, rtol=0, atol=0)
        with pytest.raises(AssertionError):
            same(jax.tree.map(copies.full, first[0]), copies.full(other[0]), rtol=0)
        params = {"a": jnp.full(64, 1.003), "b": jnp.full(64, 1.003)}
        tx = optim.make(params, 5, params_dtype="bfloat16", masters=False)[0]
        zeros = jax.tree.map(jnp.zeros_like, params)
        key = jax.random.key(0)
        found = tx.apply(params, zeros, None, key)
        assert (found["a"] != found["b"]).any()


class TestMasters:
    @pytest.mark.parametrize("extra", [{}, {"clip": 1.0, "ema": 0.5}])
    def test_move_as_float32_parameters_do(self, extra):
        plain, state = walk(optim.make(PARAMS, 5, lr=LR, **extra)[0])
        half, kept = half_walk(made(True, **extra))
        whole = copies.averaged(kept, half[-1])
        same(whole, copies.averaged(state, plain[-1]))
        for wide, narrow in zip(plain, half, strict=True):
            want = jax.tree.map(lambda p: p.astype(HALF).astype(jnp.float32), wide)
            # One rounding of numbers that are equal to 1e-6.
            same(copies.full(narrow), want, rtol=2**-8)
        assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype(HALF)}
        assert HALF not in {leaf.dtype for leaf in jax.tree.leaves(kept)}

    def test_frozen_parameters_have_none_and_stay(self):
        half, (masters, _) = half_walk(made(True, freeze="embed|layer"))
        kept = {"/".join(str(k.key) for k in path) for path, _ in
                jax.tree_util.tree_flatten_with_path(masters.params)[0]}  # fmt: skip
        assert kept == {"norm/scale", "head/kernel", "head/bias"}
        begun = copies.begun(made(True), PARAMS)
        same(half[-1]["layer0"], begun["layer0"], rtol=0, atol=0)
        same(copies.averaged(masters, half[-1])["layer1"], copies.full(begun["layer1"]))

    def test_begin_anew_from_other_parameters(self):
        _, state = half_walk(made(True, ema=0.5, freeze="embed"), 2)
        other = jax.tree.map(lambda p: p + 1.0, PARAMS)
        again = copies.restart(state, other)
        assert jax.tree.structure(again) == jax.tree.structure(state)
        same(copies.averaged(again, None), other, rtol=0)
        same(again[0].params["head"], other["head"], rtol=0)


@pytest.mark.parametrize(
    "wrong", [{"params_dtype": "float16"}, {"masters": False}, {"params_dtype": 3}]
)
def test_what_it_can_not_be_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"optim.params_dtype=.*'bfloat16'"):
        optim.make(PARAMS, 5, lr=LR, **wrong)


def test_gradients_are_added_up_in_float32():
    params = {"w": jnp.ones((4, 3), HALF)}
    batch = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(8, 4)), HALF)}

    def objective(apply, params, extras, batch, key):
        found = (batch["x"] @ params["w"]).astype(jnp.float32)
        rows = jnp.float32(len(found))
        return {"sum": ((found**2).sum(), rows)}, {}, extras

    of = functools.partial(
        gradients.of, params, {}, batch, jax.random.key(0), {"sum": jnp.float32(8)},
        apply=None, objective=objective,
    )  # fmt: skip
    for accum in (1, 8):
        assert of(accum=accum)[0]["w"].dtype == jnp.float32
    eighths = [
        gradients.of(
            params, {}, {"x": batch["x"][i : i + 1]}, jax.random.key(0),
            {"sum": jnp.float32(8)}, apply=None, objective=objective,
        )[0]["w"]
        for i in range(8)
    ]  # fmt: skip
    np.testing.assert_allclose(of(accum=8)[0]["w"], sum(eighths), rtol=1e-6)


STEPS = 4


def settings(masters, **more):
    return runs.tiny(
        BERT, steps=STEPS, batch_size=32, model__depth=1, model__dtype="bfloat16",
        optim__params_dtype="bfloat16", optim__masters=masters, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    @functools.cache
    def of(way):
        folder = tmp_path_factory.mktemp(way)
        runs.run(folder, settings(WAYS[way]), parallel={"devices": 1})
        return folder

    return of


@pytest.mark.parametrize(
    ("way", "how"),
    [pytest.param("masters", "jit", marks=pytest.mark.slow), ("stochastic", "pmap")],
)
def test_layouts_and_resumption(tmp_path, reference, way, how):
    """jit = pmap = accumulated = resumed, to bfloat16's own rounding."""
    given = settings(WAYS[way])
    params = "fsdp" if how == "jit" else "replicate"
    laid = dict(parallel={"how": how, "devices": 8, "params": params}, accum=4)
    straight, stopped, moved = (tmp_path / name for name in "abc")
    runs.run(straight, given, **laid)
    runs.run(stopped, given, stop_at=2, **laid)
    shutil.copytree(stopped, moved)
    runs.run(stopped, given, **laid)
    runs.run(moved, given, parallel={"devices": 2})
    np.testing.assert_array_equal(runs.losses(stopped), runs.losses(straight))
    want = runs.losses(reference(way))
    assert want[0] != want[-1], "nothing was learnt: the test is void"
    for workdir in (straight, moved):
        np.testing.assert_allclose(runs.losses(workdir), want, rtol=5e-3)
    saved = checkpoint.weights(stopped)["params"]
    exact = checkpoint.weights(straight)["params"]
    for a, b in zip(jax.tree.leaves(saved), jax.tree.leaves(exact), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_array_equal(a, b)


def test_masters_train_as_float32_parameters_do(tmp_path, reference):
    given = settings(True)
    del given["optim"]["params_dtype"], given["optim"]["masters"]
    runs.run(tmp_path, given, parallel={"devices": 1})
    np.testing.assert_allclose(
        runs.losses(reference("masters")), runs.losses(tmp_path), rtol=2e-3
    )


def test_evaluation_and_another_run_begin_with_masters(tmp_path, reference):
    folder = reference("masters")
    best = checkpoint.weights(folder)["params"]
    rough = sum(
        (np.asarray(x) != np.asarray(x).astype(ml_dtypes.bfloat16)).sum()
        for x in jax.tree.leaves(best)
    )
    assert rough > 0, "these are roundings, not the masters"
    found = evaluate.evaluate(folder, splits=("validation",))["validation"]["loss"]
    during = runs.losses(folder, "validation/loss")
    assert found == pytest.approx(min(during), rel=1e-6)
    given = DEFAULTS | settings(True) | {"init_from": {"path": str(folder)}}
    state = resume.initial(prepare(given), tmp_path, given)
    same(copies.averaged(state.opt_state, state.params), best, rtol=0, atol=0)
    same(state.params, jax.tree.map(lambda p: p.astype(HALF), best), rtol=0, atol=0)


@pytest.mark.parametrize(
    "way", [pytest.param("masters", marks=pytest.mark.slow), "stochastic"]
)
def test_an_adapter_on_frozen_bfloat16_parameters(tmp_path, reference, way):
    """Frozen ones have no master; what is left out of checkpoints is found again."""
    given = settings(WAYS[way], optim__train="lora_|^classify/") | {
        "transforms": {"lora": {"rank": 2}},
        "checkpoint": {"trained_only": True},
        "init_from": {"path": str(reference(way)), "missing": "lora_"},
        "parallel": {"devices": 1},
    }
    runs.run(tmp_path / "a", given)
    runs.run(tmp_path / "b", given, stop_at=2)
    runs.run(tmp_path / "b", given)
    losses = runs.losses(tmp_path / "a")
    np.testing.assert_array_equal(runs.losses(tmp_path / "b"), losses)
    found = evaluate.evaluate(tmp_path / "b", splits=("validation",))["validation"]
    during = runs.losses(tmp_path / "b", "validation/loss")
    assert found["loss"] == pytest.approx(min(during), rel=1e-6)
