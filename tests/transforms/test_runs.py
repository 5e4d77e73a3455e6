"""Whole runs that train an adapter: what they save, cost, and go on from."""

import json

import jax
import pytest

from configs.bert import peft
from fmjax import checkpoint, config, evaluate, optim, train, trees
from tests import runs

NAME = "configs/bert/peft.py"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    settings = runs.tiny("configs/bert/sentiment.py", steps=2, batch_size=32)
    runs.run(folder, settings, parallel={"devices": 1})
    return folder


def settings(base, **more):
    found = runs.tiny(NAME, steps=6, batch_size=32, **more)
    found["init_from"] = {"path": str(base), "missing": "lora_"}
    return found


@pytest.fixture(scope="module")
def straight(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    runs.run(folder, settings(base), parallel={"devices": 1})
    return folder


def leaves(folder):
    params = checkpoint.weights(folder)["params"]
    return dict(zip(trees.paths(params), jax.tree.leaves(params), strict=True))


def test_what_is_trained_alone_is_saved(straight):
    saved = leaves(straight)
    assert saved
    assert all("lora_" in path or "classify" in path for path in saved)


def test_layouts_and_resumption_change_no_loss(base, straight, tmp_path):
    once = settings(base)
    runs.run(tmp_path, once, stop_at=3, parallel={"devices": 8, "how": "pmap"})
    fsdp = {"devices": 8, "params": "fsdp"}
    runs.run(tmp_path, once, parallel=fsdp, accum=2)
    assert runs.losses(tmp_path) == pytest.approx(runs.losses(straight), abs=1e-6)
    a, b = (
        evaluate.evaluate(folder)["test"]["loss"] for folder in (tmp_path, straight)
    )
    assert a == pytest.approx(b, abs=1e-6)


def test_other_frozen_parameters_are_refused(base, straight, tmp_path):
    other = tmp_path / "other"
    runs.run(
        other,
        runs.tiny("configs/bert/sentiment.py", steps=1, batch_size=32, seed=1),
        parallel={"devices": 1},
    )
    record = json.loads((straight / "config.json").read_text())
    record["config"]["init_from"]["path"] = str(other)
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("best", "frozen.json", "tokenizer.json"):
        (moved / name).symlink_to(straight / name)
    (moved / "config.json").write_text(json.dumps(record))
    with pytest.raises(config.ConfigError, match="trained on other frozen parameters"):
        evaluate.evaluate(moved)


def test_frozen_parameters_cost_neither_memory_nor_work(base, capsys):
    """From the compiled step: FLOPs, and bytes of the optimizer's state."""

    def measured(**optim_settings):
        found = settings(base)
        found["transforms"], found["checkpoint"] = {}, {"every": "6 steps"}
        found["init_from"] = None
        found["optim"] |= {"train": None} | optim_settings
        made = train.prepare(
            {**DEFAULTS, **found, "parallel": {"devices": 1}},
        )
        cost = train.train(
            "unused", **found | {"parallel": {"devices": 1}}, dry_run=True
        )
        capsys.readouterr()
        state = sum(x.size for x in jax.tree.leaves(made.state.opt_state))
        weights = sum(x.size for x in jax.tree.leaves(made.state.params))
        return state / weights, cost["flops_per_device"]

    full, full_flops = measured()
    probe, probe_flops = measured(train="classify")
    assert full > 1.99, "Adam keeps two numbers a parameter"
    assert probe < 0.02
    # Forward is a third of forward and backward; what is left is the weights' pass.
    assert probe_flops < 0.55 * full_flops


DEFAULTS = dict(
    tokenizer=None, transforms=None, accum=1, evaluate=None, checkpoint=None,
    parallel=None, log=None, init_from=None, seed=0,
)  # fmt: skip


def test_trained_only_needs_something_frozen(base):
    wrong = settings(base, optim__train="none")
    with pytest.raises(config.ConfigError, match="every parameter is trained"):
        train.train("unused", **wrong, dry_run=True)


@pytest.mark.parametrize("method", peft.METHODS)
def test_every_method_is_bound_at_full_size(method):
    """MiniLM's shapes: what the config trains is there, and is what it says."""
    found = config.load(f"{runs.ROOT / NAME}:{method}")
    module = config.find("model", "bert")
    fields = module.SIZES["minilm-l6"] | {"head": "classify", "classes": 2}
    net = module.Model(**fields)
    for name, spec in found["transforms"].items():
        net = config.part("transforms", {"name": name, **spec})(net)
    inputs = {"tokens": jax.numpy.zeros((1, 8), int)}
    params = jax.eval_shape(net.init, jax.random.key(0), inputs)["params"]
    _, _, trainable = optim.make(params, 100, **found["optim"])
    if method == "full":
        assert trainable is None
        return
    counts = [
        (leaf.size, on)
        for leaf, on in zip(
            jax.tree.leaves(params), jax.tree.leaves(trainable), strict=True
        )
    ]
    share = sum(n for n, on in counts if on) / sum(n for n, _ in counts)
    assert 0 < share < (0.1 if method == "top" else 0.03)


def test_a_run_of_an_adapter_alone_is_no_whole_net_to_begin_with(straight, tmp_path):
    found = runs.tiny("configs/bert/sentiment.py", steps=1)
    found["init_from"] = {"path": str(straight)}
    with pytest.raises(config.ConfigError, match="holds what it trained alone"):
        runs.run(tmp_path, found, parallel={"devices": 1})
