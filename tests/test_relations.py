"""The same losses however a run is laid out, cut up, stopped or moved.

{jit, pmap} x {1, 8 devices} x {accumulation 1, 4} x {replicate, fsdp} x {straight,
resumed, resumed on 2 devices}: within 1e-6 of one device; bitwise where the path is the
same. Dropout is off: two ways of cutting a batch up draw different masks (see
`fmjax.step.train_step`); with it on, resuming is still bitwise.
"""

import functools
import itertools
import shutil

import numpy as np
import pytest

from fmjax import config, evaluate, report
from tests import runs

LAYOUTS = [
    (how, devices, accum, params)
    for how, devices, accum, params in itertools.product(
        ("jit", "pmap"), (1, 8), (1, 4), ("replicate", "fsdp")
    )
    if (how, params) != ("pmap", "fsdp")  # pmap keeps whole copies: refused at start
]
NAMES = {
    "bert_pretrain": "configs/bert/pretrain.py",
    "bert_sentiment": "configs/bert/sentiment.py",
    "cnn": "configs/cnn/fashion_mnist.py",
    "clip": "configs/clip/pairs.py",
    "gpt": "configs/gpt/language_model.py",
    "mae": "configs/mae/imagenet.py",
    "resnet": "configs/resnet/fashion_mnist.py",
    "simclr": "configs/simclr/imagenet.py",
    "t5": "configs/t5/pretrain.py",
    "translation": "configs/transformer/translation.py",
}
# The hardest of them, of which each has three settings at once.
HARDEST = [("jit", 8, 4, "fsdp"), ("pmap", 8, 4, "replicate")]
# Of kin the one has jit and the other pmap; what is left over is run with `-m slow`.
KIN = {("gpt", "jit"), ("translation", "jit"), ("mae", "pmap"), ("t5", "pmap")}
KIN |= {("clip", "jit"), ("simclr", "pmap")}
KIN |= {("translation", "pmap")}  # T5 is an encoder and a decoder too
# All layouts for a small model; the hardest for the others, which go on where they were
# after jit, and on 2 devices after pmap.
WHOLE = "cnn"
CASES = [
    *itertools.product((WHOLE,), LAYOUTS),
    *itertools.product(("bert_pretrain", "gpt", "mae", "t5", "translation"), HARDEST),
    # Losses over all rows of a batch, which accumulation would cut: two towers, and
    # batch statistics besides.
    *itertools.product(
        ("clip", "resnet", "simclr"),
        [("jit", 8, 1, "fsdp"), ("pmap", 8, 1, "replicate")],
    ),
]
STEPS = 6


def settings(model: str) -> dict:
    # A batch of 32 gives 8 devices x 4 microbatches a row each.
    less = {} if model in ("cnn", "resnet", "simclr") else {"model__depth": 1}
    if model == "translation":
        # With the paper's 1e-9, Adam takes whole steps along what is mere rounding.
        less["optim__eps"] = 1e-6
    if model == "simclr":
        # Sharp softmaxes and long steps multiply what is mere rounding.
        less |= {"objective__temperature": 0.5, "optim__lr": 0.1}
    less["checkpoint__every"] = "100%"
    return runs.tiny(NAMES[model], steps=STEPS, batch_size=32, **less)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    @functools.cache
    def losses(model):
        workdir = tmp_path_factory.mktemp(model)
        runs.run(workdir, settings(model), parallel={"devices": 1})
        found = np.array(runs.losses(workdir)), runs.losses(workdir, "validation/loss")
        assert len(found[0]) == STEPS
        assert found[0][0] != found[0][-1], "nothing was learnt: the test is void"
        return found

    return losses


@pytest.mark.parametrize(
    ("model", "layout"),
    [
        pytest.param(*case, marks=[pytest.mark.slow] * ((case[0], case[1][0]) in KIN))
        for case in CASES
    ],
)
def test_layouts_and_resumption(tmp_path, reference, model, layout):
    how, devices, accum, params = layout
    given = settings(model)
    laid = dict(
        parallel={"how": how, "devices": devices, "params": params}, accum=accum
    )
    straight, stopped, moved = (tmp_path / name for name in ("a", "b", "c"))
    first = runs.run(stopped, given, stop_at=3, **laid)
    assert (first["status"], first["step"]) == ("stopped", 3)
    done = []
    if model == WHOLE:
        runs.run(straight, given, **laid)
        done.append(straight)
    if how == "pmap" or model == WHOLE:
        shutil.copytree(stopped, moved)
        runs.run(moved, given, parallel={"devices": 2})
        done.append(moved)
    if how == "jit" or model == WHOLE:
        runs.run(stopped, given, **laid)
        done.append(stopped)

    want, want_validation = reference(model)
    for workdir in done:
        np.testing.assert_allclose(runs.losses(workdir), want, rtol=1e-6)
        steps = [x["step"] for x in report.read(workdir) if "lr" in x]
        assert steps == list(range(1, STEPS + 1))
        validation = runs.losses(workdir, "validation/loss")
        np.testing.assert_allclose(validation, want_validation, rtol=1e-6)
    if model == WHOLE:
        np.testing.assert_array_equal(runs.losses(stopped), runs.losses(straight))


@pytest.mark.parametrize("model", ["clip", "resnet", "simclr"])
def test_what_accumulation_would_change_is_refused_at_start(tmp_path, model):
    with pytest.raises(config.ConfigError, match=r"accum=4 would .*set accum=1"):
        runs.run(tmp_path / "run", settings(model), accum=4)
    assert not (tmp_path / "run").exists()


def numbers(workdir):
    """What training and evaluation found, without times."""
    return [
        {k: v for k, v in x.items() if k.startswith(("train/", "validation/"))}
        for x in report.read(workdir)
    ]


@pytest.fixture(scope="module")
def with_dropout(tmp_path_factory):
    """(settings, a run of them)"""
    given = runs.tiny(
        NAMES["bert_sentiment"],
        steps=STEPS,
        model__depth=1,
        model__dropout=0.2,
        model__attention_dropout=0.1,
        optim__ema=0.9,
        evaluate__every=2,
    )
    folder = tmp_path_factory.mktemp("dropout")
    runs.run(folder, given)
    return given, folder


@pytest.mark.parametrize("stop_at", [1, 5])
def test_resume_is_bitwise_with_dropout_and_ema(tmp_path, with_dropout, stop_at):
    given, straight = with_dropout
    runs.run(tmp_path, given, stop_at=stop_at)
    runs.run(tmp_path, given)
    assert numbers(tmp_path) == numbers(straight)
    assert len(numbers(straight)) >= STEPS


def test_dropout_does_not_depend_on_the_number_of_devices(tmp_path):
    small = dict(model__depth=1, model__dropout=0.2)
    given = runs.tiny(NAMES["bert_sentiment"], steps=3, **small)
    for devices in (1, 8):
        runs.run(tmp_path / str(devices), given, parallel={"devices": devices})
    np.testing.assert_allclose(
        runs.losses(tmp_path / "1"), runs.losses(tmp_path / "8"), rtol=1e-6
    )


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_evaluation_of_1003_examples_counts_1003(tmp_path, devices):
    given = runs.tiny(NAMES["cnn"], steps=1)
    given["data"]["size"] = 1003
    given["evaluate"] = None
    runs.run(tmp_path, given, parallel={"devices": devices})
    found = evaluate.evaluate(tmp_path, splits=("train",))["train"]
    assert found["count"] == 1003
    assert found["classification"]["count"] == 1003
    # The sums and the metric over predictions are two paths to the same number.
    assert found["accuracy"] == pytest.approx(found["classification"]["accuracy"])
    assert found["loss"] == pytest.approx(found["classification"]["nll"], rel=1e-5)


def test_bfloat16_computes_with_float32_parameters(tmp_path):
    given = runs.tiny(NAMES["bert_pretrain"], steps=STEPS, model__depth=1)
    runs.run(tmp_path / "f32", given)
    given["model"]["dtype"] = "bfloat16"
    runs.run(tmp_path / "bf16", given)
    from fmjax import checkpoint

    params = checkpoint.weights(tmp_path / "bf16")["params"]
    kinds = {str(leaf.dtype) for leaf in jax_leaves(params)}
    assert kinds == {"float32"}
    exact, half = runs.losses(tmp_path / "f32"), runs.losses(tmp_path / "bf16")
    assert exact != half
    np.testing.assert_allclose(half, exact, rtol=0.02)


def jax_leaves(tree):
    import jax

    return jax.tree.leaves(tree)


def test_another_config_on_a_workdir_is_refused(tmp_path):
    given = runs.tiny(NAMES["cnn"], steps=4)
    runs.run(tmp_path, given, stop_at=2)
    with pytest.raises(config.ConfigError, match=r"optim\.lr: 0\.001 there, 0\.1 now"):
        runs.run(tmp_path, given | {"optim": given["optim"] | {"lr": 0.1}})


def test_early_stopping_keeps_the_best_weights(tmp_path):
    given = runs.tiny(
        NAMES["cnn"],
        steps=40,
        optim__lr=3.0,  # diverges at once: the first evaluation stays the best
        evaluate__every=2,
        evaluate__patience=2,
    )
    result = runs.run(tmp_path, given)
    validation = runs.losses(tmp_path, "validation/loss")
    values = [np.inf if v is None else v for v in validation]
    best = int(np.argmin(values))
    assert result["status"] == "done"
    assert len(values) == best + 3, "two evaluations without a better one end the run"
    assert result["step"] == 2 * len(values) < 40
    assert result["best_step"] == 2 * (best + 1)
    found = evaluate.evaluate(tmp_path, splits=("validation",))["validation"]
    assert found["loss"] == pytest.approx(result["best"], rel=1e-6)
