"""Deterministic mode: the same bits on any number of devices, and what they cost."""

from __future__ import annotations

import pathlib
import random
import statistics
from typing import Any

from experiments.faults import apart
from experiments.faults.hurt import line
from experiments.faults.running import STEPS, left, settings
from fmjax import report
from fmjax.train import train

FAMILIES: dict[str, dict[str, Any]] = {
    "cnn/fashion_mnist": {},
    "bert/sentiment": {"model__depth": 1},
    "gpt/language_model": {"model__depth": 1},
}
# Devices, and jit or pmap, of runs that must be equal, and of one that moves half way.
# Each device compiles programs of its own, so that few layouts are many minutes.
LAID = (("1", "jit"), ("2", "jit"), ("8", "jit"))
MOVED = (("4", "jit"), ("2", "pmap"))
# What the cost is measured with: wide enough that a step is more than being called.
WIDE = {
    "batch_size": 64, "steps": 16, "evaluate__every": 1000, "checkpoint__every": 1000,
    "model__width": 256, "model__heads": 4, "model__depth": 2, "model__mlp_width": 1024,
}  # fmt: skip


def go(
    workdir: str, name: str, changed: dict[str, Any], laid: Any, stop_at: int | None
) -> None:
    """Trains on so many devices of a process that has no more."""
    import jax

    devices, how, determinism = laid
    jax.config.update("jax_num_cpu_devices", int(devices))
    parallel = {"how": how, "determinism": determinism}
    train(
        workdir, **(settings(name, **changed) | {"parallel": parallel}), stop_at=stop_at
    )


def bits(room: pathlib.Path, trials: int, rng: random.Random) -> dict[str, Any]:
    """A family on 1, 2, 8 devices, and moved from 4 to 2 (by pmap) half way."""
    survived, lost = 0, []
    changed = {"steps": STEPS, "batch_size": 32, "evaluate__every": STEPS}
    for name, more in list(FAMILIES.items())[:trials]:
        found, given = [], changed | more
        for devices, how in LAID:
            workdir = room / name / f"{devices}{how}"
            apart.call(go, str(workdir), name, given, (devices, how, "bits"), None)
            found.append(left(workdir, "train/"))
        for (devices, how), stop_at in zip(MOVED, (STEPS // 2, None), strict=True):
            laid = (devices, how, "bits")
            apart.call(go, str(room / name / "moved"), name, given, laid, stop_at)
        found.append(left(room / name / "moved", "train/"))
        if all(one == found[0] for one in found):
            survived += 1
        else:
            lost.append(name)
    took = {
        f"{devices} {mode or 'default'}": seconds(room, devices, mode)
        for devices in ("1", "2")
        for mode in (None, "bits")
    }
    ratios = [took[f"{n} bits"] / took[f"{n} default"] for n in ("1", "2")]
    what = "determinism='bits': 1 = 2 = 8 devices = 4, then 2 by pmap, a family each"
    figure = (
        f"differ: {', '.join(lost) or 'none'}; a step of a small BERT takes "
        f"{ratios[0]:.2f} times as long on 1 device, {ratios[1]:.2f} on 2 simulated"
    )
    return line(what, trials, survived, figure) | {"seconds_a_step": took}


def seconds(room: pathlib.Path, devices: str, mode: str | None) -> float:
    """A step's median."""
    workdir = room / "cost" / f"{devices}{mode}"
    laid = (devices, "jit", mode)
    apart.call(go, str(workdir), "bert/sentiment", WIDE, laid, None)
    speeds = [x["examples_per_second"] for x in report.read(workdir) if "lr" in x]
    return WIDE["batch_size"] / statistics.median(speeds[4:])
