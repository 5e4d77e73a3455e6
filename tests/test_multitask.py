"""Several tasks on one encoder: the mixture, its inputs, heads and sums, whole runs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import config, evaluate, predict, step
from fmjax.data import batches
from fmjax.data.inputs import mixture as inputs
from fmjax.data.sources import mixture
from fmjax.interop import names
from fmjax.objectives import classify, multitask, token_classify
from fmjax.train import prepare
from fmjax.transforms import heads
from tests import runs

NAME = "configs/bert/multitask.py"
STILL = dict.fromkeys(
    ("model__dropout", "model__attention_dropout", "transforms__heads__dropout"), 0.0
)
DEFAULTS = dict(tokenizer=None, accum=1, parallel=None, seed=0)
TASKS = {
    "mood": {"name": "synthetic_text", "size": 60},
    "tags": {"name": "synthetic_tasks", "task": "tags", "size": 15},
}


def counts(**fields):
    return mixture.load("train", tasks=TASKS, **fields).facts["counts"]


class TestMixture:
    @pytest.mark.parametrize(
        ("fields", "want"),
        [
            ({}, {"mood": 60, "tags": 15}),
            ({"temperature": 2.0}, {"mood": 60, "tags": 30}),  # sqrt(60) : sqrt(15)
            ({"temperature": 1e9}, {"mood": 60, "tags": 60}),
            ({"limit": 30}, {"mood": 60, "tags": 30}),
            ({"rates": {"mood": 3, "tags": 2}}, {"mood": 60, "tags": 40}),
            ({"rates": {"mood": 8, "tags": 1}}, {"mood": 120, "tags": 15}),
            ({"size": 10}, {"mood": 8, "tags": 2}),
            ({"size": 11}, {"mood": 9, "tags": 2}),
        ],
    )
    def test_shares(self, fields, want):
        assert counts(**fields) == want

    @pytest.mark.parametrize("whole", range(1, 40))
    def test_shares_are_whole_numbers_that_add_up(self, whole):
        shares = np.array([0.5, 0.3, 0.15, 0.05])
        found = mixture.apportion(shares, whole)
        assert found.sum() == whole
        assert (abs(found - shares * whole) < 1).all()

    def test_every_row_is_there_by_index_and_again_the_same(self):
        found = mixture.load("train", tasks=TASKS, temperature=2.0)
        seen = [(found.rows[i]["task"], found.rows[i]["id"]) for i in range(90)]
        assert seen == [(found.rows[i]["task"], found.rows[i]["id"]) for i in range(90)]
        times = {task: {} for task in TASKS}
        for task, number in seen:
            times[task][number] = times[task].get(number, 0) + 1
        assert set(times["mood"].values()) == {1}
        assert len(times["mood"]) == 60
        assert set(times["tags"].values()) == {2}
        assert len(times["tags"]) == 15
        with pytest.raises(IndexError):
            found.rows[90]
        assert found.rows[-1] == found.rows[89]

    def test_other_splits_have_every_row_once(self):
        found = mixture.load("validation", tasks=TASKS, temperature=100.0)
        assert found.facts["counts"] == {"mood": 15, "tags": 3}
        assert found.classes[:3] == ("mood/bad", "mood/good", "tags/DET")

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"rates": {"mood": 1}}, "a number above 0 for each of mood, tags"),
            ({"rates": {"mood": 1, "tags": 0}}, "a number above 0"),
            ({"temperature": 0}, "temperature=0"),
            ({"tasks": {}}, "one or more"),
            ({"tasks": {"a": {"name": "nothing"}}}, "no source 'nothing'"),
        ],
    )
    def test_what_is_wrong_is_named(self, fields, message):
        with pytest.raises(ValueError, match=message):
            mixture.load("train", **{"tasks": TASKS} | fields)


@pytest.fixture(scope="module")
def setup():
    return prepare(DEFAULTS | runs.tiny(NAME, **STILL))


class TestInputs:
    def test_a_row_is_an_example_of_its_task_alone(self, setup):
        rows = setup.parts.data("train").rows
        own = {rows[i]["task"]: rows[i] for i in range(0, len(rows), 7)}
        assert set(own) == {"sentiment", "topics", "tags"}
        for task, row in own.items():
            made = setup.parts.inputs(row, None)
            masks = {name: float(one["mask"]) for name, one in made["tasks"].items()}
            assert masks == {name: float(name == task) for name in masks}
            others = [one for name, one in made["tasks"].items() if name != task]
            assert not any(np.any(x) for x in jax.tree.leaves(others))
        tags = setup.parts.inputs(own["tags"], None)
        assert tags["tasks"]["tags"]["weights"].sum() == len(own["tags"]["words"])
        assert not tags["inputs"]["types"].any()

    def test_batches_are_addressed_by_step_on_any_number_of_hosts(self, setup):
        rows = setup.parts.data("train").rows

        def load(**more):
            return batches.Batches(rows, setup.parts.inputs, 8, seed=3, **more)

        one, two = load(), [load(host=h, hosts=2) for h in range(2)]
        for number in (5, 0, 100):
            whole = one.at(number)
            parts = [each.at(number) for each in two]
            joined = jax.tree.map(lambda *x: np.concatenate(x), *parts)
            jax.tree.map(np.testing.assert_array_equal, whole, joined)
        mixed = np.stack(
            [
                one.at(0)["tasks"][task]["mask"]
                for task in ("sentiment", "topics", "tags")
            ]
        )
        np.testing.assert_array_equal(mixed.sum(0), np.ones(8))

    @pytest.mark.parametrize(
        ("tasks", "message"),
        [
            ({"a": {"name": "txt"}}, "tasks.a: no inputs named 'txt'"),
            ({"a": {"name": "text", "lenght": 3}}, "text has no lenght; it has"),
            ({"a": {"name": "choices"}}, "tasks.a: choices needs choices"),
            (
                {"a": {"name": "sentence_pair_score"}},
                "only inputs of one text can be mixed",
            ),
            (
                {"a": {"name": "text", "length": 9}, "b": {"name": "text"}},
                "unlike shapes",
            ),
        ],
    )
    def test_what_cannot_be_mixed_is_named(self, setup, tasks, message):
        with pytest.raises(ValueError, match=message):
            inputs.make(tasks=tasks, tokenizer=setup.parts.tokenizer)

    def test_an_unknown_task_is_named(self, setup):
        with pytest.raises(ValueError, match=r"row 3: task 'x'; inputs\.tasks has"):
            setup.parts.inputs({"id": 3, "task": "x", "text": "a"}, None)


OWN = {"sentiment": classify, "topics": classify, "tags": token_classify}


def begin(setup):
    state = jax.jit(setup.create)(jax.random.key(0))
    return state.params, setup.train_set.at(0)


class TestObjective:
    def test_each_task_is_its_own_objective_over_its_own_rows(self, setup):
        params, batch = begin(setup)
        losses, metrics, _ = setup.parts.objective(setup.apply, params, {}, batch, None)
        assert set(losses) == set(OWN)
        for task, module in OWN.items():
            own = batch["tasks"][task]
            real = own["mask"] > 0
            alone = {**own, "inputs": batch["inputs"], "mask": batch["mask"]}
            alone = jax.tree.map(lambda x, real=real: x[real], alone)

            def apply(params, extras, given, key=None, task=task):
                return setup.apply(params, extras, given, key=key)[0][task], extras

            want, measured, _ = module.objective(apply, params, {}, alone, None)
            (want,) = want.values()
            np.testing.assert_allclose(losses[task], want, rtol=1e-5)
            for name, pair in measured.items():
                np.testing.assert_allclose(metrics[f"{task}_{name}"], pair, rtol=1e-6)

    def test_the_encoder_is_computed_once(self, setup):
        params, batch = begin(setup)
        calls = []

        def apply(*args, **kwargs):
            calls.append(1)
            return setup.apply(*args, **kwargs)

        setup.parts.objective(apply, params, {}, batch, None)
        assert calls == [1]

    def test_weights_multiply_losses(self, setup):
        params, batch = begin(setup)
        tasks = {"sentiment": "classify", "topics": {"name": "classify"}}
        run = lambda **more: multitask.objective(  # noqa: E731
            setup.apply, params, {}, batch, None, tasks=tasks, **more
        )[0]
        plain, heavy = run(), run(weights={"topics": 3.0})
        np.testing.assert_allclose(heavy["sentiment"], plain["sentiment"])
        np.testing.assert_allclose(
            heavy["topics"][0], 3 * plain["topics"][0], rtol=1e-6
        )
        assert heavy["topics"][1] == plain["topics"][1]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"objective.weights": {"x": 1.0}}, "weights of x: no such task"),
            ({"objective.tasks": {"x": "classify"}}, "task 'x': inputs have"),
            ({"objective.tasks": {"tags": "clasify"}}, "no objective named 'clasify'"),
            ({"objective.tasks": {"tags": "simclr"}}, "compares the rows"),
            (
                {"objective.tasks": {"topics": {"name": "classify", "smooth": 1}}},
                "classify has no smooth",
            ),
            ({"transforms.heads.tasks": {"tags": "tga"}}, "is 'tga' with 6 classes"),
            ({"transforms.heads.tasks": {"x": "tag"}}, "is 'tag' with 0 classes"),
            ({"model.head": "embed"}, "set model.head=None"),
        ],
    )
    def test_what_is_wrong_fails_at_start(self, change, message):
        settings = DEFAULTS | runs.tiny(NAME)
        for key, value in change.items():
            *parents, last = key.split(".")
            node = settings
            for parent in parents:
                node = node[parent]
            node[last] = value
        with pytest.raises(config.ConfigError, match=message):
            prepare(settings)


class TestHeads:
    def test_dropout_is_in_training_alone_and_by_the_key(self, setup):
        params, batch = begin(setup)
        want = setup.apply(params, {}, batch["inputs"])[0]["topics"]
        net = heads.transform(
            setup.parts.net.net,
            tasks={"topics": "classify"},
            classes=("topics/a", "topics/b", "topics/c", "topics/d"),
            dropout=0.5,
        )
        params = dict(params)
        params["heads"] = {"topics": params["heads"]["topics"]}
        dropped = step.pure(net)
        plain = dropped(params, {}, batch["inputs"])[0]["topics"]
        np.testing.assert_array_equal(plain, want)
        a, b, c = (
            dropped(params, {}, batch["inputs"], key=jax.random.key(k))[0]["topics"]
            for k in (0, 0, 1)
        )
        np.testing.assert_array_equal(a, b)
        assert not np.allclose(a, plain)
        assert not np.allclose(a, c)

    def test_the_encoders_parameters_are_the_nets_own(self, setup):
        whole = names.flatten(setup.state.params)
        mine = {path for path in whole if path.startswith("heads/")}
        assert mine == {
            f"heads/{task}/{part}" for task in OWN for part in ("kernel", "bias")
        }
        own = jax.eval_shape(
            setup.parts.net.net.init, jax.random.key(0), setup.sample["inputs"]
        )
        assert set(names.flatten(own["params"])) == set(whole) - mine
        assert {path for path in whole if setup.parts.net.owns(path)} == mine


def test_ways_of_cutting_up_and_stopping_change_no_loss(tmp_path):
    settings = runs.tiny(NAME, **STILL)
    runs.run(tmp_path / "one", settings, parallel={"devices": 1})
    layout = {"devices": 2, "how": "pmap"}
    runs.run(tmp_path / "cut", settings, stop_at=2, parallel=layout, accum=2)
    runs.run(tmp_path / "cut", settings, parallel=layout, accum=2)
    for name in ("train/loss", "train/tags_loss", "validation/topics_accuracy"):
        a, b = (runs.losses(tmp_path / folder, name) for folder in ("one", "cut"))
        assert len(a) > 1
        np.testing.assert_allclose(b, a, atol=2e-6)
    found = evaluate.evaluate(tmp_path / "one")["test"]
    assert found["count"] == 16 + 8 + 12
    terms = [found[f"{task}_loss"] for task in OWN]
    assert found["loss"] == pytest.approx(sum(terms), rel=1e-6)
    (said,) = predict.predict(tmp_path / "one", [{"text": "the old river"}])
    assert len(said["sentiment_probabilities"]) == 2
    assert sum(said["topics_probabilities"]) == pytest.approx(1, abs=1e-5)
    assert sum(tag >= 0 for tag in said["tags_tags"]) == 3


def test_all_tasks_are_learnt_in_one_step_from_a_pre_trained_encoder(tmp_path):
    whole = runs.tiny(NAME, steps=60, optim__lr=3e-3, log__every=30, model__depth=2)
    corpus, tokens = whole["tokenizer"]["corpus"], whole["tokenizer"]
    before = runs.tiny("configs/bert/pretrain.py", steps=1, model__depth=2)
    before["data"] |= {"corpus": corpus}
    before["tokenizer"] = dict(tokens)
    runs.run(tmp_path / "before", before, parallel={"devices": 1})
    whole["init_from"] = {"path": str(tmp_path / "before"), "missing": "^heads/"}
    whole["evaluate"] |= {"every": "30 steps"}
    runs.run(tmp_path / "run", whole, parallel={"devices": 1})
    report = json.loads((tmp_path / "run" / "init_from.json").read_text())
    assert all(path.startswith("heads/") for path in report["fresh"])
    assert len(report["fresh"]) == 6
    for task, chance in (("sentiment", 0.5), ("topics", 0.25), ("tags", 0.25)):
        last = runs.losses(tmp_path / "run", f"validation/{task}_accuracy")[-1]
        assert last > chance + 0.2, task
    assert jnp.isfinite(jnp.array(runs.losses(tmp_path / "run"))).all()
