"""Batches by step: pure, equal on any number of hosts, each row once an epoch."""

import threading
import time

import jax
import numpy as np
import pytest

from fmjax.data.batches import Batches, ahead


class Rows:
    """Random access without a list, as a data set on disk has."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        index = int(index)
        if not 0 <= index < self.size:
            raise IndexError(index)
        return {"id": index, "text": "x" * (index % 5)}


def inputs(row, rng):
    """Some arrays of a row, and a number drawn for it in training."""
    noise = rng.random() if rng is not None else 0.0
    return {
        "inputs": {
            "tokens": np.full(3, row["id"], np.int32),
            "noise": np.float32(noise),
        },
        "label": np.int32(row["id"]),
    }


def make(size=20, batch=4, seed=0, **fields):
    return Batches(Rows(size), inputs, batch, seed=seed, **fields)


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)


def labels(data, steps):
    return np.concatenate([data.at(step)["label"] for step in steps]).tolist()


class TestTraining:
    def test_shapes_and_types(self):
        batch = make().at(0)
        kinds = jax.tree.map(lambda x: (x.shape, str(x.dtype)), batch)
        assert kinds == {
            "inputs": {"tokens": ((4, 3), "int32"), "noise": ((4,), "float32")},
            "label": ((4,), "int32"),
            "mask": ((4,), "float32"),
        }
        assert batch["mask"].tolist() == [1, 1, 1, 1]

    def test_at_is_a_pure_function_of_the_step(self):
        data = make()
        want = [data.at(step) for step in range(12)]
        again = make()
        for step in (11, 0, 7, 7, 3):  # backwards, twice, and in a new process' order
            equal(again.at(step), want[step])
            equal(data.at(step), want[step])

    @pytest.mark.parametrize("hosts", [2, 4])
    def test_hosts_parts_concatenate_to_the_whole(self, hosts):
        whole = make(batch=8)
        parts = [make(batch=8, host=host, hosts=hosts) for host in range(hosts)]
        for step in range(6):
            own = [part.at(step) for part in parts]
            assert all(len(x["mask"]) == 8 // hosts for x in own)
            joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *own)
            equal(joined, whole.at(step))

    def test_each_row_is_there_once_an_epoch(self):
        data = make(size=20, batch=4)
        for epoch in range(3):
            seen = labels(data, range(5 * epoch, 5 * epoch + 5))
            assert sorted(seen) == list(range(20))

    def test_also_where_batches_do_not_divide_the_rows(self):
        data = make(size=10, batch=4)
        stream = labels(data, range(5))  # two epochs of ten rows
        assert sorted(stream[:10]) == sorted(stream[10:]) == list(range(10))

    def test_a_batch_may_be_larger_than_the_set(self):
        stream = labels(make(size=3, batch=8), range(3))
        assert [sorted(stream[i : i + 3]) for i in range(0, 24, 3)] == [[0, 1, 2]] * 8

    def test_each_epoch_has_its_own_order(self):
        data = make(size=20, batch=4)
        orders = [labels(data, range(5 * e, 5 * e + 5)) for e in range(3)]
        assert len({tuple(order) for order in [*orders, range(20)]}) == 4

    def test_the_seed_decides_the_order(self):
        orders = [labels(make(seed=seed), range(5)) for seed in (0, 0, 1)]
        assert orders[0] == orders[1] != orders[2]

    def test_randomness_belongs_to_the_position_not_to_the_batch(self):
        small, large = make(size=20, batch=4), make(size=20, batch=20)
        noise = [small.at(step)["inputs"]["noise"] for step in range(5)]
        want = large.at(0)["inputs"]["noise"]
        np.testing.assert_array_equal(np.concatenate(noise), want)

    def test_augmentation_differs_by_row_and_epoch(self):
        data = make(size=8, batch=8)
        noise = np.concatenate([data.at(step)["inputs"]["noise"] for step in range(3)])
        assert len(set(noise.tolist())) == 24
        assert ((noise > 0) & (noise < 1)).all()


class TestEvaluation:
    def test_every_row_once_in_order_and_the_ragged_end_masked(self):
        data = make(size=1003, batch=64, seed=None)
        assert len(data) == 16
        found = [data.at(step) for step in range(len(data))]
        mask = np.concatenate([x["mask"] for x in found])
        seen = np.concatenate([x["label"] for x in found])
        assert (mask.sum(), len(mask), mask.dtype) == (1003, 1024, np.float32)
        assert seen[mask > 0].tolist() == list(range(1003))
        assert set(seen[mask == 0].tolist()) == {0}
        assert {x["inputs"]["tokens"].shape for x in found} == {(64, 3)}
        assert all((x["inputs"]["noise"] == 0).all() for x in found), "no generator"

    @pytest.mark.parametrize("hosts", [2, 4, 8])
    def test_on_several_hosts(self, hosts):
        whole = make(size=1003, batch=64, seed=None)
        parts = [make(1003, 64, None, host=h, hosts=hosts) for h in range(hosts)]
        assert {len(part) for part in parts} == {16}
        for step in (0, 15):
            own = [part.at(step) for part in parts]
            joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *own)
            equal(joined, whole.at(step))

    @pytest.mark.parametrize(("size", "batches"), [(1, 1), (4, 1), (5, 2), (8, 2)])
    def test_length(self, size, batches):
        assert len(make(size=size, seed=None)) == batches

    def test_a_row_by_its_number(self):
        assert make(seed=None).example(7)["label"] == 7


class TestRefused:
    @pytest.mark.parametrize("seed", [0, None])
    def test_an_empty_set(self, seed):
        with pytest.raises(
            ValueError, match="the data set has no examples in this split"
        ):
            make(size=0, seed=seed)

    def test_a_batch_that_hosts_cannot_share(self):
        with pytest.raises(ValueError, match="batch size 4 must divide by 3 hosts"):
            make(hosts=3)


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("input")]


class TestAhead:
    @pytest.mark.parametrize("depth", [1, 2, 5, 50])
    def test_order(self, depth):
        assert list(ahead(lambda s: s * s, 3, 12, depth)) == [
            s * s for s in range(3, 12)
        ]
        assert threads() == []

    @pytest.mark.parametrize(("start", "stop"), [(0, 0), (5, 5), (6, 5)])
    def test_nothing(self, start, stop):
        assert list(ahead(lambda s: s, start, stop)) == []

    def test_works_ahead_but_no_further_than_asked(self):
        called = []
        coming = ahead(lambda s: called.append(s) or s, 0, 100, depth=3)
        assert called == [], "nothing is computed before it is asked for"
        assert next(coming) == 0
        deadline = time.monotonic() + 5
        while len(called) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert called == [0, 1, 2, 3]
        coming.close()
        assert threads() == []

    def test_an_error_arrives_at_its_step(self):
        def at(step):
            if step == 2:
                raise RuntimeError(f"row of step {step}")
            return step

        coming = ahead(at, 0, 9)
        assert [next(coming), next(coming)] == [0, 1]
        with pytest.raises(RuntimeError, match="row of step 2"):
            next(coming)
        assert threads() == []
        assert list(coming) == []

    def test_the_consumer_may_leave(self):
        coming = ahead(lambda s: s, 0, 1000)
        next(coming)
        assert len(threads()) == 1
        coming.close()
        assert threads() == []

    def test_the_work_is_on_another_thread(self):
        names = set(ahead(lambda s: threading.current_thread().name, 0, 3))
        assert len(names) == 1
        assert names.pop().startswith("input")
