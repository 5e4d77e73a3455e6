"""Meshes, where arrays live, compiled steps, and being told to stop."""

import functools
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from fmjax import optim, parallel, step, trees
from fmjax.config import ConfigError
from fmjax.objectives import classify

TWO = (("data", -1), ("model", 2))


def shapes(**leaves):
    return {name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in leaves.items()}


def specs(tree, /, **fields):
    plan = parallel.plan(**fields)
    return jax.tree.map(lambda s: s.spec, parallel.shardings(tree, tree, plan))


class TestPlan:
    @pytest.mark.parametrize(
        ("fields", "shape"),
        [
            ({}, {"data": 8}),
            ({"devices": 1}, {"data": 1}),
            ({"devices": 6}, {"data": 6}),
            ({"mesh": TWO}, {"data": 4, "model": 2}),
            ({"mesh": TWO, "devices": 2}, {"data": 1, "model": 2}),
            ({"mesh": (("data", 2), ("model", -1))}, {"data": 2, "model": 4}),
            ({"mesh": [["data", 4], ["model", 2]]}, {"data": 4, "model": 2}),
            ({"mesh": (("a", 2), ("b", -1), ("c", 2))}, {"a": 2, "b": 2, "c": 2}),
        ],
    )
    def test_mesh(self, fields, shape):
        plan = parallel.plan(**fields)
        assert dict(plan.mesh.shape) == shape
        assert list(plan.mesh.devices.flat) == jax.devices()[: plan.mesh.size]
        # Linen's Embed fails on the Explicit axes that make_mesh gives by default.
        assert set(plan.mesh.axis_types) == {AxisType.Auto}
        assert plan.rows.spec == P(next(iter(shape)))
        assert plan.whole.spec == P()

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            (
                {"devices": 9},
                "parallel.devices=9, but there are 8; on a CPU set XLA_FLAGS=",
            ),
            ({"devices": 0}, "parallel.devices=0: a whole number is needed, 1 or"),
            ({"devices": -1}, "parallel.devices=-1: a whole number is needed, 1 or"),
            ({"devices": 2.5}, "parallel.devices=2.5: a whole number is needed"),
            ({"devices": "two"}, "1 or more, or None for all there are"),
            ({"devices": True}, "parallel.devices=True: a whole number is needed"),
            ({"slices": 2.5}, "parallel.slices=2.5: a whole number is needed"),
            ({"slices": "2x"}, "parallel.slices='2x': a whole number is needed"),
            ({"slices": None}, "parallel.slices=None: a whole number is needed"),
            ({"shards": 2.5}, "parallel.shards=2.5: a whole number is needed"),
            ({"shards": -8, "determinism": "bits"}, "parallel.shards=-8: a whole"),
            ({"determinism": 5}, "parallel.determinism=5: it is None or 'bits'"),
            ({"offload": 5}, "parallel.offload=5: it is None or 'optimizer'"),
            ({"mesh": None}, "parallel.mesh=None: (axis, size) pairs"),
            ({"mesh": 8}, "parallel.mesh=8: (axis, size) pairs"),
            ({"mesh": (("data", "x"),)}, "and whole sizes are needed"),
            ({"mesh": (("data", 8.0),)}, "and whole sizes are needed"),
            ({"mesh": ((1, 8),)}, "(axis, size) pairs with names"),
            ({"how": 5}, "parallel.how=5; known: jit, pmap"),
            ({"params": None}, "parallel.params=None: one of replicate, fsdp,"),
            ({"params": 5}, "or a table of (pattern, partition)"),
            ({"params": ()}, "parallel.params=(): one of"),
            ({"params": ("fsdp",)}, "'fsdp' is no (pattern, partition)"),
            ({"params": ((".*", "data"),)}, "as ('model', None)"),
            ({"params": ((".*", (1,)),)}, "('.*', (1,)) is no (pattern, partition)"),
            ({"params": (("(", ()),)}, "'(' is no pattern: missing )"),
            (
                {"mesh": (("data", 3),)},
                "does not fit 8 devices: the sizes must multiply to 8",
            ),
            ({"mesh": (("data", 4),)}, "does not fit 8 devices"),
            ({"mesh": (("data", -1), ("model", 3))}, "does not fit 8 devices"),
            ({"mesh": (("data", -1), ("model", -1))}, "one of them may be -1"),
            ({"mesh": (("data", 0),)}, "does not fit 8 devices"),
            ({"mesh": (("data", -1), ("model", -2))}, "does not fit 8 devices"),
            ({"mesh": ("data", -1)}, "(axis, size) pairs with names of their own"),
            ({"mesh": "data"}, "as (('data', -1),) or (('data', -1), ('model', 4))"),
            ({"mesh": (("data",),)}, "(axis, size) pairs"),
            ({"mesh": (("data", 2), ("data", 4))}, "with names of their own"),
            ({"mesh": (), "devices": 1}, "(axis, size) pairs"),
            ({"how": "pjit"}, "parallel.how='pjit'; did you mean 'jit'?"),
            ({"params": "fdsp"}, "parallel.params='fdsp'; did you mean 'fsdp'?"),
            ({"how": "pmap", "params": "fsdp"}, "set parallel.params=replicate"),
            ({"how": "pmap", "params": ((".*", ()),)}, "or parallel.how=jit"),
            ({"how": "pmap", "mesh": TWO}, "one mesh axis, or parallel.how=jit"),
        ],
    )
    def test_refuses(self, fields, message):
        with pytest.raises(ConfigError, match=re.escape(message)):
            parallel.plan(**fields)

    def test_wrong_numbers_leave_the_environment_alone(self, monkeypatch):
        monkeypatch.delenv("NPROC", raising=False)
        with pytest.raises(ConfigError, match="shards='x'"):
            parallel.plan(shards="x", determinism="bits")
        assert "NPROC" not in os.environ

    def test_a_mesh_that_a_slice_has_no_sides_for(self, monkeypatch):
        def torus(*args, **kwargs):
            raise NotImplementedError("Failed to find assignment for axis 1. The size")

        monkeypatch.setattr(jax, "make_mesh", torus)
        said = re.escape("can't be laid over these 8 devices: each axis takes up whole")
        with pytest.raises(ConfigError, match=rf"{said}.*for axis 1$"):
            parallel.plan(mesh=TWO)

    @pytest.mark.parametrize(
        ("processes", "process"), [(0, -1), (2, -1), (2, 2), (-1, 0)]
    )
    def test_start_needs_the_number_of_processes_and_its_own(self, processes, process):
        with pytest.raises(
            ConfigError, match=r"--processes N and --process 0\.\.N-1, not"
        ):
            parallel.start("localhost:1", processes, process)

    def test_start_of_one_process_opens_no_socket(self, monkeypatch):
        monkeypatch.delenv("FMJAX_DISTRIBUTED", raising=False)

        def never(*args):
            raise AssertionError("a single process joined others")

        monkeypatch.setattr(jax.distributed, "initialize", never)
        parallel.start()


class TestCheckBatch:
    @pytest.mark.parametrize("size", [8, 64])
    def test_fits(self, size):
        parallel.check_batch(size, parallel.plan())

    @pytest.mark.parametrize(
        ("size", "accum", "near"),
        [
            (100, 2, "96, 112"),
            (3, 1, "8, 16"),
            (0, 1, "8, 16"),
            (-8, 1, "8, 16"),
            (33, 4, "32, 64"),
        ],
    )
    def test_names_the_nearest(self, size, accum, near):
        message = (
            f"batch_size {size} must divide by 8 devices x accum {accum}; nearest: "
        )
        with pytest.raises(
            ConfigError, match=re.escape(message) + rf"{near}(,|$)"
        ) as error:
            parallel.check_batch(size, parallel.plan(), accum)
        for number in str(error.value).split("nearest: ")[1].split(", "):
            parallel.check_batch(int(number), parallel.plan(), accum)

    def test_only_the_first_axis_cuts_the_batch(self):
        plan = parallel.plan(mesh=TWO)
        parallel.check_batch(4, plan)
        with pytest.raises(ConfigError, match="by 4 devices x accum 1; nearest: 4, 8"):
            parallel.check_batch(6, plan)


class TestPresets:
    def test_replicate(self):
        assert specs(shapes(a=(8, 8), b=())) == {"a": P(), "b": P()}

    def test_fsdp_cuts_the_largest_dimension_that_divides(self):
        found = specs(
            shapes(
                a=(8, 16),
                b=(16, 8),
                c=(17, 8),
                d=(7, 9),
                e=(8, 8),
                f=(4,),
                g=(),
                h=(0, 8),
            ),
            params="fsdp",
        )
        assert found == {
            "a": P(None, "data"),
            "b": P("data"),
            "c": P(None, "data"),
            "d": P(),  # no dimension divides by 8
            "e": P("data"),  # the first of equals
            "f": P(),
            "g": P(),
            "h": P(None, "data"),
        }

    def test_fsdp_on_one_device_is_whole(self):
        assert specs(shapes(a=(8, 16)), params="fsdp", devices=1) == {"a": P()}

    def test_fsdp_counts_the_first_axis_alone(self):
        found = specs(shapes(a=(4, 6), b=(2, 6)), params="fsdp", mesh=TWO)
        assert found == {"a": P("data"), "b": P()}


PARAMS = {
    "layer0": shapes(kernel=(8, 4), bias=(4,)),
    "head": shapes(kernel=(4, 6)),
}
TABLE = (
    ("layer.*/kernel", ("data", "model")),
    ("head/kernel", (None, ("model",))),
    (".*", ()),
)


class TestRules:
    def test_the_first_match_decides(self):
        found = specs(PARAMS, mesh=TWO, params=TABLE)
        assert found == {
            "layer0": {"kernel": P("data", "model"), "bias": P()},
            "head": {"kernel": P(None, ("model",))},
        }

    def test_one_dimension_over_two_axes_also_as_read_from_json(self):
        for pair in (("data", "model"), ["data", "model"]):
            table = [["layer0/kernel", [pair, None]], [".*", []]]
            found = specs(PARAMS, mesh=TWO, params=table)
            assert found["layer0"]["kernel"] == P(("data", "model"), None)

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            (
                TABLE[:1],
                "no rule of parallel.params matches head/kernel of shape (4, 6); "
                "end the table with ('.*', ())",
            ),
            (
                (("layer9", ()), *TABLE),
                "rule 'layer9' of parallel.params matches nothing",
            ),
            (
                (("head", ("data", "modle")), (".*", ())),
                "rule 'head': no mesh axis 'modle'; did you mean 'model'?",
            ),
            (
                (("head", (None, "data")), (".*", ())),
                "rule 'head': head/kernel of shape (4, 6) can't be cut in 4 along "
                "dimension 1; mesh {'data': 4, 'model': 2}",
            ),
            (
                (("bias", (None, "model")), (".*", ())),
                "layer0/bias of shape (4,) can't be cut in 2 along dimension 1",
            ),
            (
                (("head", (("data", "model"),)), (".*", ())),
                "head/kernel of shape (4, 6) can't be cut in 8 along dimension 0",
            ),
        ],
    )
    def test_refuses(self, table, message):
        with pytest.raises(ConfigError, match=re.escape(message)):
            specs(PARAMS, mesh=TWO, params=table)

    @pytest.mark.parametrize(
        "name", ["adamw", "bertadam", "sgd", "lion", "adafactor", "muon"]
    )
    def test_optimizer_state_lives_where_its_parameter_does(self, name):
        settings = {"name": name, "ema": 0.9, "groups": (("head", {"lr": 1.0}),)}
        tx, _, _ = optim.make(PARAMS, 10, clip=1.0, **settings)
        init = lambda key: {  # noqa: E731
            "params": jax.tree.map(lambda s: jnp.zeros(s.shape), PARAMS)
        }
        state = jax.eval_shape(
            functools.partial(step.create, init, tx), jax.random.key(0)
        )
        plan = parallel.plan(mesh=TWO, params=TABLE)
        placed = parallel.shardings(state, state.params, plan)
        assert placed.step.spec == placed.key.spec == P()
        want = {"layer0/kernel": P("data", "model"), "head/kernel": P(None, ("model",))}
        seen = []
        for path, leaf, place in zip(
            trees.paths(state.opt_state),
            *map(jax.tree.leaves, (state.opt_state, placed.opt_state)),
            strict=True,
        ):
            owner = next((p for p in want if path.endswith(p)), None)
            cut = owner is not None and leaf.ndim == 2
            assert place.spec == (want[owner] if cut else P()), path
            seen += [owner] if cut else []
        copies = {"adamw": 3, "bertadam": 3}.get(name, 2)
        assert sorted(seen) == sorted([*want] * copies)  # the moments, and the average

    def test_a_state_really_is_cut(self):
        plan = parallel.plan(params="fsdp")
        params = {"kernel": jnp.ones((16, 3)), "bias": jnp.ones((3,))}
        create = functools.partial(
            step.create, lambda key: {"params": params}, optax.adam(0.1)
        )
        state = jax.eval_shape(create, jax.random.key(0))
        places = parallel.shardings(state, state.params, plan)
        state = jax.jit(create, out_shardings=places)(jax.random.key(0))
        for tree in (state.params, state.opt_state[0].mu, state.opt_state[0].nu):
            assert tree["kernel"].addressable_shards[0].data.shape == (2, 3)
            assert tree["bias"].addressable_shards[0].data.shape == (3,)


class TestBatch:
    batch = {  # noqa: RUF012
        "inputs": {"tokens": np.arange(96, dtype=np.int32).reshape(16, 6)},
        "mask": np.arange(16, dtype=np.float32),
    }

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"devices": 4},
            {"mesh": TWO},
            {"how": "pmap"},
            {"how": "pmap", "devices": 2},
        ],
    )
    def test_like_batch_is_the_shape_of_what_put_makes(self, fields):
        plan = parallel.plan(**fields)
        made, like = (
            parallel.put(self.batch, plan),
            parallel.like_batch(self.batch, plan),
        )
        for a, b in zip(*map(jax.tree.leaves, (made, like)), strict=True):
            assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)

    def test_rows_keep_their_order(self):
        plan = parallel.plan()
        made = parallel.put(self.batch, plan)
        np.testing.assert_array_equal(
            made["inputs"]["tokens"], self.batch["inputs"]["tokens"]
        )
        assert made["mask"].addressable_shards[3].data.tolist() == [6, 7]
        rows = parallel.put(self.batch, plan._replace(how="pmap"))
        np.testing.assert_array_equal(rows["mask"].reshape(-1), self.batch["mask"])
        assert rows["mask"].shape == (8, 2)

    def test_abstract_allocates_nothing_and_keeps_the_places(self):
        plan = parallel.plan()
        tree = shapes(a=(8,), b=(2, 2))
        for places in (plan.rows, {"a": plan.rows, "b": plan.rows}):
            found = parallel.abstract(tree, places)
            assert all(isinstance(x, jax.ShapeDtypeStruct) for x in found.values())
            assert all(x.sharding == plan.rows for x in found.values())

    def test_gather_gives_host_arrays(self):
        found = parallel.gather(parallel.put(self.batch, parallel.plan()))
        assert all(type(x) is np.ndarray for x in jax.tree.leaves(found))
        np.testing.assert_array_equal(found["mask"], self.batch["mask"])


def linear(params, extras, inputs, key=None):
    return inputs @ params["kernel"], extras


class TestCompile:
    @pytest.mark.parametrize("how", ["jit", "pmap"])
    def test_a_step_ahead_of_time_donates_and_keeps_the_places(self, how):
        plan = parallel.plan(how=how, devices=4)
        tx = optax.adam(0.1)
        run = functools.partial(
            step.train_step, apply=linear, objective=classify.objective, tx=tx
        )
        init = lambda key: {"params": {"kernel": jax.random.normal(key, (8, 3))}}  # noqa: E731
        create = functools.partial(step.create, init, tx)
        state = jax.eval_shape(create, jax.random.key(0))
        places = parallel.shardings(state, state.params, plan)
        rng = np.random.default_rng(0)
        batch = {
            "inputs": rng.normal(size=(8, 8)).astype(np.float32),
            "label": rng.integers(3, size=8),
            "mask": np.ones(8, np.float32),
        }
        like = parallel.like_batch(jax.tree.map(jnp.asarray, batch), plan)
        compiled = parallel.compile_step(
            run, parallel.abstract(state, places), like, plan
        )

        old = jax.jit(create, out_shardings=places)(jax.random.key(0))
        want, want_sums = jax.jit(run)(create(jax.random.key(0)), batch)
        before = old.params["kernel"]
        new, sums = compiled(old, parallel.put(jax.tree.map(jnp.asarray, batch), plan))
        np.testing.assert_allclose(
            new.params["kernel"], want.params["kernel"], rtol=1e-5
        )
        assert float(sums["losses"]["classify"][0]) == pytest.approx(
            float(want_sums["losses"]["classify"][0]), rel=1e-6
        )
        # The compiled step takes its own result: nothing about it has changed.
        compiled(new, parallel.put(jax.tree.map(jnp.asarray, batch), plan))
        if how == "jit":
            assert before.is_deleted()
            assert sums["losses"]["classify"][0].sharding.is_fully_replicated
