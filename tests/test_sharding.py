"""Meshes of several slices, tensor presets, runs cut over model and sequence."""

import dataclasses
import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from fmjax import config, parallel, sharding, train
from fmjax.config import ConfigError
from tests import runs

FAMILIES = {  # with sizes that 2 divides, where the tiny config's are odd
    "bert": ("configs/bert/pretrain.py", {}),
    "gpt": ("configs/gpt/language_model.py", {}),
    "t5": ("configs/t5/pretrain.py", {"data__length": 32, "inputs__window": 32}),
    "transformer": ("configs/transformer/translation.py", {}),
    "vit": ("configs/vit/imagenet.py", {}),
    "mae": ("configs/mae/imagenet.py", {}),
    "clip": ("configs/clip/pairs.py", {}),
}
CUBE = (("data", 2), ("model", 2), ("sequence", 2))
DEFAULTS = {
    name: field.default
    for name, field in inspect.signature(train.train).parameters.items()
    if field.default is not field.empty
}


def settings(family, **changes):
    file, sizes = FAMILIES[family]
    given = runs.tiny(file, steps=3, model__depth=1, batch_size=8, **sizes)
    # Adam would take whole steps along gradients that are mere rounding.
    given["optim"] = {"name": "sgd", "lr": 0.1, "clip": 1.0}
    return DEFAULTS | given | {"evaluate": None} | changes


def trained(given, steps=3):
    """Parameters and losses, as the loop computes them, without its files."""
    setup = train.prepare(given)
    plan = setup.plan
    places = jax.tree.map(lambda x: x.sharding, setup.state)
    state = jax.jit(setup.create, out_shardings=places)(jax.random.key(0))
    batch = parallel.like_batch(setup.sample, plan)
    compiled = parallel.compile_step(setup.step, setup.state, batch, plan)
    losses = []
    for step in range(steps):
        state, sums = compiled(state, parallel.put(setup.train_set.at(step), plan))
        pairs = sums["losses"].values()
        losses.append(sum(float(total) / float(weight) for total, weight in pairs))
    return state.params, losses, setup


@pytest.fixture(scope="module")
def alone():
    return functools.cache(
        lambda family: trained(settings(family, parallel={"devices": 1}))[:2]
    )


@pytest.mark.parametrize(
    ("family", "mesh", "params"),
    [
        *((family, CUBE, "fsdp+tensor") for family in FAMILIES),
        *(
            pytest.param("gpt", mesh, params, marks=pytest.mark.slow)
            for mesh, params in (
                ((("data", 2), ("fsdp", 2), ("model", 2)), "fsdp+tensor"),
                ((("sequence", 4), ("model", 2)), "tensor"),
            )
        ),
    ],
)
def test_cut_over_model_and_sequence_equals_one_device(alone, family, mesh, params):
    laid = {"mesh": mesh, "params": params}
    got, losses, setup = trained(settings(family, parallel=laid))
    want, want_losses = alone(family)
    assert want_losses[0] != want_losses[-1], "nothing was learnt: the test is void"
    np.testing.assert_allclose(losses, want_losses, rtol=1e-6)
    for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    specs = [x.sharding.spec for x in jax.tree.leaves(setup.state.params)]
    assert sum("model" in spec for spec in specs) >= 6
    batch = jax.tree.leaves(parallel.like_batch(setup.sample, setup.plan))
    if "sequence" in setup.plan.mesh.shape:
        assert any("sequence" in x.sharding.spec for x in batch)


def shapes(**leaves):
    return {name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in leaves.items()}


def test_tensor_cuts_heads_widths_and_vocabulary():
    plan = parallel.plan(mesh=(("data", -1), ("model", 2)), params="tensor")
    block = {
        "attention": {
            "query": shapes(kernel=(8, 8), bias=(8,)),
            "out": shapes(kernel=(8, 8), bias=(8,)),
        },
        "mlp": {
            "gate": shapes(kernel=(8, 16)),
            "down": shapes(kernel=(16, 8), bias=(8,)),
        },
        "mlp_norm": shapes(scale=(8,)),
    }
    tree = {
        "embed": {"tokens": shapes(embedding=(10, 8))},
        "odd": {"tokens": shapes(embedding=(11, 8))},
        "encoder_bias": shapes(embedding=(32, 4)),
        "head": shapes(kernel=(8, 10)),
        "mlm": shapes(bias=(11,)),
        "layer0": block,
    }
    found = jax.tree.map(lambda s: s.spec, sharding.shardings(tree, tree, plan))
    into, out_of = P(None, "model"), P("model", None)
    assert found == {
        "embed": {"tokens": {"embedding": out_of}},
        "odd": {"tokens": {"embedding": into}},  # 11 words can't be cut in 2
        "encoder_bias": {"embedding": into},
        "head": {"kernel": into},
        "mlm": {"bias": P()},
        "layer0": {
            "attention": {
                "query": {"kernel": into, "bias": P("model")},
                "out": {"kernel": out_of, "bias": P()},
            },
            "mlp": {
                "gate": {"kernel": into},
                "down": {"kernel": out_of, "bias": P()},
            },
            "mlp_norm": {"scale": P()},
        },
    }
    plan = plan._replace(rules="fsdp+tensor")  # data is of size 4
    found = jax.tree.map(lambda s: s.spec, sharding.shardings(tree, tree, plan))
    assert found["layer0"]["attention"]["query"]["kernel"] == P("data", "model")
    assert found["layer0"]["mlp"]["down"]["kernel"] == P("model", "data")
    assert found["layer0"]["mlp_norm"]["scale"] == P("data")
    assert found["odd"]["tokens"]["embedding"] == P(None, "model")


def test_batches_are_cut_over_data_and_fsdp():
    plan = parallel.plan(mesh=(("data", 2), ("fsdp", 2), ("model", 2)), params="fsdp")
    assert plan.cut == ("data", "fsdp")
    assert plan.rows.spec == P(("data", "fsdp"))
    parallel.check_batch(4, plan)
    with pytest.raises(ConfigError, match="by 4 devices x accum 1; nearest: 4, 8"):
        parallel.check_batch(6, plan)
    kernel = sharding.shardings(*[shapes(kernel=(8, 4))] * 2, plan)["kernel"]
    assert kernel.spec == P("fsdp")  # a copy of the parameters for each of 'data'
    assert parallel.plan(mesh=(("model", 8),), params="tensor").parts == 1


def test_sequence_cuts_the_arrays_that_it_divides():
    plan = parallel.plan(mesh=(("data", 2), ("sequence", 4)))
    batch = shapes(tokens=(4, 8), positions=(4, 5), mask=(4,), image=(4, 16, 16, 3))
    found = {k: s.spec for k, s in sharding.of_batch(batch, plan).items()}
    cut = P("data", "sequence")
    assert found == dict(tokens=cut, positions=P("data"), mask=P("data"), image=cut)
    with pytest.raises(ConfigError, match=r"'sequence' of size 4 divides .*\(4, 5\)"):
        sharding.of_batch(shapes(positions=(4, 5), mask=(4,)), plan)


@pytest.mark.parametrize(
    ("fields", "tree", "message"),
    [
        (
            {"params": "tensor"},
            {},
            "cuts parameters over the mesh axis 'model', which is not among data",
        ),
        ({"params": "tenser"}, {}, "did you mean 'tensor'?"),
        (
            {"params": "tensor", "mesh": (("data", 2), ("model", 4))},
            {"layer0": {"mlp": {"up": shapes(kernel=(8, 6))}}},
            "layer0/mlp/up/kernel of shape (8, 6) can't be cut in 4 along dimension 1",
        ),
        (
            {"params": "tensor", "mesh": (("data", -1), ("model", 2))},
            {"conv": shapes(kernel=(3, 3, 8, 8))},
            "knows the parameters of transformers, and this model has none",
        ),
        ({"slices": 3}, {}, "parallel.slices=3: the first mesh axis, 'data' of size 8"),
        ({"slices": 0}, {}, "parallel.slices=0"),
        ({"mesh": (("sequence", 8),), "how": "pmap"}, {}, "or parallel.how=jit"),
    ],
)
def test_refuses(fields, tree, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        sharding.shardings(tree, tree, parallel.plan(**fields))


def test_processes_share_a_batch(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match="cuts a batch in 1, which 2 processes can't"):
        parallel.plan(mesh=(("model", 8),), params="tensor")


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a mesh asks of a device that knows its slice."""

    id: int
    slice_index: int
    process_index: int = 0
    platform: str = "other"
    device_kind: str = "chip"


def test_the_first_axis_runs_over_the_slices():
    chips = [Chip(i, i % 2) for i in range(8)]  # neighbours in the list, not in space
    mesh = sharding.mesh((("data", -1), ("model", 2)), chips, slices=2)
    assert dict(mesh.shape) == {"data": 4, "model": 2}
    slices = np.vectorize(lambda chip: chip.slice_index)(mesh.devices)
    np.testing.assert_array_equal(slices, [[0, 0], [0, 0], [1, 1], [1, 1]])
    with pytest.raises(ConfigError, match="of 8 devices of 2 slices"):
        sharding.mesh((("data", -1),), chips, slices=4)
    # A CPU's devices tell no slice.
    plan = parallel.plan(mesh=(("data", 4), ("model", 2)), slices=2)
    assert list(plan.mesh.devices.flat) == jax.devices()


def test_the_settings_of_a_config_reach_the_mesh():
    found = config.bind("parallel", parallel.plan, {"slices": 2, "mesh": CUBE})()
    assert dict(found.mesh.shape) == {"data": 2, "model": 2, "sequence": 2}
