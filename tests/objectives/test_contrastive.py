"""Contrastive losses against plain statements of their equations, cut up and not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from fmjax import config, optim
from fmjax.objectives import clip, simclr, supervised_contrastive
from tests.runs import ROOT

RNG = np.random.default_rng(0)
B, E = 8, 5


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


ONE, TWO = unit(RNG.normal(size=(2, B, E)))
LABEL = np.array([0, 1, 2, 0, 1, 3, 3, 3])
MASK = np.array([1, 1, 1, 0, 1, 1, 1, 0], np.float32)
WHOLE = np.ones(B, np.float32)


def views(params, extras, inputs, key=None):
    return jnp.stack([inputs["view1"], inputs["view2"]]) * params["scale"], extras


def pair(params, extras, inputs, key=None):
    return {
        "image": inputs["view1"],
        "text": inputs["view2"],
        "scale": 7.0 * params["scale"],
    }, extras


def batch(mask=WHOLE, one=ONE, two=TWO):
    inputs = {"view1": one, "view2": two}
    return {"inputs": inputs, "label": LABEL, "mask": mask}


CASES = {
    "simclr": (functools.partial(simclr.objective, temperature=0.3), views),
    "supervised_contrastive": (
        functools.partial(supervised_contrastive.objective, temperature=0.3),
        views,
    ),
    "clip": (clip.objective, pair),
}


def nt_xent(z, temperature):
    """Equation 1 of Chen et al. 2020, one pair (i, j) at a time; z: 2N rows."""
    number, total = len(z) // 2, []
    for i in range(2 * number):
        j = (i + number) % (2 * number)
        s = [z[i] @ z[k] / temperature for k in range(2 * number) if k != i]
        total.append(-(z[i] @ z[j] / temperature) + logsumexp(s))
    return total


def sup_con(z, label, temperature):
    """Equation 2 of Khosla et al. 2020."""
    total = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        positive = [p for p in others if label[p] == label[i]]
        below = logsumexp([z[i] @ z[a] / temperature for a in others])
        total.append(-np.mean([z[i] @ z[p] / temperature - below for p in positive]))
    return total


def both_ways(image, text, scale):
    """Figure 3 of Radford et al. 2021."""
    logits = scale * image @ text.T
    diagonal = np.diag(logits)
    rows = logsumexp(logits, axis=1) - diagonal
    columns = logsumexp(logits, axis=0) - diagonal
    return (rows + columns) / 2


def expected(name, mask):
    real = mask > 0
    one, two = ONE[real].astype(float), TWO[real].astype(float)
    z = np.concatenate([one, two])
    if name == "simclr":
        return np.sum(nt_xent(z, 0.3)), 2 * real.sum()
    if name == "clip":
        return both_ways(one, two, 7.0).sum(), real.sum()
    return np.sum(sup_con(z, np.tile(LABEL[real], 2), 0.3)), 2 * real.sum()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mask", [WHOLE, MASK], ids=["whole", "padded"])
def test_equals_the_equation(name, mask):
    objective, apply = CASES[name]
    losses, metrics, _ = objective(apply, {"scale": 1.0}, {}, batch(mask), None)
    total, weight = expected(name, mask)
    assert set(losses) == {name}
    assert float(losses[name][0]) == pytest.approx(total, rel=1e-5)
    assert float(losses[name][1]) == weight
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(metrics))


@pytest.mark.parametrize("name", CASES)
def test_padding_has_no_say_and_no_gradient(name):
    objective, apply = CASES[name]

    def loss(one):
        losses, _, _ = objective(apply, {"scale": 1.0}, {}, batch(MASK, one), None)
        return losses[name][0]

    other = np.where(MASK[:, None] > 0, ONE, unit(RNG.normal(size=(B, E))))
    assert float(loss(ONE)) == pytest.approx(float(loss(other)), rel=1e-6)
    grads = np.asarray(jax.grad(loss)(jnp.asarray(ONE)))
    assert np.isfinite(grads).all()
    np.testing.assert_array_equal(grads[MASK == 0], 0)
    assert (np.abs(grads[MASK > 0]).max(1) > 1e-4).all()


@pytest.mark.parametrize("name", CASES)
def test_devices_gather_and_give_the_whole_batch_s_loss_and_gradient(name):
    objective, apply = CASES[name]

    def loss(params, given, axis=None):
        # A net with a parameter in front of each view, so that gradients go through
        # what was gathered.
        given = given | {
            "inputs": jax.tree.map(lambda x: x @ params["map"], given["inputs"])
        }
        losses, _, _ = objective(apply, params, {}, given, None, axis=axis)
        return losses[name][0]

    params = {"scale": jnp.ones(()), "map": jnp.asarray(RNG.normal(size=(E, E)))}
    want, want_grad = jax.value_and_grad(loss)(params, batch(MASK))

    @functools.partial(jax.pmap, axis_name="data", in_axes=(None, 0))
    def cut(params, given):
        value, grads = jax.value_and_grad(loss)(params, given, "data")
        return jax.lax.psum((value, grads), "data")

    shards = jax.tree.map(lambda x: x.reshape(4, -1, *x.shape[1:]), batch(MASK))
    got, got_grad = jax.tree.map(lambda x: x[0], cut(params, shards))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for leaf, other in zip(*map(jax.tree.leaves, (got_grad, want_grad)), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=2e-4, atol=1e-5)


def test_with_one_image_a_class_supervision_adds_nothing():
    apart = batch() | {"label": np.arange(B)}
    plain, _, _ = CASES["simclr"][0](views, {"scale": 1.0}, {}, apart, None)
    own, _, _ = CASES["supervised_contrastive"][0](
        views, {"scale": 1.0}, {}, apart, None
    )
    value = own["supervised_contrastive"][0]
    assert float(value) == pytest.approx(float(plain["simclr"][0]), rel=1e-6)


def test_accuracy_is_of_partners_found():
    same = batch(two=ONE)
    for name, (objective, apply) in CASES.items():
        _, metrics, _ = objective(apply, {"scale": 1.0}, {}, same, None)
        for key in ("accuracy", "image_to_text", "text_to_image"):
            if key in metrics:
                assert metrics[key][0] == metrics[key][1], (name, key)
    swapped = batch(two=np.roll(ONE, 1, axis=0))
    _, metrics, _ = clip.objective(pair, {"scale": 1.0}, {}, swapped, None)
    assert metrics["image_to_text"][0] == 0
    assert float(metrics["scale"][0] / metrics["scale"][1]) == pytest.approx(7)


def test_a_temperature_that_is_none_is_named():
    with pytest.raises(ValueError, match="temperature=0 must be positive"):
        simclr.objective(views, {"scale": 1.0}, {}, batch(), None, temperature=0)


def test_microbatches_are_refused_by_the_step():
    import optax

    from fmjax import step

    tx = optax.sgd(0.1)
    state = step.create(
        lambda key: {"params": {"scale": jnp.ones(())}}, tx, jax.random.key(0)
    )
    run = functools.partial(
        step.train_step, apply=views, objective=simclr.objective, tx=tx
    )
    with pytest.raises(ValueError, match=r"accum=2 would compare .* set accum=1"):
        run(state, batch(), accum=2)
    new, sums = run(state, batch())
    assert new.params["scale"] != 1
    assert float(sums["losses"]["simclr"][1]) == 2 * B


def test_the_paper_s_recipe_does_not_decay_the_temperature():
    settings = config.load(f"{ROOT / 'configs/clip/pairs.py'}:B/32")["optim"]
    params = {"logit_scale": jnp.ones(()), "text": {"kernel": jnp.ones((2, 2))}}
    tx, _, _ = optim.make(params, 4000, **settings)
    updates, _ = tx.update(
        jax.tree.map(jnp.zeros_like, params), tx.init(params), params
    )
    assert float(updates["logit_scale"]) == 0
    assert float(updates["text"]["kernel"].max()) < 0
