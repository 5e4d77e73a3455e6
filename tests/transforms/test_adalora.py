"""AdaLoRA's budget: ranks that really change, as the schedule and importance say."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmjax import optim
from fmjax.config import ConfigError
from fmjax.transforms import adalora
from tests.transforms.test_transforms import NETS

TOTAL, SCHEDULE = 40, dict(rank=1.5, start=8, finish=8, every=4)


@pytest.fixture(scope="module")
def history():
    """(ranks after each step, parameters before and after), of a short training."""
    net = adalora.transform(NETS["bert"], rank=4)
    tokens = jax.random.randint(jax.random.key(3), (32, 7), 0, 31)
    label = tokens[:, 0] % 3
    first = net.init(jax.random.key(0), {"tokens": tokens})["params"]
    tx, _, trainable = optim.make(
        first, TOTAL, lr=1e-2, train="adalora|classify", adalora=SCHEDULE
    )

    @jax.jit
    def step(params, state):
        def loss(params):
            logits = net.apply({"params": params}, {"tokens": tokens})
            one = optax.softmax_cross_entropy_with_integer_labels
            return one(logits, label).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    params, state, ranks, losses = first, tx.init(first), [], []
    for _ in range(TOTAL):
        params, state, value = step(params, state)
        ranks.append(adalora.ranks(params))
        losses.append(float(value))
    return dict(ranks=ranks, losses=losses, first=first, last=params, on=trainable)


def test_the_number_of_ranks_follows_the_cubic(history):
    sums = np.array([sum(r.values()) for r in history["ranks"]])
    maps = len(history["ranks"][0])
    begin, end = 4 * maps, round(1.5 * maps)
    for step in range(1, TOTAL + 1):
        due = (step % 4 == 0 and 8 < step < 32) or step == 32
        if step <= 8:
            assert sums[step - 1] == begin
        elif due:
            left = 1 - (step - 8) / 24
            assert sums[step - 1] == round(end + (begin - end) * left**3)
    assert (sums[31:] == end).all(), "after the last pruning none grows back"


def test_maps_end_with_unlike_ranks_and_the_loss_falls(history):
    assert len(set(history["ranks"][-1].values())) > 1
    assert history["losses"][-1] < history["losses"][0]


def test_frozen_parameters_keep_their_bits(history):
    pairs = zip(
        *(jax.tree.leaves(history[k]) for k in ("first", "last", "on")), strict=True
    )
    moved = [(bool((a != b).any()), on) for a, b, on in pairs]
    assert all(not changed for changed, on in moved if not on)
    assert sum(changed for changed, on in moved if on) > len(moved) / 4


def test_a_singular_value_that_matters_is_kept():
    """Sensitivity |w dL/dw| decides: the value with a gradient stays, zeros go."""
    at = {"adalora_p": jnp.ones((3, 2)), "adalora_e": jnp.ones(2)}
    params = {"a": {**at, "adalora_q": jnp.ones((2, 3))}}
    grads = jax.tree.map(jnp.zeros_like, params)
    grads["a"]["adalora_e"] = jnp.array([0.0, 1.0])
    tx = adalora.budget(optax.sgd(0.0), 4, rank=1, penalty=0.0)
    state = tx.init(params)
    for _ in range(4):
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    assert params["a"]["adalora_e"].tolist() == [0.0, 1.0]


def test_the_penalty_is_the_gradient_of_the_distance_from_orthogonality():
    key = jax.random.key(0)
    p, q = jax.random.normal(key, (5, 3)), jax.random.normal(key, (3, 4))
    params = {"a": {"adalora_p": p, "adalora_e": jnp.ones(3), "adalora_q": q}}

    def penalty(tree):
        p, q = tree["a"]["adalora_p"], tree["a"]["adalora_q"]
        eye = jnp.eye(3)
        return 0.3 * (((p.T @ p - eye) ** 2).sum() + ((q @ q.T - eye) ** 2).sum())

    tx = adalora.budget(optax.sgd(1.0), 4, rank=3, penalty=0.3)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    expected = jax.grad(penalty)(params)
    for name in ("adalora_p", "adalora_q"):
        assert np.allclose(updates["a"][name], -expected["a"][name], atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(rank=9), "final rank 9 must be above 0, 4 at most"),
        (dict(rank=1, start=30, finish=20), "leaves it no step"),
        (dict(rank=1, strat=3), "unknown setting optim.adalora.strat"),
        (dict(), "needs the setting optim.adalora.rank"),
    ],
)
def test_a_budget_without_meaning_is_refused(settings, message, history):
    with pytest.raises(ConfigError, match=message):
        optim.make(history["first"], TOTAL, adalora=settings or {"every": 1})


def test_a_budget_needs_the_transform():
    with pytest.raises(ConfigError, match="no parameter is of the transform adalora"):
        optim.make({"head": {"kernel": jnp.ones((2, 2))}}, 9, adalora=dict(rank=1))
