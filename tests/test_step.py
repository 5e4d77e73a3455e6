"""One step: how a batch may be cut up, what is computed, and what is not."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from fmjax import parallel, step
from fmjax.config import ConfigError
from fmjax.layers.batch_norm import BatchNorm
from fmjax.objectives import classify


class Net(nn.Module):
    """Two heads on one hidden layer."""

    width: int = 8
    dropout: float = 0.0

    @nn.compact
    def __call__(self, inputs, *, train=False):
        x = nn.gelu(nn.Dense(self.width, name="hidden")(inputs))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(3, name="words")(x), nn.Dense(2, name="pair")(x)


class Normed(nn.Module):
    """Batch normalisation: running statistics in `extras`."""

    norm: type[nn.Module] = BatchNorm
    frozen: bool = False

    @nn.compact
    def __call__(self, inputs, *, train=False):
        if self.norm is nn.BatchNorm:
            x = nn.BatchNorm(use_running_average=not train, name="norm")(inputs)
        else:
            norm = BatchNorm(momentum=0.5, frozen=self.frozen, name="norm")
            x = norm(inputs, train=train)
        return nn.Dense(3, name="classify")(x)


class Counting(nn.Module):
    """Counts the rows that it has trained on, in a collection of its own."""

    @nn.compact
    def __call__(self, inputs, *, train=False):
        seen = self.variable("counts", "rows", jnp.zeros, ())
        if train:
            seen.value += len(inputs)
        return nn.Dense(3, name="classify")(inputs)


def two_terms(apply, params, extras, batch, key):
    """One term over a few marked words, one over all rows: unlike denominators."""
    (words, pair), extras = apply(params, extras, batch["inputs"], key=key)
    loss = optax.softmax_cross_entropy_with_integer_labels
    marked = loss(words, batch["target"]) * batch["weights"]
    rows = loss(pair, batch["next"]) * batch["mask"]
    right = (pair.argmax(-1) == batch["next"]) * batch["mask"]
    losses = {
        "words": (marked.sum(), batch["weights"].sum()),
        "pair": (rows.sum(), batch["mask"].sum()),
    }
    return losses, {"right": (right.sum(), batch["mask"].sum())}, extras


def make_batch(size=16, seed=0):
    rng = np.random.default_rng(seed)
    # Nearly all the marked words are in the first rows: the share of each microbatch in
    # the first denominator is as unlike its share in the second as it can be.
    weights = np.zeros(size, np.float32)
    weights[np.array([0, 4, 8, 9]) * size // 16] = [1, 1, 1, 5]
    mask = np.ones(size, np.float32)
    mask[-3:] = 0
    return {
        "inputs": rng.normal(size=(size, 5)).astype(np.float32),
        "target": rng.integers(3, size=size),
        "next": rng.integers(2, size=size),
        "label": rng.integers(3, size=size),
        "weights": weights,
        "mask": mask,
    }


def setup(net=None, objective=two_terms, tx=None, **fields):
    net, tx = net or Net(), tx or optax.sgd(1.0)
    init = functools.partial(step.init, net, jnp.zeros((1, 5)))
    create = jax.jit(functools.partial(step.create, init, tx))
    state = create(jax.random.key(0))
    run = functools.partial(
        step.train_step, apply=step.pure(net), objective=objective, tx=tx, **fields
    )
    return types.SimpleNamespace(net=net, state=state, run=jax.jit(run), step=run)


def moved(before, after):
    """The gradient, for plain SGD with rate 1."""
    return jax.tree.map(
        lambda a, b: np.asarray(a) - np.asarray(b), before.params, after.params
    )


def close(a, b, rtol=1e-6):
    """Every leaf agrees relative to its largest element."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        scale = max(float(np.abs(y).max()), 1e-3)
        np.testing.assert_allclose(x, y, rtol=0, atol=rtol * scale)


def flops(function, *args):
    return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]


class TestAccumulation:
    @pytest.mark.parametrize("accum", [2, 4, 16])
    def test_equals_the_full_batch(self, accum):
        whole, parts, batch = setup(), setup(accum=accum), make_batch()
        state, sums = whole.run(whole.state, batch)
        state_n, sums_n = parts.run(parts.state, batch)
        close(moved(parts.state, state_n), moved(whole.state, state))
        close(sums_n, sums)
        assert sums["losses"]["words"][1] == 8
        assert sums["losses"]["pair"][1] == 13

    def test_mean_of_the_microbatches_means_would_differ(self):
        whole, batch, accum = setup(), make_batch(), 4
        want = moved(whole.state, whole.run(whole.state, batch)[0])
        dealt = [{k: v[i::accum] for k, v in batch.items()} for i in range(accum)]
        each = [moved(whole.state, whole.run(whole.state, part)[0]) for part in dealt]
        naive = jax.tree.map(lambda *leaves: sum(leaves) / accum, *each)
        off = optax.tree.norm(optax.tree.sub(naive, want)) / optax.tree.norm(want)
        assert off > 0.1

    def test_loss_is_the_sum_of_the_terms_means(self):
        whole, batch = setup(), make_batch()
        state, sums = whole.run(whole.state, batch)

        def loss(params):
            words, pair = whole.net.apply({"params": params}, batch["inputs"])
            words, pair = jax.nn.log_softmax(words), jax.nn.log_softmax(pair)
            rows = np.arange(16)
            a = -(words[rows, batch["target"]] * batch["weights"]).sum() / 8
            return a - pair[rows, batch["next"]][:13].mean()

        value, grads = jax.value_and_grad(loss)(whole.state.params)
        close(moved(whole.state, state), grads)
        means = step.means(jax.device_get(sums))
        assert means["loss"] == pytest.approx(float(value), rel=1e-6)
        norm = float(optax.tree.norm(grads))
        assert means["grad_norm"] == pytest.approx(norm, rel=1e-5)

    @pytest.mark.parametrize("accum", [1, 4])
    def test_pmap_equals_jit(self, accum):
        whole, parts, batch = setup(), setup(accum=accum), make_batch()
        state, sums = whole.run(whole.state, batch)
        rows = jax.tree.map(lambda x: x.reshape(4, 4, *x.shape[1:]), batch)
        mapped = jax.pmap(
            functools.partial(parts.step, axis="data"),
            "data",
            in_axes=(None, 0),
            out_axes=None,
            devices=jax.devices()[:4],
        )
        state_n, sums_n = mapped(parts.state, rows)
        close(moved(parts.state, state_n), moved(whole.state, state))
        close(sums_n, sums)


class TestCost:
    def test_the_evaluation_for_the_weights_is_never_run(self):
        # Wide enough that matrices decide; adding up the terms is the rest.
        net, batch = Net(width=512), make_batch(64)
        made = setup(net)

        def by_hand(state, batch):
            def loss(params):
                apply = step.pure(net)
                losses, _, _ = two_terms(apply, params, {}, batch, None)
                return sum(total / weight for total, weight in losses.values())

            grads = jax.grad(loss)(state.params)
            return jax.tree.map(jnp.subtract, state.params, grads)

        ours, once = (
            flops(made.step, made.state, batch),
            flops(by_hand, made.state, batch),
        )
        forward = flops(net.apply, {"params": made.state.params}, batch["inputs"])
        assert ours == pytest.approx(once, rel=0.03)
        assert forward / once > 0.15, "a second forward pass would not show: void"

    def test_frozen_parameters_cost_no_gradient_and_no_state(self):
        net, batch = Net(width=512), make_batch(64)
        every = setup(net, tx=optax.adam(1e-3))
        trainable = {
            name: dict.fromkeys(sub, name != "hidden")
            for name, sub in every.state.params.items()
        }
        labels = jax.tree.map(lambda on: "on" if on else "off", trainable)
        groups = {"on": optax.adam(1e-3), "off": optax.set_to_zero()}
        tx = optax.partition(groups, labels)
        some = setup(net, tx=tx, trainable=trainable)

        ratio = flops(some.step, some.state, batch) / flops(
            every.step, every.state, batch
        )
        assert ratio < 0.75
        # Alone, the zeroed update would not save the backward pass.
        paid = setup(net, tx=tx)
        assert flops(paid.step, paid.state, batch) > flops(some.step, some.state, batch)

        held = sum(x.size for x in jax.tree.leaves(some.state.opt_state))
        heads = sum(
            some.state.params[name]["kernel"].size for name in ("words", "pair")
        )
        biases = 3 + 2
        assert held == 2 * (heads + biases) + 1  # two moments, and Adam's count
        new, sums = some.run(some.state, batch)
        before, after = some.state.params, new.params
        np.testing.assert_array_equal(
            before["hidden"]["kernel"], after["hidden"]["kernel"]
        )
        assert not np.allclose(before["words"]["kernel"], after["words"]["kernel"])
        # The norm that is reported and clipped by is that of what is trained.
        whole = every.run(every.state, batch)[1]["metrics"]["grad_norm"][0]
        assert 0 < sums["metrics"]["grad_norm"][0] < whole


class TestEdges:
    @pytest.mark.parametrize("accum", [1, 4])
    def test_a_term_with_nothing_to_measure_adds_nothing(self, accum):
        made, batch = setup(accum=accum), make_batch()
        batch["weights"] = np.zeros(16, np.float32)
        state, sums = made.run(made.state, batch)
        grads = moved(made.state, state)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))
        assert float(jnp.abs(grads["words"]["kernel"]).max()) == 0
        assert float(jnp.abs(grads["pair"]["kernel"]).max()) > 0
        means = step.means(jax.device_get(sums))
        assert np.isnan(means["words_loss"])
        assert means["loss"] == means["pair_loss"] > 0

    @pytest.mark.parametrize("accum", [1, 2])
    def test_a_batch_of_padding_alone_moves_nothing(self, accum):
        made, batch = setup(accum=accum), make_batch()
        batch["weights"] = batch["mask"] = np.zeros(16, np.float32)
        state, sums = made.run(made.state, batch)
        close(state.params, made.state.params)
        assert step.means(jax.device_get(sums))["loss"] == 0

    def test_padding_rows_do_not_count(self):
        made, batch = setup(), make_batch()
        other = jax.tree.map(np.copy, batch)
        other["inputs"][-3:] = 100.0
        for one in (batch, other):
            one["weights"] = one["weights"] * one["mask"]
        close(
            made.run(made.state, other)[0].params, made.run(made.state, batch)[0].params
        )

    def test_step_counts_and_the_key_stays(self):
        made = setup()
        state, _ = made.run(*[made.state, make_batch()])
        state, _ = made.run(state, make_batch())
        assert (int(state.step), state.step.dtype) == (2, jnp.int32)
        assert jnp.array_equal(*map(jax.random.key_data, (state.key, made.state.key)))

    def test_randomness_is_addressed_by_the_step_and_the_microbatch(self):
        drop, batch = setup(Net(dropout=0.5)), make_batch()
        grads = lambda made, state: moved(state, made.run(state, batch)[0])  # noqa: E731
        same = [grads(drop, drop.state) for _ in range(2)]
        close(*same, rtol=0)
        later = drop.state._replace(step=drop.state.step + 1)
        other_key = drop.state._replace(key=jax.random.key(9))
        for other in (later, other_key):
            difference = optax.tree.sub(same[0], grads(drop, other))
            assert float(optax.tree.norm(difference)) > 1e-3
        # Two equal microbatches draw different masks.
        cut, half = setup(Net(dropout=0.5), accum=2), make_batch(8)
        batch = jax.tree.map(lambda x: np.repeat(x, 2, axis=0), half)
        one = setup(Net(dropout=0.5))
        single = moved(one.state, one.run(one.state, half)[0])
        assert (
            float(optax.tree.norm(optax.tree.sub(grads(cut, cut.state), single))) > 1e-3
        )

    def test_evaluation_has_no_dropout(self):
        net, batch = Net(dropout=0.9), make_batch()
        made = setup(net)
        evaluate = functools.partial(
            step.eval_step, apply=step.pure(net), objective=two_terms
        )
        with_dropout = evaluate(made.state.params, {}, batch)
        without = functools.partial(
            step.eval_step, apply=step.pure(Net()), objective=two_terms
        )(made.state.params, {}, batch)
        close(with_dropout, without, rtol=0)


class TestExtras:
    def test_thread_through_training_and_stay_in_evaluation(self):
        made, batch = setup(Normed(), classify.objective), make_batch()
        assert set(made.state.extras) == {"batch_stats"}
        assert "batch_stats" not in made.state.params
        state, _ = made.run(made.state, batch)
        mean = state.extras["batch_stats"]["norm"]["mean"]
        np.testing.assert_allclose(mean, batch["inputs"].mean(0) / 2, atol=1e-6)
        apply = step.pure(made.net)
        _, after = apply(state.params, state.extras, batch["inputs"])
        assert after is state.extras
        sums = step.eval_step(
            state.params, state.extras, batch, apply=apply, objective=classify.objective
        )
        fresh = step.eval_step(
            state.params,
            made.state.extras,
            batch,
            apply=apply,
            objective=classify.objective,
        )
        assert sums["losses"]["classify"][0] != fresh["losses"]["classify"][0]

    def test_pass_from_one_microbatch_to_the_next(self):
        made, batch = setup(Counting(), classify.objective, accum=4), make_batch()
        state, _ = made.run(made.state, batch)
        assert state.extras["counts"]["rows"] == 16

    def test_batch_statistics_of_a_microbatch_are_refused_and_frozen_ones_are_not(self):
        batch = make_batch()
        made = setup(Normed(), classify.objective, accum=2)
        with pytest.raises(ValueError, match=r"accum=2 would .*\(norm\).*set accum=1"):
            made.run(made.state, batch)
        cut = setup(Normed(frozen=True), classify.objective, accum=2)
        whole = setup(Normed(frozen=True), classify.objective)
        close(
            cut.run(cut.state, batch)[0].params, whole.run(whole.state, batch)[0].params
        )

    @pytest.mark.parametrize("devices", [1, 4])
    def test_are_those_of_the_whole_batch_on_any_number_of_devices(self, devices):
        made, batch = setup(Normed(), classify.objective), make_batch()
        plan = parallel.plan(devices=devices)
        state = jax.device_put(made.state, plan.whole)
        state, _ = made.run(state, parallel.put(batch, plan))
        norm = state.extras["batch_stats"]["norm"]
        np.testing.assert_allclose(norm["mean"], batch["inputs"].mean(0) / 2, atol=1e-6)
        want = 0.5 + batch["inputs"].var(0, ddof=1) / 2
        np.testing.assert_allclose(norm["var"], want, atol=1e-6)

    @pytest.mark.parametrize("devices", [1, 4, 8])
    def test_are_those_of_the_whole_batch_under_pmap(self, devices):
        made, batch = setup(Normed(), classify.objective), make_batch()
        want, want_sums = made.run(made.state, batch)
        plan = parallel.plan(how="pmap", devices=devices)
        rows = parallel.put(jax.tree.map(jnp.asarray, batch), plan)
        like = parallel.abstract(made.state, plan.whole)
        compiled = parallel.compile_step(made.step, like, rows, plan)
        # A copy: the step takes its memory.
        state = jax.device_put(jax.tree.map(jnp.copy, made.state), plan.whole)
        got, sums = compiled(state, rows)
        close(got.extras, want.extras)
        close(moved(made.state, got), moved(made.state, want))
        close(sums, want_sums)

    def test_other_collections_are_refused_under_pmap(self):
        # Each device would have its own, and the first one's would be kept.
        made = setup(Counting(), classify.objective)
        plan = parallel.plan(how="pmap", devices=4)
        batch = parallel.like_batch(make_batch(), plan)
        with pytest.raises(ConfigError, match=r"counts.*parallel\.how=jit"):
            parallel.compile_step(made.step, made.state, batch, plan)

    @pytest.mark.parametrize("how", ["pmap", "accum"])
    def test_linen_s_own_batch_norm_is_refused_where_the_batch_is_cut(self, how):
        accum = 2 if how == "accum" else 1
        made = setup(Normed(nn.BatchNorm), classify.objective, accum=accum)
        plan = parallel.plan(how="pmap" if how == "pmap" else "jit", devices=4)
        batch = parallel.like_batch(make_batch(), plan)
        state = parallel.abstract(made.state, plan.whole)
        with pytest.raises(ValueError, match="norm is linen's BatchNorm"):
            parallel.compile_step(made.step, state, batch, plan)


class TestSums:
    sums = {  # noqa: RUF012
        "losses": {"a": (6.0, 3.0), "b": (0.0, 0.0)},
        "metrics": {"right": (1.0, 4.0), "idle": (0.0, 0.0)},
    }

    def test_means(self):
        found = step.means(self.sums)
        assert found["loss"] == found["a_loss"] == 2
        assert found["right"] == 0.25
        assert np.isnan(found["b_loss"])
        assert np.isnan(found["idle"])

    def test_a_single_term_has_no_name_of_its_own(self):
        found = step.means({"losses": {"a": (6.0, 3.0)}, "metrics": {}})
        assert found == {"loss": 2.0}

    def test_a_loss_that_is_nan_shows(self):
        found = step.means(
            {"losses": {"a": (np.nan, 3.0), "b": (1.0, 1.0)}, "metrics": {}}
        )
        assert np.isnan(found["loss"])
        assert found["b_loss"] == 1

    def test_add_sums_is_exact_where_float32_is_not(self):
        big, one = np.float32(2**24), np.float32(1)
        added = step.add_sums(
            [{"losses": {"a": (x, one)}} for x in (big, one, one, one)]
        )
        assert added["losses"]["a"] == (2**24 + 3, 4)
        assert big + one + one + one != 2**24 + 3

    def test_means_of_added_sums_weigh_every_example_once(self):
        full = {"losses": {"a": (10.0, 10.0)}, "metrics": {}}
        ragged = {"losses": {"a": (6.0, 2.0)}, "metrics": {}}
        assert step.means(step.add_sums([full, ragged]))["loss"] == 16 / 12
