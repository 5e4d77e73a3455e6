"""Fashion-MNIST: the official test split, and what is said where Debian is away."""

import gzip

import numpy as np
import pytest

from fmjax.data import fetch, source
from fmjax.data.sources import fashion_mnist


def test_idx_files(tmp_path):
    path = tmp_path / "x.gz"
    data = np.arange(24, dtype=np.uint8)
    head = bytes([0, 0, 8, 3]) + np.array([2, 3, 4], ">u4").tobytes()
    path.write_bytes(gzip.compress(head + data.tobytes()))
    np.testing.assert_array_equal(fashion_mnist.read_idx(path), data.reshape(2, 3, 4))
    for bad in (head, head + bytes(25), b"\0\0\x0d\1" + bytes(8), b""):
        path.write_bytes(gzip.compress(bad))
        with pytest.raises(ValueError, match="not an idx file"):
            fashion_mnist.read_idx(path)


def test_without_debian_the_way_out_is_said(monkeypatch):
    monkeypatch.setattr(fetch.shutil, "which", lambda _: None)
    with pytest.raises(fetch.Unreachable) as caught:
        fashion_mnist.load("train")
    assert "data.name=tfds data.dataset=fashion_mnist" in str(caught.value)
    assert "downloads" in str(caught.value)


def test_a_smaller_share_is_within_a_larger_one():
    rows = [{"id": i, "label": i % 10} for i in range(1000)]
    whole = source.Source(rows, fashion_mnist.CLASSES, {"fingerprint": "a"})
    one, ten = (fashion_mnist.few(whole, share) for share in (0.01, 0.1))
    inside = [
        {row["id"] for row in (s.rows[i] for i in range(len(s.rows)))}
        for s in (one, ten)
    ]
    assert [len(ids) for ids in inside] == [10, 100]
    assert inside[0] < inside[1]
    assert len({s.facts["fingerprint"] for s in (whole, one, ten)}) == 3
    for share in (0, 1.5):
        with pytest.raises(ValueError, match=r"data\.share"):
            fashion_mnist.load("train", share=share)


@pytest.mark.network
def test_the_real_set(real):
    train, valid, test = (
        real(fashion_mnist, s) for s in ("train", "validation", "test")
    )
    assert [len(s.rows) for s in (train, valid, test)] == [55_000, 5_000, 10_000]
    row = test.rows[0]
    assert row["image"].shape == (28, 28, 1)
    assert row["image"].dtype == np.uint8
    assert test.classes[row["label"]] == "ankle boot"
    labels = [test.rows[i]["label"] for i in range(len(test.rows))]
    assert np.bincount(labels).tolist() == [1000] * 10
    held = {valid.rows[i]["id"] for i in range(len(valid.rows))}
    used = {train.rows[i]["id"] for i in range(0, len(train.rows), 7)}
    assert len(held) == 5_000
    assert not held & used
    mean = np.mean([test.rows[i]["image"].mean() for i in range(0, 10_000, 50)]) / 255
    assert mean == pytest.approx(0.286, abs=0.02)
