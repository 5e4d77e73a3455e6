"""What a save costs a run: how long it stops the loop, and what digests add to it."""

from __future__ import annotations

import pathlib
import random
import statistics
import time
from typing import Any

import jax
import numpy as np

from experiments.faults import apart
from experiments.faults.determinism import WIDE, go
from experiments.faults.hurt import line, state
from fmjax import checkpoint, report
from fmjax.keeping import digests

# A BERT with a state of some 110 MB, whose steps a save is compared with.
HEAVY = WIDE | {
    "steps": 8, "model__width": 512, "model__depth": 3, "model__mlp_width": 2048,
}  # fmt: skip


def timed(room: str, trials: int) -> dict[str, float]:
    """Medians of parts of saving a state of 100 MB: seconds, and processor seconds."""
    tree = jax.block_until_ready(state(1, 2900))
    store = checkpoint.Checkpoints(room, keep=1)
    found: dict[str, list[float]] = {}

    def now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def note(name: str, since: tuple[float, float]) -> None:
        for end, before, after in zip(("", "_cpu"), since, now(), strict=True):
            found.setdefault(name + end, []).append(after - before)

    for step in range(1, trials + 2):
        began = now()
        jax.block_until_ready([x for _, _, x in digests.start(tree)])
        note("digests", began)
        began = now()
        store.save(step, tree, {"at": step})
        note("call", began)
        store.last.wait_until_finished()
        note("whole", began)
        began = now()
        folder = pathlib.Path(room) / "checkpoints" / str(step)
        digests._files(folder, digests.METHOD)
        note("files", began)
    size = sum(np.asarray(x).nbytes for x in jax.tree.leaves(tree[1:4]))
    medians = {key: statistics.median(times[1:]) for key, times in found.items()}
    return medians | {"megabytes": size / 1e6}


def blocking(room: pathlib.Path, trials: int, rng: random.Random) -> dict[str, Any]:
    """How long a save stops the loop, and what digests add to a whole save."""
    took = apart.call(timed, str(room), trials)
    added = (took["digests"] + took["files"]) / took["whole"]
    busy = took["digests_cpu"] + took["files_cpu"]
    apart.call(go, str(room / "run"), "bert/sentiment", HEAVY, ("1", "jit", None), None)
    speeds = [x["examples_per_second"] for x in report.read(room / "run") if "lr" in x]
    took["step"] = HEAVY["batch_size"] / statistics.median(speeds[2:])
    stopped = took["call"] / took["step"]
    figure = (
        f"{took['megabytes']:.0f} MB: the loop waits {took['call']:.3f} s of "
        f"{took['whole']:.3f} s, {stopped:.1%} of a BERT's step of such a state; "
        f"digests are {added:.1%} of a save, {busy:.3f} s of them processor time"
    )
    what = (
        "a save of 100 MB stops the loop for under 10 % of a step; its digests are "
        "under 15 % of it"
    )
    kept = trials if added < 0.15 and stopped < 0.1 else 0
    return line(what, trials, kept, figure) | took
