"""Saving and restoring: the same bits, other devices, other parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmjax import checkpoint, parallel, step
from fmjax.config import ConfigError

PROGRESS = {"best": 0.5, "best_step": 2, "worse": 1, "evaluated": 2}


def state(seed=0, width=16):
    def init(key):
        return {"params": {"dense": {"kernel": jax.random.normal(key, (width, 8))}}}

    return step.create(init, optax.adam(1e-3), jax.random.key(seed))


def placed(tree, plan):
    places = parallel.shardings(tree, tree.params, plan)
    return jax.device_put(tree, places), parallel.abstract(tree, places)


def same(a, b):
    raw = lambda x: jax.random.key_data(x) if x.dtype == b.key.dtype else x  # noqa: E731
    for one, two in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(raw(one), raw(two))


def test_another_number_of_devices_restores_the_same_bits(tmp_path):
    tree, _ = placed(state(), parallel.plan(params="fsdp"))
    store = checkpoint.Checkpoints(tmp_path)
    store.save(3, tree, PROGRESS)
    store.close()
    store = checkpoint.Checkpoints(tmp_path)
    _, abstract = placed(state(1), parallel.plan(params="fsdp", devices=2))
    found, progress = store.restore(abstract)
    store.close()
    same(found, tree)
    assert progress == PROGRESS
    assert found.params["dense"]["kernel"].sharding.mesh.size == 2


def test_the_newest_are_kept_and_the_best_apart(tmp_path):
    tree, _ = placed(state(), parallel.plan())
    store = checkpoint.Checkpoints(tmp_path, keep=2)
    for number in (1, 2, 3, 4):
        store.save(number, tree, PROGRESS)
        if number in (1, 2):
            store.save_best(number, tree.params, {})
    store.save(4, tree, PROGRESS)  # there already: left as it is
    assert (store.step(), store.best_step()) == (4, 2)
    store.close()
    names = {
        kind: sorted(p.name for p in (tmp_path / kind).iterdir() if p.name.isdigit())
        for kind in ("checkpoints", "best")
    }
    assert names == {"checkpoints": ["3", "4"], "best": ["2"]}
    weights = checkpoint.weights(tmp_path)
    np.testing.assert_array_equal(
        weights["params"]["dense"]["kernel"], tree.params["dense"]["kernel"]
    )


def test_a_checkpoint_of_other_shapes_is_refused(tmp_path):
    tree, _ = placed(state(), parallel.plan())
    store = checkpoint.Checkpoints(tmp_path)
    store.save(1, tree, PROGRESS)
    store.last.wait_until_finished()
    _, abstract = placed(state(width=24), parallel.plan())
    with pytest.raises(
        ConfigError, match=r"dense/kernel is \(16, 8\) there and \(24, 8\) here"
    ):
        store.restore(abstract)
    store.close()


def test_no_weights_is_said(tmp_path):
    with pytest.raises(ConfigError, match="no trained weights"):
        checkpoint.weights(tmp_path)


class TestInitFrom:
    @pytest.fixture
    def path(self, tmp_path):
        tree, _ = placed(state(), parallel.plan())
        store = checkpoint.Checkpoints(tmp_path)
        store.save_best(1, tree.params | {"old": jnp.ones(3)}, {})
        store.close()
        return str(tmp_path)

    def params(self, **more):
        return {"dense": {"kernel": jnp.zeros((16, 8))}} | more

    def test_equal_paths_are_loaded_and_the_rest_is_told(self, path):
        fresh = jnp.full(2, 7.0)
        params, report = checkpoint.init_from(
            self.params(head=fresh), path=path, missing="^head"
        )
        np.testing.assert_array_equal(
            params["dense"]["kernel"], state().params["dense"]["kernel"]
        )
        np.testing.assert_array_equal(params["head"], fresh)
        assert report == {
            "loaded": ["dense/kernel"],
            "fresh": ["head"],
            "unused": ["old"],
        }

    def test_rename_and_skip(self, path):
        params, report = checkpoint.init_from(
            {"body": {"kernel": jnp.zeros((16, 8))}},
            path=path,
            rename=[("^dense", "body")],
            skip="^old",
        )
        assert float(jnp.abs(params["body"]["kernel"]).sum()) > 0
        assert report["unused"] == []

    def test_missing_parameters_are_named_with_the_remedy(self, path):
        with pytest.raises(ConfigError, match=r"no parameter dens/x; .*missing='dens'"):
            checkpoint.init_from({"dens": {"x": jnp.zeros(1)}}, path=path)

    def test_a_wrong_shape_names_both(self, path):
        message = r"dense/kernel is \(16, 8\) .* and \(4, 4\) here"
        with pytest.raises(ConfigError, match=message):
            checkpoint.init_from({"dense": {"kernel": jnp.zeros((4, 4))}}, path=path)
