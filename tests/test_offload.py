"""The optimizer's state in the host's memory: the same run, and what is refused."""

import re

import jax
import numpy as np
import pytest

from fmjax import compile, offload, parallel, sharding, train
from fmjax.config import ConfigError
from tests import runs
from tests.test_checkpoint import bits
from tests.test_sharding import DEFAULTS

CNN = "configs/cnn/fashion_mnist.py"
AWAY = {"params": "fsdp", "offload": "optimizer"}


@pytest.fixture(params=["averaged", "masters"])
def given(request):
    more = {"averaged": {"ema": 0.9}, "masters": {"params_dtype": "bfloat16"}}
    made = runs.tiny(CNN, steps=4, evaluate__every=2)
    made["optim"] = made["optim"] | {"name": "adamw"} | more[request.param]
    return made


def test_a_run_is_the_same_and_goes_on_from_its_checkpoint(tmp_path, given):
    here, there = tmp_path / "here", tmp_path / "there"
    runs.run(here, given, parallel={"params": "fsdp"})
    runs.run(there, given, stop_at=3, parallel=AWAY)
    runs.run(there, given, parallel=AWAY)
    for name in ("train/loss", "validation/loss"):
        want = runs.losses(here, name)
        assert len(want) > 1
        np.testing.assert_allclose(runs.losses(there, name), want, rtol=1e-6)


def test_what_is_on_the_host(given):
    setup = train.prepare(DEFAULTS | given | {"parallel": AWAY})
    kinds = jax.tree.map(lambda x: x.sharding.memory_kind, setup.state)
    assert set(jax.tree.leaves(kinds.params)) == {"device"}
    found = jax.tree.leaves(kinds.opt_state)
    moments = [x for x in jax.tree.leaves(setup.state.opt_state) if x.ndim]
    assert found.count(sharding.HOST) == len(moments) > 0
    places = jax.tree.map(lambda x: x.sharding, setup.state)
    state = jax.jit(setup.create, out_shardings=places)(jax.random.key(0))
    batch = parallel.put(setup.train_set.at(0), setup.plan)
    step = parallel.compile_step(setup.step, setup.state, batch, setup.plan)
    state, _ = step(state, batch)
    assert jax.tree.map(lambda x: x.sharding.memory_kind, state) == kinds
    near = offload.near(state.opt_state)
    assert {x.sharding.memory_kind for x in jax.tree.leaves(near)} == {"device"}
    assert bits(near) == bits(state.opt_state)


def test_what_a_step_is_said_to_hold(given):
    settings = DEFAULTS | given | {"evaluate": None}
    here = compile.measure(settings | {"parallel": {"params": "fsdp"}}, 8)
    there = compile.measure(settings | {"parallel": AWAY}, 8)
    assert here["host_bytes"] == 0
    assert there["host_bytes"] >= 2 * 4 * there["parameters"] / 8, "both moments"
    assert there["state_bytes"] + there["host_bytes"] == here["state_bytes"]
    assert there["model_flops"] == here["model_flops"]
    rows = [x for x in there["largest_arrays"] if x["path"].startswith("opt_state")]
    assert rows
    assert all(x["sharding"].endswith("on the host") for x in rows)


@pytest.mark.parametrize(
    ("laid", "message"),
    [
        ({"offload": "params"}, "'params': it is None or 'optimizer'"),
        ({"offload": "optimizer", "how": "pmap"}, "set parallel.how=jit"),
        ({"offload": "optimizer", "determinism": "bits"}, "no parallel.determinism"),
    ],
)
def test_refuses(laid, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parallel.plan(**laid)


def test_refuses_devices_that_have_no_such_memory(monkeypatch):
    monkeypatch.setattr(offload, "HOST", "moon")
    with pytest.raises(ConfigError, match=r"has device, .* and nothing that is moon"):
        parallel.plan(offload="optimizer")
