"""Methods of adaptation compared, end to end on made-up data."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest
from sklearn.metrics import f1_score

from experiments import arms
from experiments.peft import methods, run
from fmjax import config, optim, train, trees
from fmjax.models import mobilenet
from tests import runs

CHOSEN = ("full", "probe")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The experiment's folder after two calls; the second trains nothing."""
    folder = tmp_path_factory.mktemp("peft")
    own = ["run", "--tiny", "--rates", "1", "--workdir", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", own + [f"--method={name}" for name in CHOSEN])
        assert run.main() == 0
        kept = [*folder.rglob("metrics.jsonl"), *folder.rglob("*.npz")]
        before = {path: path.stat().st_mtime_ns for path in kept}
        assert run.main() == 0
        assert {path: path.stat().st_mtime_ns for path in kept} == before
    return folder


def test_a_run_is_done_with_its_own_settings_alone(root):
    folder = root / "rates" / "full-x3"
    own = methods.settings("full", factor=3.0, tiny=True)
    assert arms.finished(folder, own)["step"] == 6
    assert arms.finished(folder, own | {"seed": 1}) is None
    assert arms.finished(folder, own | {"guard": {"nonfinite": "stop"}}) is None
    assert arms.finished(root, own) is None


def test_results_are_those_of_the_best_rates_predictions(root):
    found = [json.loads(x) for x in (root / "results.jsonl").read_text().splitlines()]
    for name in CHOSEN:
        line = next(x for x in found if x.get("method") == name)
        losses = line["validation"]
        assert f"{line['rate']:.6g}" == min(losses, key=losses.get)
        factor = line["rate"] / methods.settings(name, tiny=True)["optim"]["lr"]
        with np.load(root / "rates" / f"{name}-x{factor:g}" / "test.npz") as kept:
            right = kept["probabilities"].argmax(1) == kept["label"]
        assert line["accuracy"]["value"] == pytest.approx(right.mean())
        few = next(x for x in found if x.get("method") == name and "per_class" in x)
        folder = root / "shots" / f"{name}-{few['per_class']}-0"
        data = json.loads((folder / "config.json").read_text())["config"]["data"]
        assert data["per_class"] == few["per_class"]
    gap = next(x for x in found if x.get("difference") == "probe - full")
    a, b = (x["accuracy"]["value"] for x in found[:2])
    assert gap["value"] == pytest.approx(b - a)
    for figure in ("accuracy.svg", "shots.svg"):
        assert (root / figure).read_text("utf-8").startswith("<svg")


def test_what_is_not_trained_costs_no_gradient_and_no_memory(root):
    found = json.loads((root / "costs.json").read_text("utf-8"))
    full, probe = found["full"], found["probe"]
    # Adam's two numbers a trained parameter, float32, and a few counters.
    assert probe["optimizer_bytes"] < 8 * probe["trained"] + 100
    assert full["optimizer_bytes"] >= 8 * full["parameters"]
    assert probe["flops_ratio"] < 0.5
    assert probe["peak_bytes_ratio"] < 0.8
    assert full["flops_ratio"] == full["peak_bytes_ratio"] == 1


@pytest.mark.parametrize(
    ("losses", "rates", "best", "tried"),
    [
        ({3: 0.5, 9: 0.6, 1: 0.4, 0.333: 0.45}, 4, 1, 4),
        ({3: 0.5, 9: 0.6, 1: 0.55}, 4, 3, 3),  # between two others: enough
        ({3: 0.5, 9: None, 1: 0.6}, 4, 3, 3),  # not a number: never the best
        ({3: 0.5, 9: 0.4, 27: 0.3, 81: 0.2}, 4, 81, 4),
        ({3: 0.5, 9: 0.4}, 1, 3, 1),
    ],
)
def test_the_rate_is_the_one_of_the_lowest_validation_loss(
    losses, rates, best, tried, monkeypatch, tmp_path
):
    rate = methods.settings("probe", tiny=True)["optim"]["lr"]

    def fit(folder, settings):
        return {"best": losses[round(settings["optim"]["lr"] / rate, 3)]}

    monkeypatch.setattr(run.arms, "fit", fit)
    found = run.chosen(tmp_path, "probe", rates, tiny=True)
    assert found["rate"] == pytest.approx(rate * best)
    assert run.APART ** found["power"] == pytest.approx(best)
    assert len(found["validation"]) == tried
    kin = run.chosen(tmp_path, "probe", 1, found["power"], tiny=True)
    assert (len(kin["validation"]), kin["power"]) == (1, found["power"])


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("r52", "probe"),
        # The same way for other data, in eight seconds.
        pytest.param("stamps", "LoRA r 4", marks=pytest.mark.slow),
    ],
)
def test_another_task_with_rates_that_are_carried_over(task, name, tmp_path):
    """The rate of other results comes first, and here is the only one."""
    rate = methods.settings(name, task=task, tiny=True)["optim"]["lr"]
    before = {"method": name, "rate": rate * 9, "validation": {"1": 0.5}}
    carried = tmp_path / "before.jsonl"
    carried.write_text(json.dumps(before) + "\n" + json.dumps({"difference": "x"}))
    root = tmp_path / "own"
    own = ["run", "--tiny", f"--task={task}", f"--method={name}", f"--carry={carried}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [*own, "--rates=1", "--shots", f"--workdir={root}"])
        assert run.main() == 0
    (line,) = map(json.loads, (root / "results.jsonl").read_text().splitlines())
    assert line["task"] == task
    assert line["rate"] == pytest.approx(rate * 9)
    assert list(line["validation"]) == [f"{rate * 9:.6g}"], "of another task"
    (kept,) = root.rglob("test.npz")
    with np.load(kept) as found:
        labels, said = found["label"], found["probabilities"]
    classes, right = said.shape[1], said.argmax(1)
    assert classes == (4 if task == "r52" else 10)
    assert line["accuracy"]["value"] == pytest.approx((right == labels).mean())
    known = dict(average="macro", labels=range(classes), zero_division=0)
    f1 = f1_score(labels, right, **known)
    assert line["f1"]["value"] == pytest.approx(f1)


def test_a_head_may_have_a_rate_of_its_own():
    found = methods.settings("full", task="r52", head=0.5, tiny=True)
    params = {"embed": jax.numpy.ones(3), "classify": {"bias": jax.numpy.ones(2)}}
    tx, _, _ = optim.make(params, 10, **found["optim"])
    moved, _ = tx.update(params, tx.init(params), params)
    ratio = 0.5 / found["optim"]["lr"]
    # Adam's first step is the rate, whatever the gradient; there may be some decay.
    assert moved["classify"]["bias"][0] / moved["embed"][0] == pytest.approx(
        ratio, rel=0.02
    )


def test_the_readme_has_the_head_s_own_rate_as_recorded():
    text = (FOLDER / "README.md").read_text("utf-8")
    text = text.split("\n### With a rate of the head's own\n")[1].split("\n## ")[0]
    one = (FOLDER / RECORDED["r52"]).read_text("utf-8").splitlines()
    own = (FOLDER / "results-r52-head.jsonl").read_text("utf-8").splitlines()
    before = {x["method"]: x for x in map(json.loads, one) if "trained" in x}
    for line in map(json.loads, own):
        if "trained" in line:
            old = before[line["method"]]
            span = "{value:.3f} [{low:.3f}, {high:.3f}]"
            (loss,) = line["validation"].values()
            cells = (
                line["method"],
                span.format(**old["accuracy"]),
                span.format(**line["accuracy"]),
                f"{line['accuracy_by_seed']['std']:.3f}",
                span.format(**line["f1"]),
                f"{min(old['validation'].values()):.3f}, {loss:.3f}",
            )
            assert f"| {' | '.join(cells)} |" in text
            assert line["rate"] == old["rate"]


TRAINED = {
    "top layer": r"^(classify|head|block17)/",
    "BitFit": r"^classify/|/norm/bias$",
    "adapter": r"^classify/|^block\d+/adapter_(down|up)/(kernel|bias)$",
    "AdaLoRA": r"^classify/|(expand|project|head)/conv/adalora_[peq]$",
}


@pytest.mark.parametrize("name", TRAINED)
def test_what_a_method_trains_of_a_convolutional_net(name):
    found = methods.settings(name, task="stamps")
    net = mobilenet.Model(classes=8, width=0.05, divisor=2, head=8)
    for transform, fields in found.get("transforms", {}).items():
        net = config.part("transforms", {"name": transform, **fields})(net)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    params = jax.eval_shape(net.init, jax.random.key(0), image)["params"]
    _, _, trainable = optim.make(params, 100, **found["optim"])
    learnt = dict(zip(trees.paths(params), jax.tree.leaves(trainable), strict=True))
    assert {path for path, on in learnt.items() if on} == {
        path for path in learnt if re.search(TRAINED[name], path)
    }
    assert 2 < sum(learnt.values()) < len(learnt)


@pytest.mark.parametrize("name", ["BitFit", "prompt"])
def test_frozen_parameters_keep_their_bits(name):
    """After steps with weight decay and clipping; what is trained moves."""
    found = methods.settings(name, tiny=True)
    found["batch_size"] = 8
    setup = train.prepare(DEFAULTS | found)
    state = setup.create(jax.random.key(0))
    first, taken = state.params, jax.jit(setup.step)
    for number in range(3):
        state, _ = taken(state, setup.train_set.at(number))
    pairs = zip(
        *map(jax.tree.leaves, (first, state.params, setup.trainable)), strict=True
    )
    moved = [(bool((a != b).any()), on) for a, b, on in pairs]
    assert not any(changed for changed, on in moved if not on)
    assert sum(changed for changed, on in moved if on) > sum(on for _, on in moved) / 2


DEFAULTS = {"parallel": {"devices": 1}, "accum": 1, "transforms": None}


FOLDER = pathlib.Path(runs.ROOT) / "experiments" / "peft"
RECORDED = {"sentiment": "results.jsonl", "r52": "results-r52.jsonl"}
RECORDED |= {"stamps": "results-stamps.jsonl"}


@pytest.mark.parametrize("task", methods.TASKS)
def test_the_readme_has_the_numbers_that_were_recorded(task):
    whole = (FOLDER / "README.md").read_text("utf-8")
    title = methods.TASKS[task].title
    text = whole.split(f"\n## {title}\n")[1].split("\n## ")[0]
    recorded = (FOLDER / RECORDED[task]).read_text("utf-8").splitlines()
    lines = [json.loads(line) for line in recorded]
    assert {x["method"] for x in lines if "trained" in x} == set(
        methods.TASKS[task].methods
    )
    for line in lines:
        assert line.get("task", "sentiment") == task
        if "difference" in line:
            span = "{value:+.3f} [{low:+.3f}, {high:+.3f}]".format(**line)
            assert f"| {line['difference']} | {span} |" in text
            continue
        span = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**line["accuracy"])
        row = next(x for x in text.splitlines() if x.startswith(f"| {line['method']} "))
        if "per_class" in line:  # a table of its own
            assert span in text, line["method"]
        else:
            assert span in row
            assert f" {line['seeds']} " in row
            assert f" {line['trained']:,} " in row
            for key in ("flops_ratio", "seconds_ratio", "peak_bytes_ratio"):
                assert f" {line[key]:.2f} " in row, (line["method"], key)
            if task != "sentiment":
                f1 = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**line["f1"])
                assert f1 in row
