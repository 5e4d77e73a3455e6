"""Whole runs that are hurt: killed and resumed, told to stop, and very long ones."""

from __future__ import annotations

import json
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np

from experiments.faults import apart
from experiments.faults.hurt import line
from fmjax import config, report
from fmjax.keeping import digests, guard
from fmjax.keeping import ledger as ledgers
from fmjax.train import train

FAMILIES = (
    "alexnet/imagenet", "bert/pretrain", "bert/sentiment", "clip/pairs",
    "cnn/fashion_mnist", "gpt/language_model", "inception/imagenet", "mae/imagenet",
    "mobilenet/imagenet", "resnet/fashion_mnist", "simclr/imagenet", "t5/pretrain",
    "transformer/translation", "unet/segment", "vit/fashion_mnist",
)  # fmt: skip
STEPS, EVERY, KILLED, KILLS = 20, 7, 9, 5


def settings(name: str, **changed: Any) -> dict[str, Any]:
    """A family's tiny config, its dropout on, with a record a step."""
    dotted = {key.replace("__", "."): str(value) for key, value in changed.items()}
    path = f"configs/{name}.py:tiny"
    return config.load(path, {"log.every": "1"} | dotted)


def go(workdir: str, name: str, changed: dict[str, Any]) -> int:
    """Trains a family's tiny config; its last step."""
    return int(train(workdir, **settings(name, **changed))["step"])


def arrays(workdir: pathlib.Path, step: int) -> dict[str, str]:
    """The digests of all arrays of a step, optimizer and key included."""
    known = digests.read(workdir / "checkpoints" / str(step))
    assert known is not None
    return known.arrays


def left(workdir: pathlib.Path, *rooms: str) -> Any:
    """All that must be equal: the last state's digests, every number of these rooms."""
    numbers = [
        {k: v for k, v in x.items() if k.startswith(rooms)}
        for x in report.read(workdir)
    ]
    return arrays(workdir, STEPS), numbers


def resumed(room: pathlib.Path, trials: int, rng: random.Random) -> dict[str, Any]:
    """20 steps against some, SIGKILL, and the rest, of every family."""
    survived, lost, rooms = 0, [], ("train/", "validation/")
    changed = {"steps": STEPS, "checkpoint__every": EVERY, "checkpoint__keep": 3}
    for name in FAMILIES[:trials]:
        straight, cut = (room / name / kind for kind in ("straight", "cut"))
        apart.call(go, str(straight), name, changed)
        process, _ = apart.start(go, str(cut), name, changed)
        saved = cut / "checkpoints" / str(EVERY)
        while process.is_alive() and not (
            saved.exists() and len(report.read(cut)) >= KILLED
        ):
            time.sleep(0.005)
        apart.kill(process)
        apart.call(go, str(cut), name, changed)
        if left(straight, *rooms) == left(cut, *rooms):
            survived += 1
        else:
            lost.append(name)
    what = "20 steps = some, SIGKILL, the rest: state and losses, a family each"
    return line(what, trials, survived, f"differ: {', '.join(lost) or 'none'}")


def ledger(room: pathlib.Path, trials: int, rng: random.Random) -> dict[str, Any]:
    """Random kills of a run of several epochs: each row once an epoch, in its order."""
    name, survived = "cnn/fashion_mnist", 0
    changed = {"steps": 60, "checkpoint__every": 5, "evaluate__every": 1000}
    changed |= {"log__ledger": True}
    straight = room / "straight"
    apart.call(go, str(straight), name, changed)
    whole = ledgers.read(straight)
    rows = [row for step in whole.values() for row in step]
    examples = len(set(rows))
    epochs = len(rows) // examples
    cut = [rows[i * examples : (i + 1) * examples] for i in range(epochs)]
    once = all(sorted(epoch) == list(range(examples)) for epoch in cut)
    for trial in range(trials):
        workdir = room / str(trial)
        for _ in range(KILLS):
            before = max(ledgers.read(workdir), default=0)
            process, _ = apart.start(go, str(workdir), name, changed)
            more = before + rng.randrange(1, 12)
            while process.is_alive() and not _wrote(workdir, more):
                time.sleep(0.002)
            apart.kill(process)
        apart.call(go, str(workdir), name, changed)
        survived += once and ledgers.read(workdir) == whole
    what = f"{KILLS} random SIGKILLs: the ledger has each row once an epoch, in order"
    return line(what, trials, survived, f"{epochs} epochs of {examples} rows")


def _wrote(workdir: pathlib.Path, step: int) -> bool:
    """Has the ledger's last whole line come so far?"""
    return max(ledgers.read(workdir), default=0) >= step


def signals(room: pathlib.Path, trials: int, rng: random.Random) -> dict[str, Any]:
    """SIGTERM and SIGINT at a random step: that very step, and exit code 75."""
    survived, most = 0, 0.0
    for trial in range(trials):
        workdir = room / str(trial)
        flags = ["--config", "configs/cnn/fashion_mnist.py:tiny", "--workdir", workdir]
        flags += ["--config.steps=100000", "--config.log.every=1"]
        flags += ["--config.evaluate.every=100000", "--config.checkpoint.every=100000"]
        process = subprocess.Popen(
            [sys.executable, "-m", "fmjax.train", *map(str, flags)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            text=True,
        )
        after, lines = rng.randrange(1, 60), workdir / "metrics.jsonl"
        while not lines.exists() or lines.read_text().count("\n") < after:
            time.sleep(0.005)
        process.send_signal((signal.SIGTERM, signal.SIGINT)[trial % 2])
        began = time.monotonic()
        out, _ = process.communicate()
        most = max(most, time.monotonic() - began)
        step = json.loads(out)["step"] if process.returncode == 75 else None
        there = [path.name for path in (workdir / "checkpoints").glob("*")]
        survived += there == [str(step)] and report.read(workdir)[-1]["step"] == step
    what = "SIGTERM, SIGINT at a random step: a checkpoint of that step, exit code 75"
    return line(what, trials, survived, f"ended within {most:.1f} s")


def watched(workdir: str, steps: int) -> dict[str, list[Any]]:
    """(step, resident bytes, descriptors) twice a second, and when a run compiled."""
    import threading

    from jax import monitoring

    seen: list[list[float]] = []
    compiled: list[int] = []
    over = threading.Event()
    page = resource.getpagesize()

    def step() -> int:
        lines = pathlib.Path(workdir, "metrics.jsonl")
        return lines.read_bytes().count(b"\n") if lines.exists() else 0

    def look():
        while not over.wait(0.5):
            resident = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
            seen.append([step(), resident * page, len(os.listdir("/proc/self/fd"))])

    def hear(event: str, duration_secs: float, **more: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(step())

    monitoring.register_event_duration_secs_listener(hear)
    thread = threading.Thread(target=look)
    thread.start()
    changed = {"steps": steps, "checkpoint__every": 500, "evaluate__every": 10**9}
    go(workdir, "cnn/fashion_mnist", changed)
    over.set()
    thread.join()
    return {"seen": seen, "compiled": compiled}


def long(room: pathlib.Path, trials: int, rng: random.Random) -> dict[str, Any]:
    """Many tiny steps with saves: memory, descriptors, compiles, false spikes."""
    found = apart.call(watched, str(room / "run"), trials)
    seen = [x for x in found["seen"] if x[0] > trials / 10] or found["seen"]
    grown = seen[-1][1] / seen[0][1] - 1
    # A save that is being written has files open: what stays is the least of a while.
    tenth = max(len(seen) // 10, 1)
    opened = [min(x[2] for x in part) for part in (seen[:tenth], seen[-tenth:])]
    late = sorted({step for step in found["compiled"] if 2 < step < trials})
    losses = [x["train/loss"] for x in report.read(room / "run") if "lr" in x]
    false = {}
    for limit in (4, 6, 8, 10, 15):
        said: list[int] = []
        tell = lambda step, *_, said=said: said.append(step)  # noqa: E731
        watch = guard.Watch(guard.Guard(spike=float(limit)), tell)
        for step, loss in enumerate(losses):
            watch.look(step, {"losses": {"a": (np.float64(loss), 1.0)}, "metrics": {}})
        false[limit] = len(said)
    figure = (
        f"resident memory {grown:+.1%} after the first tenth, descriptors "
        f"{opened[0]} and at the end {opened[1]}, compiled after step 2: at "
        f"{', '.join(map(str, late)) or 'none'}; losses called spikes above "
        + ", ".join(f"{k}: {v}" for k, v in false.items())
    )
    kept = grown < 0.05 and opened[1] <= opened[0] and len(losses) == trials
    what = "steps with saves: memory grows under 5 %, descriptors do not"
    return line(what, trials, trials if kept else 0, figure)
