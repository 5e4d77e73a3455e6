"""A NaN in a batch, and spikes: aborted, skipped or rolled back, and never hidden."""

import collections
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import checkpoint, cli, config, files, report, train
from fmjax.data import batches
from fmjax.keeping import guard
from tests import runs
from tests.test_checkpoint import bits
from tests.test_faults import CNN, events

BAD = 3  # the step, from 0, whose batch has a NaN


@pytest.fixture
def poisoned(monkeypatch):
    """Batch number BAD of training has a NaN; returns the numbers that were asked."""
    asked, real = [], batches.Batches.numbered

    def numbered(self, step):
        rows, batch = real(self, step)
        if self.seed is not None:
            asked.append(step)
            if step == BAD:
                # Of a NaN in an image XLA's quick maximum on a CPU makes 0.
                batch["mask"][0] = np.nan
        return rows, batch

    monkeypatch.setattr(batches.Batches, "numbered", numbered)
    return asked


def settings(**guarded):
    made = runs.tiny(CNN, steps=6, checkpoint__every=2, checkpoint__keep=3)
    return made | {"evaluate": None, "guard": guarded}


def saved(workdir):
    """Bits of parameters and optimizer state of the last checkpoint."""
    newest = max(workdir.glob("checkpoints/*"), key=lambda path: int(path.name))
    state, _ = checkpoint.read(newest)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state["params"])), (
        "a checkpoint is finite"
    )
    return bits((state["params"], state["opt_state"]))


def test_abort_ends_the_run_with_65_and_finite_checkpoints(
    tmp_path, poisoned, capsys, monkeypatch
):
    given = settings()
    del given["guard"]  # it is the default
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: runs.run(tmp_path, given) and 0)
    assert ended.value.code == 65
    said = capsys.readouterr().err
    assert "step 4: loss nan" in said
    assert "guard.nonfinite=skip" in said
    assert "Traceback" not in said
    assert [x["event"] for x in events(tmp_path)] == ["nonfinite"]
    assert runs.losses(tmp_path)[BAD] is None, "the log has it"
    assert runs.losses(tmp_path, "train/skipped")[: BAD + 1] == [0, 0, 0, 1]
    saved(tmp_path)
    kept = sorted(path.name for path in tmp_path.glob("checkpoints/*"))
    assert kept == ["2"], "step 4 was to be saved, and is judged before"


def test_skip_is_bitwise_a_run_that_never_saw_the_batch(tmp_path, poisoned):
    given = settings(nonfinite="skip")
    assert runs.run(tmp_path, given)["status"] == "done"
    assert runs.losses(tmp_path)[BAD] is None
    assert [(x["step"], x["event"]) for x in events(tmp_path)] == [
        (BAD + 1, "nonfinite")
    ]
    setup = train.prepare({"tokenizer": None, "parallel": None} | given)
    from fmjax import parallel
    from fmjax.costs import account

    compiled, _ = account.compiling(setup)
    places = jax.tree.map(lambda x: x.sharding, setup.state)
    state = jax.jit(setup.create, out_shardings=places)(jax.random.key(given["seed"]))
    for number in range(6):
        if number == BAD:
            state = state._replace(step=state.step + 1)
            state = jax.device_put(state, places)
        else:
            batch = parallel.put(setup.train_set.at(number), setup.plan)
            state, _ = compiled(state, batch)
    assert saved(tmp_path) == bits((state.params, state.opt_state))


def test_rollback_goes_to_the_checkpoint_and_leaves_the_window_out(tmp_path, poisoned):
    given = settings(nonfinite="rollback")
    result = runs.run(tmp_path, given)
    assert (result["status"], result["step"]) == ("done", 6)
    skipped = json.loads((tmp_path / "skipped.json").read_text())
    to, by = skipped["ahead"][0]
    assert skipped["rollbacks"] == 1
    assert to + by == BAD + 1, "the next batch is the one after the bad one"
    lines = [x for x in report.read(tmp_path) if "lr" in x]
    assert [x["step"] for x in lines] == [1, 2, 3, 4, 5, 6]
    (event,) = events(tmp_path)
    assert (event["event"], event["step"]) == ("nonfinite", BAD + 1)
    assert runs.losses(tmp_path, "event/nonfinite") == [1.0], "and metrics keep it"
    # Steps from `to` on took the batches that it says, and no other.
    del poisoned[:]
    again = tmp_path / "again"
    runs.run(again, given, stop_at=to)
    files.write_json(again / "skipped.json", skipped)
    runs.run(again, given)
    assert BAD not in poisoned[-4:]
    assert saved(again) == saved(tmp_path)


def test_a_run_that_only_skips_is_ended(tmp_path):
    given = settings(nonfinite="skip", limit=2)
    given["optim"] = given["optim"] | {"lr": 3e38}  # 1.5 of it is infinite
    with pytest.raises(guard.NonFinite, match="2 in a row were skipped"):
        runs.run(tmp_path, given)


def test_a_wrong_policy_is_refused_at_start(tmp_path):
    with pytest.raises(config.ConfigError, match=r"did you mean 'skip'"):
        runs.run(tmp_path, settings(nonfinite="skipp"))


class TestSkips:
    def test_positions(self, tmp_path):
        assert guard.skips(tmp_path).position(7) == 7
        guard.go_back(tmp_path, 5, 4, limit=3)  # batches 4, 5 are left out
        assert [guard.skips(tmp_path).position(s) for s in (3, 4, 5)] == [3, 6, 7]
        guard.go_back(tmp_path, 4, 2, limit=3)  # and 2 to 6
        assert [guard.skips(tmp_path).position(s) for s in (1, 2, 3)] == [1, 7, 8]
        guard.go_back(tmp_path, 8, 8, limit=3)
        found = guard.skips(tmp_path)
        assert [found.position(s) for s in (2, 7, 8, 9)] == [7, 12, 14, 15]
        with pytest.raises(guard.NonFinite, match="3 rollbacks"):
            guard.go_back(tmp_path, 9, 9, limit=3)


class TestSpikes:
    def watch(self, **how):
        said = []
        tell = lambda *what: said.append(what)  # noqa: E731
        return guard.Watch(guard.Guard(spike=8.0, **how), tell), said

    def sums(self, loss):
        return {"losses": {"a": (np.float32(loss), 1.0)}, "metrics": {}}

    def test_a_spike_is_told_and_falling_losses_are_none(self):
        rng = np.random.default_rng(0)
        watch, said = self.watch()
        for number in range(200):
            loss = 3 / (1 + number / 50) + 0.05 * rng.standard_normal()
            watch.look(number, self.sums(loss + (2 if number == 120 else 0)))
        assert [(number, event) for number, event, _ in said] == [(120, "spike")]

    def test_it_may_roll_back(self):
        watch, _ = self.watch(on_spike="rollback")
        for number in range(20):
            watch.look(number, self.sums(1 + number % 3 / 10))
        with pytest.raises(guard.Rollback) as back:
            watch.look(20, self.sums(5.0))
        assert back.value.step == 20

    def test_the_deviation_is_that_of_a_normal_distribution(self):
        values = np.random.default_rng(0).normal(2.0, 3.0, 10_001)
        recent = collections.deque(values.tolist())
        assert guard.deviation(8.0, recent) == pytest.approx(2.0, abs=0.1)
        assert guard.deviation(8.0, collections.deque([1.0] * 15)) == 0


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["loss", "gradient", "result", "statistics", None])
def test_any_number_that_is_not_finite_keeps_the_state(where, bad, keep):
    from fmjax.step import State

    bad = jnp.array(bad)
    params, extras = {"w": jnp.ones(3)}, {"mean": jnp.zeros(2), "none": jnp.zeros(0)}
    state = State(jnp.array(4), params, extras, {"mu": jnp.zeros(3)}, jax.random.key(0))

    def train_step(state, batch):
        sums = {
            "losses": {"a": (bad if where == "loss" else jnp.ones(()), jnp.ones(()))},
            "metrics": {
                "grad_norm": (
                    bad if where == "gradient" else jnp.ones(()),
                    jnp.ones(()),
                )
            },
        }
        add = lambda tree, by: jax.tree.map(lambda x: x + by, tree)  # noqa: E731
        new = State(
            state.step + 1,
            add(state.params, bad if where == "result" else 1),
            add(state.extras, bad if where == "statistics" else 1),
            add(state.opt_state, 1),
            state.key,
        )
        return new, sums

    new, sums = jax.jit(guard.finite_only(train_step, keep))(state, None)
    assert float(sums["metrics"]["skipped"][0]) == (where is not None)
    kept = state._replace(step=jnp.array(5))
    if where is None or not keep:
        kept = jax.jit(train_step)(state, None)[0]
    assert bits(new) == bits(kept)
