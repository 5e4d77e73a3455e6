"""Deterministic mode: one set of bits, however many devices and whichever compiler."""

import itertools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import bits, config, parallel, report
from fmjax.keeping import digests
from tests import runs

GIVEN = {
    "bert": ("configs/bert/sentiment.py", {"model__depth": 1, "model__dropout": 0.2}),
    "gpt": ("configs/gpt/language_model.py", {"model__depth": 1}),
    "cnn": ("configs/cnn/fashion_mnist.py", {}),
}


def settings(name, **changed):
    path, fields = GIVEN[name]
    fields = {"steps": 3, "batch_size": 16, "evaluate__every": 3} | fields | changed
    return runs.tiny(path, **fields)


def run(workdir, given, devices, how, stop_at=None):
    laid = {"devices": devices, "how": how, "determinism": "bits"}
    runs.run(workdir, given, stop_at=stop_at, parallel=laid)


def left(workdir):
    """The digests of the last state, and what was recorded of training."""
    newest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))
    numbers = [
        {k: v for k, v in x.items() if k.startswith("train/")}
        for x in report.read(workdir)
    ]
    return digests.read(newest).arrays, numbers


@pytest.mark.parametrize(("name", "devices"), [("cnn", 4), ("bert", 2)])
def test_the_same_bits_on_other_devices_for_pmap_and_resumed(tmp_path, name, devices):
    given = settings(name)
    run(tmp_path / "one", given, 1, "jit")
    run(tmp_path / "moved", given, devices, "jit", stop_at=1)
    run(tmp_path / "moved", given, 2, "pmap")
    one, moved = left(tmp_path / "one"), left(tmp_path / "moved")
    assert len(one[1]) >= 3
    assert one == moved


APART = """
import sys
from tests.test_bits import runs, settings
given = settings("cnn", steps=12, evaluate__every=12)
runs.run(sys.argv[1], given, parallel={"determinism": "bits"})
"""


def test_processes_with_other_numbers_of_devices_have_the_same_bits(tmp_path):
    """A CPU has as many threads as devices, and convolutions add up by threads."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", APART, str(tmp_path / str(devices))],
            env={k: v for k, v in os.environ.items() if k != "NPROC"}
            | {"XLA_FLAGS": runs.flags(devices)},
            cwd=runs.ROOT,
        )
        for devices in (1, 8)
    ]
    assert [process.wait() for process in started] == [0, 0]
    one, eight = left(tmp_path / "1"), left(tmp_path / "8")
    assert len(one[1]) >= 12
    assert one == eight


@pytest.mark.slow
@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("accum", [1, 2])
def test_the_same_bits_on_1_2_4_8(tmp_path, name, accum):
    given = settings(name, accum=accum, steps=20)
    found = []
    for devices, how in itertools.product((1, 2, 4, 8), ("jit", "pmap")):
        run(tmp_path / f"{devices}{how}", given, devices, how)
        found.append(left(tmp_path / f"{devices}{how}"))
    assert all(one == found[0] for one in found)


@pytest.mark.slow
def test_without_it_bits_differ(tmp_path):
    """The tests above can fail: the ordinary mode's sums do depend on the devices."""
    given, found = settings("bert", model__dropout=0.0), []
    for devices in (1, 8):
        runs.run(tmp_path / str(devices), given, parallel={"devices": devices})
        found.append(left(tmp_path / str(devices)))
    assert found[0] != found[1]


def test_a_sum_is_taken_in_the_order_of_the_shards():
    parts = np.float32([1e8, 1.0, -1e8, 1.0])
    plan = bits.check(parallel.plan(devices=2), "bits", 4)
    like = jax.ShapeDtypeStruct((), jnp.float32)
    add = bits.summed(like, 2, plan)
    # Device 0 has shards 0 and 1, device 1 shards 2 and 3: first ones, then second.
    first, second = (jax.device_put(parts[i::2], plan.rows) for i in (0, 1))
    assert np.asarray(add(first, second)) == ((parts[0] + parts[1]) + parts[2]) + 1.0
    assert np.asarray(bits.in_order(jnp.asarray(parts[::-1]))) == 0.0


@pytest.mark.parametrize(
    ("path", "laid", "reason"),
    [
        ("configs/clip/pairs.py", {}, "compares its rows with each other"),
        ("configs/resnet/fashion_mnist.py", {}, "whose rows share batch_stats"),
        ("configs/cnn/fashion_mnist.py", {"params": "fsdp"}, "parallel.params=repl"),
        ("configs/cnn/fashion_mnist.py", {"shards": 12}, "shards=12 must divide by 8"),
        ("configs/cnn/fashion_mnist.py", {"shards": 64}, "must divide by 64 shards"),
        ("configs/cnn/fashion_mnist.py", {"determinism": "bit"}, "None or 'bits'"),
    ],
)
def test_what_it_cannot_do_is_refused_at_start(tmp_path, path, laid, reason):
    given = runs.tiny(path, batch_size=32, steps=2)
    with pytest.raises(config.ConfigError, match=reason):
        runs.run(tmp_path / "w", given, parallel={"determinism": "bits"} | laid)
    assert not (tmp_path / "w").exists()


def test_a_run_that_goes_on_keeps_its_shards(tmp_path):
    given = settings("cnn")
    run(tmp_path, given, 1, "jit", stop_at=1)
    laid = {"devices": 1, "determinism": "bits", "shards": 4}
    with pytest.raises(config.ConfigError, match=r"parallel.shards: None there, 4 now"):
        runs.run(tmp_path, given, parallel=laid)
    with pytest.raises(config.ConfigError, match="determinism: 'bits' there, None now"):
        runs.run(tmp_path, given, parallel={"devices": 1})
