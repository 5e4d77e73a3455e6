"""Every config builds at full size with nothing allocated, and trains as ':tiny'."""

import json
import math

import jax
import pytest

from fmjax import config, evaluate, predict, train
from fmjax.models import clip, gpt, mae, mobilenet, resnet, t5, vit
from tests import runs

# Config -> every other variant, at the size it is meant for.
VARIANTS = {
    "configs/alexnet/imagenet.py": ("",),
    "configs/bert/boolq.py": ("",),
    "configs/bert/choices.py": ("",),
    "configs/bert/multitask.py": ("",),
    "configs/bert/peft.py": ("full", "lora", "prompt"),
    "configs/bert/pretrain.py": ("", "adapt", "base", "large"),
    "configs/bert/questions.py": ("",),
    "configs/bert/sentiment.py": ("", "scratch", "minilm"),
    "configs/bert/similarity.py": ("",),
    "configs/bert/tagging.py": ("",),
    "configs/bert/topics.py": ("r8", "r52", "20newsgroups"),
    "configs/clip/pairs.py": ("emoji", *clip.SIZES),
    "configs/cnn/fashion_mnist.py": ("classic", "two", "two-dense", "augmented"),
    "configs/cnn/mnist.py": ("classic", "two", "two-dense"),
    "configs/gpt/language_model.py": ("", "chinese", *gpt.SIZES),
    "configs/inception/fashion_mnist.py": ("", "full"),
    "configs/inception/imagenet.py": ("",),
    "configs/mae/fashion_mnist.py": ("",),
    "configs/mae/imagenet.py": (*mae.SIZES,),
    "configs/mobilenet/imagenet.py": (*mobilenet.SIZES,),
    "configs/mobilenet/stamps.py": ("full", "scratch"),
    "configs/resnet/fashion_mnist.py": (
        *("10", "20", "plain-20", "56", "plain-56", "110"),
    ),
    "configs/resnet/imagenet.py": (*resnet.LARGE,),
    "configs/simclr/fashion_mnist.py": ("",),
    "configs/simclr/imagenet.py": ("", "supervised"),
    "configs/t5/boolq.py": ("", "scratch"),
    "configs/t5/pretrain.py": ("", *t5.SIZES),
    "configs/transformer/translation.py": ("", "base", "big"),
    "configs/unet/segment.py": ("", "paper"),
    "configs/vit/fashion_mnist.py": ("", "small"),
    "configs/vit/imagenet.py": (*vit.SIZES,),
}
TASKS = {"tagging": "tags", "similarity": "pairs", "choices": "choices"}
TASKS |= {"questions": "questions", "translation": "translation"}

# Parameters, as published; for those of T5 see tests/models/test_language_models.py.
PUBLISHED = {
    # https://arxiv.org/abs/1810.04805: 110M and 340M
    ("configs/bert/pretrain.py", "base"): 110_106_428,
    ("configs/bert/pretrain.py", "large"): 336_226_108,
    # The released GPT-2: 124M, 355M, 774M, 1.5B; https://arxiv.org/abs/2005.14165
    ("configs/gpt/language_model.py", "gpt2"): 124_439_808,
    ("configs/gpt/language_model.py", "gpt2-medium"): 354_823_168,
    ("configs/gpt/language_model.py", "gpt2-large"): 774_030_080,
    ("configs/gpt/language_model.py", "gpt2-xl"): 1_557_611_200,
    ("configs/gpt/language_model.py", "gpt3-175b"): 174_604_259_328,
    # torchvision's
    ("configs/alexnet/imagenet.py", ""): 61_100_840,
    ("configs/inception/imagenet.py", ""): 27_161_264,
    ("configs/mobilenet/imagenet.py", "1.0"): 3_504_872,
    # https://arxiv.org/abs/1611.03530, table 1, for colour, without our norms' scales
    ("configs/inception/fashion_mnist.py", "full"): 1_649_402 + 1_712 - 2 * 9 * 96,
    ("configs/resnet/imagenet.py", "50"): 25_557_032,
    # by hand for colour (tests/models/test_convnets.py); grey has less in the stem
    ("configs/resnet/fashion_mnist.py", "20"): 269_722 - 2 * 9 * 16,
    ("configs/resnet/fashion_mnist.py", "plain-20"): 269_722 - 2 * 9 * 16,
    # https://arxiv.org/abs/2103.00020, the released files
    ("configs/clip/pairs.py", "B/32"): 151_277_313,
    # https://arxiv.org/abs/2205.01580: 22M; no class token, 1,000 classes
    ("configs/vit/imagenet.py", "S/16"): 22_050_664 - 198 * 384,
    # transformers' count less its fixed positions
    ("configs/mae/imagenet.py", "B/16"): 111_907_840 - 197 * (768 + 512),
    # the paper's is for grey images and two classes; these are of colour, and five
    ("configs/unet/segment.py", "paper"): 31_030_658 + 2 * 9 * 64 + 3 * 65,
}


def test_every_config_is_listed():
    assert sorted(VARIANTS) == runs.CONFIGS


# A recipe that many sizes share is built for the others with `-m slow` (minutes); the
# parameters of every size are counted in tests/models.
SIZES = {"gpt": gpt.SIZES, "t5": t5.SIZES, "vit": vit.SIZES, "mae": mae.SIZES}
SIZES |= {"clip": clip.SIZES, "simclr": ("supervised",)}
SIZES |= {"mobilenet": mobilenet.SIZES, "resnet": (*resnet.SIZES, "plain-56")}
QUICK = {"gpt": ("gpt2", "gpt3-small"), "t5": ("small", "1.1-small")}
QUICK |= {"vit": ("S/16",), "mae": ("B/16",), "clip": ("B/32",), "simclr": ()}
QUICK |= {"mobilenet": ("1.0",), "resnet": ("50", "20", "plain-20")}
# Of tasks on the same MiniLM, and of images on the same net, one stands for all.
SIZES |= {"bert": ("full", "lora", "r52", "20newsgroups"), "cnn": ("classic", "two")}
QUICK |= {"bert": (), "cnn": ("two",)}


def builds():
    for name, variants in VARIANTS.items():
        family = name.split("/")[1]
        for variant in variants:
            several = variant in SIZES.get(family, {})
            slow = several and variant not in QUICK[family]
            yield pytest.param(name, variant, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(("name", "variant"), [*builds()])
def test_builds_abstractly_at_full_size(name, variant):
    # The data and words are stand-ins that need no network; the rest is as published.
    settings = config.load(
        f"{runs.ROOT / name}:{variant}" if variant else f"{runs.ROOT / name}"
    )
    if "tokenizer" in settings:
        task = TASKS.get(name.split("/")[-1].removesuffix(".py"))
        corpus = {"name": "synthetic_tasks" if task else "synthetic_text", "size": 64}
        corpus |= {"task": task} if task else {}
        kept = {
            k: v for k, v in settings["tokenizer"].items() if k in ("kind", "cased")
        }
        settings["tokenizer"] = kept | {"corpus": corpus, "vocab_size": 300}
        vocabulary = {"bert": 30522, "gpt": 50257, "t5": 32128, "transformer": 37000}
        vocabulary |= {"clip": 49408}
        settings["model"]["vocab_size"] = vocabulary[settings["model"]["name"]]
        data = dict(settings["data"])
        copies = {"copies": 1} if "copies" in data else {}
        settings["data"] = (
            data | {"corpus": corpus} | copies if "corpus" in data else corpus
        )
        if data["name"] == "mixture":
            tagged = {"name": "synthetic_tasks", "task": "tags", "size": 64}
            mixed = dict.fromkeys(data["tasks"], corpus) | {"tags": tagged}
            settings["data"] = data | {"tasks": mixed}
        if settings["model"]["name"] == "clip":
            settings["data"] = {"name": "synthetic_scenes", "size": 8}
    elif settings["objective"]["name"] == "segment":
        shape = (572, 572, 3) if variant == "paper" else (96, 96, 3)
        settings["data"] = {"name": "synthetic_scenes", "size": 4, "shape": shape}
    else:
        ours = "size" in settings["inputs"]  # which brings all images to its size
        settings["data"] = {
            "name": "synthetic_images",
            "shape": (32, 32, 3) if ours else (28, 28, 1),
            "size": 64,
            "classes": 1000 if ours else 10,
        }
    if name == "configs/t5/boolq.py":
        settings["inputs"]["source"] = "mood: {text}"
    if "steps" in str(settings["optim"].get("warmup")):
        settings["steps"] = "100000 steps"  # room for the warm-up
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
    assert count == PUBLISHED.get((name, variant), count)
    assert count > 30_000


# Kin of another, with the same net (Inception's blocks differ), inputs and objective on
# other data; or, like adaptation, T5's questions, pairs and translation, trained end to
# end by their experiment's own test.
KIN = {
    "configs/bert/boolq.py",
    "configs/bert/peft.py",
    "configs/bert/topics.py",
    "configs/clip/pairs.py",
    "configs/inception/imagenet.py",
    "configs/mae/fashion_mnist.py",
    "configs/mobilenet/imagenet.py",
    "configs/resnet/fashion_mnist.py",
    "configs/simclr/imagenet.py",
    "configs/t5/boolq.py",
    "configs/transformer/translation.py",
    "configs/vit/fashion_mnist.py",
}


def test_kin_are_configs():
    assert set(runs.CONFIGS) >= KIN


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(x, marks=[pytest.mark.slow] if x in KIN else [])
        for x in runs.CONFIGS
    ],
)
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


# One of each family, as what is shown is the same for all; the others with `-m slow`.
FAMILIES = {name.split("/")[1]: name for name in runs.CONFIGS}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(x, marks=[] if x in FAMILIES.values() else [pytest.mark.slow])
        for x in runs.CONFIGS
    ],
)
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
