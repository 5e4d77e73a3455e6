"""Numbers that are not finite, and spikes: what a run does about them.

No checkpoint holds what came of a step whose loss, gradient or result is not finite,
and no run goes on from it. What happens is the policy's. To end the run or to go back
it is enough to hear of it: a step's numbers are read while the next one runs, and
always before a state is saved. To skip a batch the step itself has to choose the old
parameters, statistics and optimizer state, which costs a pass over all of them. All of
it is said, and recorded in events.jsonl.
"""

from __future__ import annotations

import collections
import json
import pathlib
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from fmjax import config, files, step

POLICIES = ("abort", "skip", "rollback")
WINDOW, ENOUGH = 64, 16  # losses that a spike is compared with; fewer are too few


class Guard(NamedTuple):
    """What a run is guarded against."""

    # 'abort' ends the run with exit code 65; 'skip' goes on without the batch;
    # 'rollback' goes back to the newest checkpoint and takes later batches from there.
    # None checks nothing.
    nonfinite: str | None = "abort"
    # A loss more than so many robust standard deviations above the median of the last
    # 64 is a spike. None: there are none.
    spike: float | None = None
    on_spike: str = "log"  # or 'rollback'
    limit: int = 10  # steps skipped in a row, or rollbacks in all, before aborting
    peer_seconds: float = 60.0  # silence of another process that ends the run
    stall_seconds: float = 3600.0  # between two steps, an evaluation included


class NonFinite(RuntimeError):
    """Training ended because its numbers are not finite."""


class Rollback(Exception):
    """Training has to go back; `step` is the last one that is left out."""

    def __init__(self, step: int):
        super().__init__(step)
        self.step = step


def settings(spec: dict[str, Any] | None) -> Guard:
    """The guard that a config asks for. Raises ConfigError for what it can't be."""
    made = config.bind("guard", Guard, spec)()
    if made.nonfinite not in (*POLICIES, None):
        known = config.suggest(str(made.nonfinite), POLICIES)
        raise config.ConfigError(f"guard.nonfinite={made.nonfinite!r}; {known}")
    if made.on_spike not in ("log", "rollback"):
        raise config.ConfigError("guard.on_spike is 'log' or 'rollback'")
    return made


def finite_only(train_step: Callable, keep: bool = True) -> Callable:
    """A train step that tells, by the metric `skipped`, whether it is not finite.

    keep: it keeps the old state then. The step counts all the same, so that data and
    randomness stay where they are. Otherwise the caller must not use the new one.
    """

    def guarded(state, batch, axis=None):
        new, sums = train_step(state, batch, **({"axis": axis} if axis else {}))
        seen = [sums["losses"], sums["metrics"]["grad_norm"], new.params, new.extras]
        floating = [
            x for x in jax.tree.leaves(seen) if jnp.issubdtype(x.dtype, jnp.floating)
        ]
        # The number of bad arrays, as a product: a sum would be merged into, and so be
        # computed again for, each of thousands of choices, and compiled as often.
        # A minimum of small integers, which XLA computes faster on a CPU than `all`.
        finite = [jnp.isfinite(x).astype(jnp.int8).min(initial=1) for x in floating]
        bad = 1 - jnp.stack(finite).astype(jnp.float32)
        good = bad @ bad == 0
        skipped = {"skipped": (1.0 - good.astype(jnp.float32), jnp.ones(()))}
        sums = sums | {"metrics": sums["metrics"] | skipped}
        if not keep:
            return new, sums
        choose = lambda a, b: jnp.where(good, a, b)  # noqa: E731
        kept = jax.tree.map(choose, new._replace(step=state.step), state)
        return kept._replace(step=new.step), sums

    guarded.__wrapped__ = train_step  # type: ignore[attr-defined]  # inspect.unwrap
    return guarded


class Watch:
    """Looks at every step's sums, once they are on the host."""

    def __init__(self, guard: Guard, tell: Callable[[int, str, str], None]):
        """tell(step, event, text) says and records what happens."""
        self.guard, self.tell, self.skipped = guard, tell, 0
        self.recent: collections.deque[float] = collections.deque(maxlen=WINDOW)

    def look(self, number: int, sums: step.Sums) -> None:
        """Raises NonFinite or Rollback where the policy says so."""
        policy, limit = self.guard.nonfinite, self.guard.limit
        means = step.means(sums)
        if policy and means.get("skipped"):
            self.skipped += 1
            shown = {k: v for k, v in means.items() if not np.isfinite(v)} or means
            what = ", ".join(f"{k} {v:g}" for k, v in shown.items())
            self.tell(number, "nonfinite", f"{what}; the step is not taken")
            if policy == "rollback":
                raise Rollback(number)
            if policy == "abort" or self.skipped >= limit:
                raise NonFinite(
                    f"step {number}: {what}. Checkpoints are of before it. Lower "
                    "optim.lr, clip gradients, or set guard.nonfinite=skip or rollback"
                    + (f"; {limit} in a row were skipped" if policy == "skip" else "")
                )
            return
        self.skipped = 0
        loss = means["loss"]
        if self.guard.spike is not None and deviation(loss, self.recent) > (
            self.guard.spike
        ):
            middle = statistics.median(self.recent)
            self.tell(number, "spike", f"loss {loss:g} after a median of {middle:g}")
            if self.guard.on_spike == "rollback":
                raise Rollback(number)
        if np.isfinite(loss):
            self.recent.append(loss)


def deviation(value: float, recent: collections.deque[float]) -> float:
    """How many robust standard deviations a value is above the median of recent ones.

    The deviation is 1.4826 times the median absolute one (that of a normal
    distribution). 0 while there are fewer than 16.
    """
    if len(recent) < ENOUGH:
        return 0.0
    middle = statistics.median(recent)
    spread = 1.4826 * statistics.median(abs(x - middle) for x in recent)
    return (value - middle) / max(spread, 1e-12)


class Skips(NamedTuple):
    """What rollbacks have left out; the workdir's skipped.json."""

    rollbacks: int = 0
    # (from this step on, batches ahead of the step's own number), by step
    ahead: tuple[tuple[int, int], ...] = ()

    def position(self, number: int) -> int:
        """Which batch of the data a step takes (both from 0)."""
        by = [by for start, by in self.ahead if number >= start]
        return number + (by[-1] if by else 0)


def skips(workdir: pathlib.Path) -> Skips:
    """What the rollbacks of a run have left out so far."""
    path = workdir / "skipped.json"
    if not path.exists():
        return Skips()
    found = json.loads(path.read_text("utf-8"))
    return Skips(found["rollbacks"], tuple(map(tuple, found["ahead"])))


def go_back(workdir: pathlib.Path, bad: int, to: int, limit: int) -> Skips:
    """From step `to` on takes batches from after that of step `bad` (both from 0).

    Every process of a run must call it. Raises NonFinite after `limit` rollbacks.
    """
    before = skips(workdir)
    if before.rollbacks >= limit:
        raise NonFinite(f"{limit} rollbacks (guard.limit) have not helped")
    kept = tuple(pair for pair in before.ahead if pair[0] < to)
    by = max(before.position(bad) + 1, before.position(to)) - to
    new = Skips(before.rollbacks + 1, (*kept, (to, by)))
    multihost_utils.sync_global_devices("every process has read skipped.json")
    if jax.process_index() == 0:
        files.write_json(workdir / "skipped.json", new._asdict())
    multihost_utils.sync_global_devices("skipped.json is written")
    return new
