"""Vision recipes at the papers' sizes: the numbers of the papers and their code."""

import jax
import jax.numpy as jnp
import pytest

from fmjax import config, optim, trees
from fmjax.models import clip, mobilenet
from tests.runs import ROOT

IMAGES = 1_281_167  # ImageNet's training images


def settings(name, variant=""):
    path = f"{ROOT}/configs/{name}.py"
    return config.load(f"{path}:{variant}" if variant else path)


def rate(c, steps):
    """Learning rate by step of a config's run."""
    keys = ("lr", "schedule", "final", "warmup")
    return optim.curve(steps, **{k: c["optim"][k] for k in keys if k in c["optim"]})


def test_mobilenet_is_the_authors_command():
    # tensorflow/models, research/slim/nets/mobilenet/README.md, NUM_GPUS = 8
    c = settings("mobilenet/imagenet", "1.0")
    steps = int(c["steps"].split()[0]) * IMAGES // c["batch_size"]
    assert steps == pytest.approx(700_000, rel=0.002)
    at = rate(c, steps)
    for falls in (0, 1, 80, 167):  # in the middle of each of their steps
        step = int((falls + 0.5) * 2.5 * IMAGES / c["batch_size"])
        assert at(step) == pytest.approx(8 * 0.045 * 0.98**falls, rel=0.02)
    kept = dict(b2=0.9, eps=1.0, momentum=0.9, weight_decay=4e-5, ema=0.9999)
    assert {key: c["optim"][key] for key in kept} == kept
    assert c["objective"]["label_smoothing"] == 0.1
    kept = dict(kernel_std=0.09, norm_momentum=0.997, norm_eps=1e-3)
    assert {key: c["model"][key] for key in kept} == kept


def test_mobilenet_decays_kernels_that_are_not_depthwise():
    c = settings("mobilenet/imagenet", "1.0")
    net = mobilenet.Model(classes=3, stages=((1, 8, 1, 1), (6, 8, 1, 1)), head=8)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    params = jax.tree.map(lambda x: jnp.ones(x.shape), shapes["params"])
    tx, _, _ = optim.make(params, 100, **c["optim"])
    still = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(still, tx.init(params), params)
    moved = zip(trees.paths(params), jax.tree.leaves(updates), strict=True)
    decayed = {path for path, update in moved if (update != 0).any()}
    kernels = {path for path in trees.paths(params) if path.endswith("kernel")}
    assert decayed == {path for path in kernels if "depthwise" not in path}
    assert len(kernels - decayed) == 2


def test_inception_is_the_paper_s_and_the_authors_code_s():
    # arXiv:1512.00567, section 8; tensorflow/models, inception
    c = settings("inception/imagenet")
    at = rate(c, 1000)
    for epoch in (2, 50, 98):
        assert at(10 * epoch) == pytest.approx(0.045 * 0.94 ** (epoch / 2), rel=0.005)
    kept = dict(b2=0.9, eps=1.0, momentum=0.9, weight_decay=4e-5, ema=0.9999, clip=2.0)
    assert {key: c["optim"][key] for key in kept} == kept
    kept = dict(kernel_std=0.1, norm_momentum=0.9997, dropout=0.2)
    assert {key: c["model"][key] for key in kept} == kept
    assert (c["objective"]["share"], c["objective"]["label_smoothing"]) == (0.4, 0.1)


def test_simclr_s_rate_is_linear_in_the_batch():
    # arXiv:2002.05709, section 2.2
    c = settings("simclr/imagenet")
    at = rate(c, 1000)
    assert max(at(step) for step in range(1000)) == pytest.approx(4.8)
    assert at(10) == pytest.approx(4.8)  # after 1 % of 1,000 epochs
    assert at(505) == pytest.approx(2.4)
    assert (c["optim"]["name"], c["optim"]["weight_decay"]) == ("lars", 1e-6)


@pytest.mark.parametrize("size", clip.SIZES)
def test_clip_s_rates(size):
    # arXiv:2103.00020, table 20
    rates = {"B/32": 5e-4, "B/16": 5e-4, "L/14": 4e-4, "L/14-336": 2e-5}
    c = settings("clip/pairs", size)
    assert c["optim"]["lr"] == rates[size]
    assert (c["optim"]["b2"], c["optim"]["eps"]) == (0.98, 1e-6)
    assert (c["optim"]["weight_decay"], c["batch_size"]) == (0.2, 32768)
