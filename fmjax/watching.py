"""Evaluation during training: which weights are the best, and when to give up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fmjax import config, copies, evaluate, offload
from fmjax.step import Sums


class Watch(NamedTuple):
    """Evaluation during training, and what it decides."""

    every: int | str = "1 epoch"
    splits: Sequence[str] = ("validation",)
    metric: str = "validation/loss"  # SPLIT/NAME; the best weights are the best by this
    higher: bool = False  # is a higher value better?
    patience: int | None = None  # evaluations without a better value before stopping


def check(watch: Watch, measured: Sums) -> None:
    """Raises ConfigError where the watched metric will not be measured."""
    terms = [f"{name}_loss" for name in measured["losses"]]
    names = ["loss", "count", *measured["metrics"], *(terms if len(terms) > 1 else [])]
    known = [f"{split}/{name}" for split in watch.splits for name in names]
    if known and watch.metric not in known:
        hint = config.suggest(watch.metric, known)
        raise config.ConfigError(f"evaluate.metric={watch.metric!r}: {hint}")


def judge(
    watch: Watch, progress: dict, numbers: dict[str, float], step: int
) -> tuple[dict, bool]:
    """(new progress, is this the best so far?) from one evaluation's numbers.

    nan is never better.
    """
    value, best = numbers[watch.metric], progress["best"]
    if value == value and (
        best is None or (value > best if watch.higher else value < best)
    ):
        found = {"best": value, "best_step": step, "worse": 0}
    else:
        found = {"worse": progress["worse"] + 1}
    return progress | found | {"evaluated": step}, "best" in found


def gave_up(watch: Watch, progress: dict) -> bool:
    """Has the watched metric not improved for `patience` evaluations?"""
    return watch.patience is not None and progress["worse"] >= watch.patience


def measure(run: Callable, setup: Any, state: Any) -> tuple[Any, dict[str, float]]:
    """(the weights to evaluate, SPLIT/NAME: value over each watched split)."""
    params = offload.near(copies.averaged(state.opt_state, state.params))
    numbers = {
        f"{split}/{name}": value
        for split, data in setup.eval_sets.items()
        for name, value in evaluate.sums_over(
            run, params, state.extras, data, setup.plan
        ).items()
    }
    return params, numbers
