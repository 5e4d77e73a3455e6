"""Checkpoints hold a state bit for bit, say what does not fit, and start other runs."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmjax import checkpoint, parallel, step
from fmjax.config import ConfigError
from fmjax.start import resume
from tests.runs import ROOT


def init(key, width=8):
    names = ("encoder", "head")
    params = {
        name: {
            "kernel": jax.random.normal(jax.random.fold_in(key, i), (width, 8)),
            "bias": jnp.full(8, 1 / 3),
        }
        for i, name in enumerate(names)
    }
    return {"params": params, "batch_stats": {"mean": jnp.arange(3) / 7}}


def make(plan=None, seed=0, tx=None, init=init):
    """(a state on its places, its shapes with shardings)."""
    plan, tx = plan or parallel.plan(), tx or optax.adam(0.1)
    create = functools.partial(step.create, init, tx)
    shapes = jax.eval_shape(create, jax.random.key(0))
    places = parallel.shardings(shapes, shapes.params, plan)
    state = jax.jit(create, out_shardings=places)(jax.random.key(seed))
    return state, parallel.abstract(shapes, places)


def bits(tree):
    def raw(leaf):
        keys = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if keys else leaf)

    return [raw(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.fixture
def store(tmp_path):
    made = checkpoint.Checkpoints(tmp_path)
    yield made
    made.close()


def finish(store):
    store.last.wait_until_finished()
    store.best.wait_until_finished()


class TestStates:
    def test_come_back_bit_for_bit(self, tmp_path, store):
        state, abstract = make()
        state = state._replace(step=state.step + 7)
        nan = state.params["head"]["bias"].at[0].set(jnp.nan).at[1].set(-0.0)
        state.params["head"]["bias"] = nan
        progress = {"best": 0.1 + 0.2, "best_step": 5, "worse": 1, "evaluated": 5}
        store.save(7, state, progress)
        finish(store)
        again = checkpoint.Checkpoints(tmp_path)
        found, record = resume.newest(again, abstract)
        again.close()
        assert bits(found) == bits(state)
        assert jax.tree.structure(found) == jax.tree.structure(state)
        assert type(found) is step.State
        assert record == progress
        draws = [jax.random.normal(s.key, (4,)) for s in (found, state)]
        np.testing.assert_array_equal(*draws)

    def test_the_best_value_may_be_none(self, store):
        state, abstract = make()
        store.save(1, state, {"best": None, "worse": 0})
        finish(store)
        assert resume.newest(store, abstract)[1] == {"best": None, "worse": 0}

    def test_the_newest_are_kept(self, tmp_path, store):
        state, abstract = make()
        assert store.step() is None
        for number in (1, 2, 3, 10):
            count = jnp.full((), number, jnp.int32)
            store.save(number, state._replace(step=count), {"at": number})
        finish(store)
        assert sorted(os.listdir(tmp_path / "checkpoints")) == ["10", "3"]
        assert store.step() == 10
        found, record = resume.newest(store, abstract)
        assert (int(found.step), record) == (10, {"at": 10})

    def test_a_failed_save_is_told_once_and_then_no_one_is_asked(
        self, store, monkeypatch
    ):
        state, _ = make()
        store.check()
        store.save(1, state, {})
        finish(store)

        def failed():
            raise OSError("no space left")

        monkeypatch.setattr(store.last, "wait_until_finished", failed)
        with pytest.raises(RuntimeError, match=r"could not be written.*no space left"):
            store.check()
        store.check()
        monkeypatch.undo()

    def test_a_saved_step_is_left_as_it_is(self, store):
        state, abstract = make()
        store.save(3, state, {"at": "first"})
        store.save(3, state, {"at": "second"})
        finish(store)
        assert resume.newest(store, abstract)[1] == {"at": "first"}

    def test_a_step_that_was_cut_short_does_not_count(self, tmp_path, store):
        store.save(3, make()[0], {})
        finish(store)
        half = tmp_path / "checkpoints" / "9.orbax-checkpoint-tmp"
        half.mkdir()
        (half / "state").write_text("half")
        again = checkpoint.Checkpoints(tmp_path)
        assert again.step() == 3
        again.close()

    @pytest.mark.parametrize(
        ("saved", "read"),
        [
            ({"params": "fsdp"}, {"devices": 1}),
            ({"devices": 1}, {"params": "fsdp"}),
            ({"params": "fsdp"}, {"params": "fsdp", "devices": 2}),
        ],
    )
    def test_come_back_on_other_devices(self, store, saved, read):
        state, _ = make(parallel.plan(**saved))
        _, abstract = make(parallel.plan(**read))
        store.save(1, state, {})
        finish(store)
        found, _ = resume.newest(store, abstract)
        assert bits(found) == bits(state)
        for have, want in zip(*map(jax.tree.leaves, (found, abstract)), strict=True):
            assert have.sharding == want.sharding

    @pytest.mark.parametrize(
        ("other", "named"),
        [
            (
                functools.partial(init, width=16),
                "encoder/kernel is (8, 8) there and (16, 8)",
            ),
            (
                lambda key: {"params": init(key)["params"] | {"new": jnp.ones(3)}},
                "new is None there and (3,) here",
            ),
            (
                lambda key: {"params": {"head": init(key)["params"]["head"]}},
                "encoder/bias is (8,) there and None here",
            ),
        ],
    )
    def test_another_config_is_named_as_the_reason(self, store, other, named):
        store.save(4, make()[0], {})
        finish(store)
        _, abstract = make(init=other)
        with pytest.raises(ConfigError, match=re.escape(named)) as error:
            resume.newest(store, abstract)
        assert "4/state does not fit this config" in str(error.value)


class TestWeights:
    def save(self, store, number, state):
        store.save_best(number, state.params, state.extras)
        finish(store)

    def test_only_the_best_is_kept(self, tmp_path, store):
        first, second = make(seed=1)[0], make(seed=2)[0]
        assert store.best_step() is None
        self.save(store, 5, first)
        self.save(store, 20, second)
        assert store.best_step() == 20
        assert os.listdir(tmp_path / "best") == ["20"]
        found = checkpoint.weights(tmp_path)
        assert set(found) == {"params", "extras"}
        assert bits(found["params"]) == bits(second.params)
        assert bits(found["extras"]) == bits(second.extras)

    def test_what_a_killed_or_rolled_back_run_left_further_on_goes(
        self, tmp_path, store
    ):
        old, new = make(seed=1)[0], make(seed=2)[0]
        self.save(store, 9, old)
        whole = tmp_path / "best" / "9"
        shutil.copytree(whole, tmp_path / "copy")
        self.save(store, 12, old)
        (tmp_path / "copy").rename(whole)  # the kill came before it was deleted
        again = checkpoint.Checkpoints(tmp_path)
        assert again.best_step() == 12
        self.save(again, 9, new)
        again.close()
        assert os.listdir(tmp_path / "best") == ["9"]
        assert bits(checkpoint.weights(tmp_path)["params"]) == bits(new.params)

    def test_on_given_shardings(self, tmp_path, store):
        state, _ = make()
        self.save(store, 5, state)
        _, abstract = make(parallel.plan(params="fsdp", devices=4))
        tree = {"params": abstract.params, "extras": abstract.extras}
        found = checkpoint.weights(tmp_path, tree)
        assert bits(found["params"]) == bits(state.params)
        kernel = found["params"]["encoder"]["kernel"]
        assert kernel.addressable_shards[0].data.shape == (2, 8)

    def test_without_extras(self, tmp_path, store):
        params = make()[0].params
        store.save_best(1, params, {})
        finish(store)
        assert bits(checkpoint.weights(tmp_path)["params"]) == bits(params)

    def test_none_yet(self, tmp_path, store):
        with pytest.raises(
            ConfigError, match=r"holds no trained weights \(no step in best/\)"
        ):
            checkpoint.weights(tmp_path)
        with pytest.raises(ConfigError, match="holds no trained weights"):
            checkpoint.weights(tmp_path / "nowhere")

    def test_that_do_not_fit(self, tmp_path, store):
        state, abstract = make()
        self.save(store, 5, state)
        tree = {"params": {"head": abstract.params["head"]}, "extras": abstract.extras}
        with pytest.raises(
            ConfigError, match=r"5/weights does not fit.*encoder/bias is"
        ):
            checkpoint.weights(tmp_path, tree)

    def test_of_eight_devices_are_read_on_one(self, tmp_path, store):
        state, _ = make(parallel.plan(params="fsdp"))
        self.save(store, 5, state)
        code = (
            "import sys, jax, numpy; from fmjax import checkpoint;"
            "kernel = checkpoint.weights(sys.argv[1])['params']['head']['kernel'];"
            "print(len(jax.devices()), float(numpy.abs(kernel).sum()))"
        )
        environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, str(tmp_path)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        count, total = done.stdout.split()
        want = float(jnp.abs(state.params["head"]["kernel"]).sum())
        assert (int(count), float(total)) == (1, pytest.approx(want, rel=1e-6))


def test_progress_is_readable_json(tmp_path, store):
    store.save(2, make()[0], {"best": 1.5})
    finish(store)
    (file,) = (tmp_path / "checkpoints" / "2" / "progress").glob("*metadata*")
    assert json.loads(file.read_text()) == {"best": 1.5}
