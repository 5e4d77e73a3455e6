"""Batches are functions of the step, on any number of hosts."""

import threading

import numpy as np
import pytest

from fmjax.data import batches

ROWS = [{"id": i} for i in range(20)]


def inputs(row, rng):
    noise = 0 if rng is None else rng.integers(1 << 30)
    return {"id": np.int32(row["id"]), "noise": np.int64(noise)}


def make(size=8, seed=3, rows=ROWS, **hosts):
    return batches.Batches(rows, inputs, size, seed=seed, **hosts)


def test_a_step_is_always_the_same_batch():
    one, two = make(), make()
    two.at(7)
    for step in (0, 3, 100):
        for key, value in one.at(step).items():
            np.testing.assert_array_equal(value, two.at(step)[key])
    assert (make(seed=4).at(0)["id"] != one.at(0)["id"]).any()


@pytest.mark.parametrize("hosts", [2, 4])
@pytest.mark.parametrize("seed", [3, None])
def test_hosts_share_one_batch_in_order(hosts, seed):
    whole = make(seed=seed)
    parts = [make(seed=seed, host=h, hosts=hosts) for h in range(hosts)]
    for step in (0, 2):
        for key, value in whole.at(step).items():
            joined = np.concatenate([part.at(step)[key] for part in parts])
            np.testing.assert_array_equal(joined, value)


def test_each_row_once_an_epoch_and_a_new_order_in_the_next():
    data = make(size=4)
    epochs = [
        np.concatenate([data.at(5 * e + s)["id"] for s in range(5)]) for e in (0, 1)
    ]
    for ids in epochs:
        assert sorted(ids) == list(range(20))
    assert (epochs[0] != epochs[1]).any()


def test_randomness_belongs_to_the_position_not_to_the_batch_size():
    small, large = make(size=4), make(size=20)
    noise = np.concatenate([small.at(s)["noise"] for s in range(5)])
    np.testing.assert_array_equal(noise, large.at(0)["noise"])
    assert len(set(noise)) > 15


def test_evaluation_masks_the_ragged_end():
    data = make(seed=None)
    assert len(data) == 3
    assert sum(data.at(s)["mask"].sum() for s in range(3)) == 20
    last = data.at(2)
    assert last["id"].tolist() == [16, 17, 18, 19, 0, 0, 0, 0]
    assert last["mask"].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert (last["noise"] == 0).all()


def test_empty_sets_and_odd_hosts_are_refused():
    with pytest.raises(ValueError, match="no examples"):
        make(rows=[])
    with pytest.raises(ValueError, match="divide by 3 hosts"):
        make(hosts=3)


def test_ahead_keeps_order_and_leaves_no_thread():
    before = threading.active_count()
    assert list(batches.ahead(lambda s: s * s, 2, 7)) == [4, 9, 16, 25, 36]
    stream = batches.ahead(lambda s: s, 0, 100)
    assert next(stream) == 0
    stream.close()
    assert threading.active_count() == before


def test_ahead_passes_errors_on():
    def at(step):
        if step == 2:
            raise OSError("unreadable")
        return step

    stream = batches.ahead(at, 0, 5)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(OSError, match="unreadable"):
        next(stream)
