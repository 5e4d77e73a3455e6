"""A sweep's study: Optuna's trials in a folder, and what they leave to read.

study.db      Optuna's own storage (SQLite), which its tools open too
study.json    every trial: state, value, parameters, evaluations, seconds, folder
study.svg     values by trial and by each field that was searched
trials/N      the runs, ordinary workdirs
"""

from __future__ import annotations

import math
import pathlib
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fmjax import files
from fmjax.config import ConfigError, suggest
from fmjax.reporting import figures

SAMPLERS = ("tpe", "random")
PRUNERS = ("median", "hyperband", "none")


def library() -> types.ModuleType:
    """Optuna. Raises ConfigError, with the remedy, where it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ConfigError("a sweep needs Optuna: pip install 'fmjax[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def sampler(name: str, seed: int, number: int, parallel: bool) -> Any:
    """What chooses trial `number`: its randomness is addressed by seed and number.

    tpe: Bergstra et al. 2011; random. So a study that was interrupted goes on as if it
    had not been, and draws nothing twice. parallel: let trials that still run count as
    bad ones, so that workers do not all choose alike.
    """
    samplers = library().samplers
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if name == "random":
        return samplers.RandomSampler(seed=own)
    if name != "tpe":
        known = suggest(str(name), SAMPLERS)
        raise ConfigError(f"no sampler named {name!r}; {known}")
    return samplers.TPESampler(seed=own, constant_liar=parallel)


def pruner(name: str, evaluations: int) -> Any:
    """What ends a trial early, by its evaluations, counted from 1.

    median: worse than the median of the others at that evaluation, once five trials are
    done; hyperband: Li et al. 2018, its budget the run's number of evaluations.
    """
    pruners = library().pruners
    if name == "none":
        return pruners.NopPruner()
    if name == "median":
        return pruners.MedianPruner()
    if name != "hyperband":
        raise ConfigError(f"no pruner named {name!r}; {suggest(str(name), PRUNERS)}")
    return pruners.HyperbandPruner(min_resource=1, max_resource=max(evaluations, 1))


def open_study(folder: pathlib.Path, higher: bool, prune: Any = None) -> Any:
    """The Optuna study in a folder, made where there is none."""
    optuna = library()
    return optuna.create_study(
        storage=f"sqlite:///{(folder / 'study.db').absolute()}",
        study_name="sweep",
        direction="maximize" if higher else "minimize",
        pruner=prune,
        sampler=optuna.samplers.RandomSampler(seed=0),  # each trial gets its own
        load_if_exists=True,
    )


def trials(study: Any) -> list[dict[str, Any]]:
    """Every trial as plain values, by number; `value` None: it has none (yet)."""
    found = []
    for one in study.get_trials(deepcopy=False):
        state = one.state.name.lower()
        values = sorted(one.intermediate_values.items())
        value = one.value if state == "complete" else None
        row = {
            "trial": one.number,
            "state": state,
            "value": value,
            "params": dict(one.params),
            "evaluations": [v if math.isfinite(v) else None for _, v in values],
            "seconds": one.user_attrs.get("seconds"),
            "folder": f"trials/{one.number}",
        }
        if reason := one.user_attrs.get("reason"):
            row["reason"] = reason
        found.append(row)
    return found


def best(rows: list[dict[str, Any]], higher: bool) -> dict[str, Any] | None:
    """The complete trial of the best value, the earliest of equals."""
    done = [row for row in rows if row["value"] is not None]
    sign = -1 if higher else 1
    return min(done, key=lambda row: sign * row["value"], default=None)


def table(rows: list[dict[str, Any]], metric: str, higher: bool) -> str:
    """The trials, best first, then those without a value."""
    shown = Table(title=f"{metric}, best first", title_justify="left")
    keys = list(dict.fromkeys(key for row in rows for key in row["params"]))
    for name in ("trial", "state", metric, "last", *keys, "s"):
        right = name not in ("state", *keys)
        shown.add_column(name, justify="right" if right else "left")
    sign = -1 if higher else 1
    valued = lambda row: (row["value"] is None, sign * (row["value"] or 0))  # noqa: E731
    for row in sorted(rows, key=valued):
        last = [v for v in row["evaluations"] if v is not None][-1:]
        number = lambda v: "-" if v is None else f"{v:.5g}"  # noqa: E731
        cells = [str(row["trial"]), row["state"], number(row["value"])]
        cells += [f"{number(last[0])} ({len(row['evaluations'])})" if last else "-"]
        for key in keys:
            value = row["params"].get(key, "-")
            cells.append(f"{value:.4g}" if isinstance(value, float) else str(value))
        shown.add_row(*cells, number(row["seconds"]))
    console = Console(width=max(80, 30 + 16 * len(shown.columns)))
    with console.capture() as text:
        console.print(shown, markup=False)
    return text.get()


def write(folder: pathlib.Path, record: Mapping[str, Any], study: Any) -> dict:
    """Writes study.json and returns it: the record, the best trial, every trial."""
    rows = trials(study)
    states = [row["state"] for row in rows]
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    top = best(rows, record["higher"])
    whole = {**record, "counts": counts, "best": top, "trials": rows}
    files.write_json(folder / "study.json", whole)
    return whole


def draw(folder: pathlib.Path, whole: Mapping[str, Any]) -> None:
    """Writes study.svg; nothing where no trial has a value."""
    if whole["best"] is not None:
        files.replace(folder / "study.svg", figures.standalone(figure(whole)))


def figure(whole: Mapping[str, Any]) -> str:
    """Values by trial with the best so far, and by each field searched: SVG.

    whole: what `write` returns, with a trial that has a value.
    """
    rows = [row for row in whole["trials"] if row["value"] is not None]
    values = np.array([row["value"] for row in rows])
    so_far = (np.maximum if whole["higher"] else np.minimum).accumulate(values)
    top = rows.index(whole["best"])
    colours = [figures.PALETTE[i == top] for i in range(len(rows))]

    def draw(canvas: Any) -> None:
        grid = canvas.subplots(1 + len(whole["search"]), squeeze=False)[:, 0]
        numbers = [row["trial"] for row in rows]
        grid[0].step(numbers, so_far, where="post", color=figures.INK, linewidth=1)
        panel(grid[0], "trial", numbers)
        grid[0].xaxis.get_major_locator().set_params(integer=True)
        for axes, (key, (kind, ends)) in zip(
            grid[1:], whole["search"].items(), strict=True
        ):
            xs = [row["params"][key] for row in rows]
            if kind == "choice":
                names = [str(choice) for choice in ends]
                panel(axes, key, [names.index(str(x)) for x in xs])
                axes.set_xticks(range(len(names)), names)
                axes.set_xlim(-0.5, len(names) - 0.5)
                continue
            panel(axes, key, xs)
            if kind.endswith("log"):
                axes.set_xscale("log")
                axes.set_xlim(ends[0] / 1.1, ends[1] * 1.1)
                if ends[1] >= 10 * ends[0]:  # a power of ten is among them: enough
                    axes.tick_params(which="minor", labelbottom=False)

    def panel(axes: Any, name: str, xs: Any) -> None:
        axes.scatter(xs, values, s=22, c=colours)
        axes.set_xlabel(name)
        axes.set_ylabel(whole["metric"])
        axes.grid(True)

    return figures.svg(draw, "", height=2.4 * (1 + len(whole["search"])))
