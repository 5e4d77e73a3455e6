"""The mesh, where arrays live, batches over devices, signals."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from fmjax import parallel, step
from fmjax.config import ConfigError


def state(params):
    tx = optax.adam(1e-3)
    return step.create(lambda key: {"params": params}, tx, jax.random.key(0))


PARAMS = {
    "dense": {"kernel": jnp.zeros((16, 24)), "bias": jnp.zeros(24)},
    "odd": jnp.zeros((3, 5)),
}


def test_a_free_size_takes_the_rest():
    plan = parallel.plan(mesh=(("data", -1), ("model", 2)))
    assert dict(plan.mesh.shape) == {"data": 4, "model": 2}
    assert parallel.plan(devices=4).mesh.size == 4


@pytest.mark.parametrize(
    ("fields", "remedy"),
    [
        ({"devices": 99}, "xla_force_host_platform_device_count=99"),
        ({"mesh": (("data", 3),)}, "multiply to 8"),
        ({"mesh": (("data", -1), ("model", -1))}, "one of them may be -1"),
        ({"how": "pmapp"}, "did you mean 'pmap'"),
        ({"params": "fspd"}, "did you mean 'fsdp'"),
        ({"how": "pmap", "params": "fsdp"}, "parallel.how=jit"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(fields, remedy):
    with pytest.raises(ConfigError, match=remedy):
        parallel.plan(**fields)


@pytest.mark.parametrize(
    ("size", "accum", "near"), [(100, 2, "96, 112"), (3, 1, "8"), (0, 1, "8")]
)
def test_a_batch_that_cannot_be_cut_names_the_nearest(size, accum, near):
    with pytest.raises(ConfigError, match=f"nearest: {near}"):
        parallel.check_batch(size, parallel.plan(), accum)


def test_fsdp_cuts_parameters_and_their_moments_alike():
    plan = parallel.plan(params="fsdp")
    tree = state(PARAMS)
    places = parallel.shardings(tree, tree.params, plan)
    assert places.params["dense"]["kernel"].spec == P(None, "data")
    assert places.params["dense"]["bias"].spec == P("data")
    assert places.params["odd"].spec == P()
    adam = places.opt_state[0]
    assert adam.mu["dense"]["kernel"].spec == adam.nu["dense"]["kernel"].spec
    assert adam.mu["dense"]["kernel"].spec == P(None, "data")
    assert adam.count.spec == places.step.spec == P()


def test_a_table_of_rules_is_tried_in_order():
    plan = parallel.plan(
        mesh=(("data", 4), ("model", 2)),
        params=(("dense/kernel", ("data", "model")), (".*", ())),
    )
    places = parallel.shardings(PARAMS, PARAMS, plan)
    assert places["dense"]["kernel"].spec == P("data", "model")
    assert places["dense"]["bias"].spec == P()


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((("dense", ("data",)),), "no rule .* matches odd of shape"),
        ((("odd", ("data",)), (".*", ())), r"odd of shape \(3, 5\) can't be cut in 8"),
        ((("dense/kernel", ("modell",)), (".*", ())), "no mesh axis 'modell'"),
        ((("nothing", ()), (".*", ())), "rule 'nothing' .* matches nothing"),
    ],
)
def test_a_wrong_rule_names_the_parameter(rules, message):
    with pytest.raises(ConfigError, match=message):
        parallel.shardings(PARAMS, PARAMS, parallel.plan(params=rules))


@pytest.mark.parametrize("how", ["jit", "pmap"])
def test_put_makes_what_like_batch_says(how):
    plan = parallel.plan(how=how)
    batch = {"x": np.arange(32.0, dtype=np.float32).reshape(16, 2)}
    made, said = parallel.put(batch, plan), parallel.like_batch(batch, plan)
    assert made["x"].shape == said["x"].shape
    assert made["x"].sharding == said["x"].sharding
    np.testing.assert_array_equal(np.asarray(made["x"]).reshape(16, 2), batch["x"])


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_preemption_hears_signals_and_gives_the_handlers_back(name):
    before = signal.getsignal(name)
    with parallel.preemption() as asked:
        assert not asked(1)
        os.kill(os.getpid(), name)
        assert asked(2)
    assert signal.getsignal(name) is before


def test_many_processes_need_their_number():
    with pytest.raises(ConfigError, match="--processes N"):
        parallel.start("localhost:1", 0, -1)
