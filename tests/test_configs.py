"""Every config builds at full size with nothing allocated, and trains as ':tiny'."""

import json
import math

import jax
import pytest

from fmjax import config, evaluate, predict, train
from tests import runs

# Config -> every other variant, at the size it is meant for.
VARIANTS = {
    "configs/bert/pretrain.py": ("", "base", "large"),
    "configs/bert/sentiment.py": ("", "scratch", "minilm"),
    "configs/cnn/fashion_mnist.py": ("classic", "two", "two-dense"),
    "configs/cnn/mnist.py": ("classic", "two", "two-dense"),
}


def test_every_config_is_listed():
    assert sorted(VARIANTS) == runs.CONFIGS


@pytest.mark.parametrize(
    ("name", "variant"), [(n, v) for n, variants in VARIANTS.items() for v in variants]
)
def test_builds_abstractly_at_full_size(name, variant):
    # The data and words are stand-ins that need no network; the rest is as published.
    settings = config.load(
        f"{runs.ROOT / name}:{variant}" if variant else f"{runs.ROOT / name}"
    )
    if "bert" in name:
        corpus = {"name": "synthetic_text", "size": 64}
        settings["tokenizer"] = {"corpus": corpus, "vocab_size": 128}
        settings["model"]["vocab_size"] = 30522
        data = settings["data"]
        settings["data"] = (
            data | {"corpus": corpus, "copies": 1} if "corpus" in data else corpus
        )
    else:
        settings["data"] = {
            "name": "synthetic_images",
            "shape": (28, 28, 1),
            "size": 64,
        }
    defaults = dict(tokenizer=None, accum=1, parallel=None, seed=0)
    setup = train.prepare(defaults | settings)
    leaves = jax.tree.leaves(setup.state)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    new, sums = jax.eval_shape(setup.step, setup.state, setup.sample)
    assert jax.tree.map(lambda x: x.shape, new) == jax.tree.map(
        lambda x: x.shape, setup.state
    )
    assert "loss" not in sums["losses"]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(setup.state.params))
    published = {  # https://arxiv.org/abs/1810.04805: 110M and 340M
        ("configs/bert/pretrain.py", "base"): 110_106_428,
        ("configs/bert/pretrain.py", "large"): 336_226_108,
    }
    assert count == published.get((name, variant), count)
    assert count > 30_000


@pytest.mark.parametrize("name", runs.CONFIGS)
def test_tiny_trains_evaluates_and_predicts(tmp_path, name, capsys):
    flags = ["--config", f"{runs.ROOT / name}:tiny", "--workdir", str(tmp_path)]
    assert train.main(flags) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "done"
    result = evaluate.evaluate(tmp_path, splits=("validation",))["validation"]
    assert result["count"] > 0
    assert math.isfinite(result["loss"])
    settings = json.loads((tmp_path / "config.json").read_text())["config"]
    if settings["objective"]["name"] == "classify":
        from fmjax import workdir

        rows = workdir.open_run(tmp_path).parts.data("test").rows
        said = predict.predict(tmp_path, [rows[i] for i in range(3)])
        assert len(said) == 3
        for one in said:
            assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-5)
            assert one["probability"] == max(one["probabilities"].values())


@pytest.mark.parametrize("name", runs.CONFIGS)
def test_dry_run_shows_the_costs_and_writes_nothing(tmp_path, name, capsys):
    flags = ["--config", f"{runs.ROOT / name}:tiny", "--dry_run"]
    assert train.main([*flags, "--workdir", str(tmp_path / "no")]) == 0
    text = capsys.readouterr().out
    numbers = json.loads(text[text.index("\n{") :])
    assert numbers["flops_per_device"] > 0
    assert numbers["argument_bytes_per_device"] > 0
    assert "sharding" in text
    assert "kernel" in text
    assert not (tmp_path / "no").exists()
