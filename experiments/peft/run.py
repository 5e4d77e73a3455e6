"""What each way to adapt a pre-trained net costs, and what it gains.

    python -m experiments.peft.run [--task r52] [--seeds 3] [--method full ...]

Times a step of each method beside one of full fine-tuning, trains each at rates three
times apart until the one with the lowest validation loss lies between two others,
trains that with more seeds, three methods with few examples a class, and tests all of
it. Interrupted and run again, it goes on where it was. Leaves runs/peft, or
runs/peft-TASK (--workdir): report.html, report.json, results.jsonl, accuracy.svg,
shots.svg, costs.json and the runs' folders.

    python -m experiments.peft.run --task r52 --carry runs/peft/results.jsonl

begins with the rates of results that there are, of this task or of another; with
--rates 1 it takes them as they are. --head gives the new head a rate of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import re
import time
from collections.abc import Mapping
from typing import Any

from experiments import arms
from experiments.peft import costs, methods, results
from fmjax import cli, config

APART = 3.0  # times: between neighbouring rates
FIRST = 1  # power of it, times the config's rate, that is tried first
NAMES = list(dict.fromkeys(n for task in methods.TASKS.values() for n in task.methods))


def slug(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()).strip("-")


def following(tried: Mapping[int, float], first: int = FIRST) -> int | None:
    """The power of APART to try next, from losses by power: a neighbour of the best.

    The higher one first; None where both are there.
    """
    if not tried:
        return first
    best = min(tried, key=lambda power: tried[power])
    return next((p for p in (best + 1, best - 1) if p not in tried), None)


def chosen(
    root: pathlib.Path, name: str, most: int, first: int = FIRST, **options: Any
) -> dict[str, Any]:
    """A method at its best rate: `folder`, `power`, and validation losses by rate.

    most: rates tried; first: the power of APART to begin with; options: of
    `methods.settings`.
    """
    tried: dict[int, float] = {}
    folders: dict[int, pathlib.Path] = {}
    for _ in range(most):
        power = following(tried, first)
        if power is None:
            break
        settings = methods.settings(name, factor=APART**power, **options)
        folders[power] = root / "rates" / f"{slug(name)}-x{APART**power:.3g}"
        best = arms.fit(folders[power], settings)["best"]
        tried[power] = math.inf if best is None else best
        arms.say(f"  {name} at {settings['optim']['lr']:.0e}: {tried[power]:.4f}")
    power = min(tried, key=lambda p: tried[p])
    rate = methods.settings(name, **options)["optim"]["lr"]
    return {
        "folder": folders[power],
        "power": power,
        "rate": rate * APART**power,
        "validation": {
            f"{rate * APART**p:.6g}": loss if math.isfinite(loss) else None
            for p, loss in tried.items()
        },
    }


def carried(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Results of `path` by method, whose rates are taken over: `rate`, `validation`."""
    lines = map(json.loads, path.read_text("utf-8").splitlines())
    return {one["method"]: one for one in lines if "validation" in one}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--task",
        default="sentiment",
        choices=list(methods.TASKS),
        help="net and data (%(default)s)",
    )
    parser.add_argument(
        "--workdir",
        type=pathlib.Path,
        help="where runs and the report go (runs/peft, or runs/peft-TASK)",
    )
    parser.add_argument(
        "--seeds", default=1, type=int, help="of every method (%(default)s)"
    )
    parser.add_argument(
        "--repeat",
        action="append",
        choices=NAMES,
        help="methods that have several seeds, repeatable; all by default",
    )
    parser.add_argument(
        "--episodes", default=1, type=int, help="draws of few examples (%(default)s)"
    )
    parser.add_argument(
        "--shots",
        type=int,
        nargs="*",
        help="examples a class to try; the task's by default",
    )
    parser.add_argument("--steps", type=int, help="of every run; the task's by default")
    parser.add_argument(
        "--rates",
        default=4,
        type=int,
        help="learning rates tried at most (%(default)s)",
    )
    parser.add_argument(
        "--carry", type=pathlib.Path, help="a results.jsonl whose rates are tried first"
    )
    parser.add_argument(
        "--head",
        type=float,
        help="the new head's own learning rate; by default it has the net's",
    )
    parser.add_argument("--tiny", action="store_true", help="made-up data, seconds")
    parser.add_argument(
        "--method", action="append", choices=NAMES, help="repeatable; all by default"
    )
    given = parser.parse_args()
    task, tiny, began = methods.TASKS[given.task], given.tiny, time.monotonic()
    apart = "" if given.task == "sentiment" else f"-{given.task}"
    root = given.workdir or pathlib.Path(f"runs/peft{apart}")
    names = [name for name in task.methods if name in (given.method or task.methods)]
    root.mkdir(parents=True, exist_ok=True)
    cli.cache()

    arms.say("[1/5] what a step costs")
    options: dict[str, Any] = {"task": given.task, "tiny": tiny, "steps": given.steps}
    options["head"] = given.head
    every = {name: methods.settings(name, **options) for name in names}
    plain = methods.settings("full", **options)
    cost = costs.against(root / "costs.json", plain, every, rounds=3)

    arms.say("[2/5] rates, by validation loss")
    best: dict[str, dict[str, Any]] = {}
    known = carried(given.carry) if given.carry else {}
    for name in sorted(names, key=lambda n: n in methods.RELATIVES):
        first, most = FIRST, given.rates
        if name in known:
            rate = methods.settings(name, **options)["optim"]["lr"]
            first = round(math.log(known[name]["rate"] / rate, APART))
        if kin := best.get(methods.RELATIVES.get(name, "")):
            first, most = kin["power"], 1
        best[name] = chosen(root, name, most, first, **options)
        same = known.get(name, {}).get("task", "sentiment") == given.task
        if name in known and same and given.head is None:
            best[name]["validation"] = (
                known[name]["validation"] | best[name]["validation"]
            )
        arms.predictions([best[name]["folder"]], "test")
    runs = {name: [best[name]["folder"]] for name in names}

    def again(name: str, folder: pathlib.Path, **changed: Any) -> pathlib.Path:
        """The folder of a method's run at its best rate, trained and tested."""
        factor = APART ** best[name]["power"]
        changed |= {"factor": factor, "judged": False} | options
        arms.fit(folder, methods.settings(name, **changed))
        arms.predictions([folder], "test")
        return folder

    arms.say("[3/5] more seeds")
    for seed in range(1, given.seeds):
        for name in (n for n in given.repeat or names if n in names):
            folder = root / "seeds" / f"{slug(name)}-{seed}"
            runs[name].append(again(name, folder, seed=seed))

    arms.say("[4/5] few examples a class")
    few: dict[str, dict[int, list[pathlib.Path]]] = {}
    shown = task.shots if given.shots is None else given.shots
    for shots in (2,) * bool(shown) if tiny else shown:
        for name in (n for n in methods.FEW if n in names):
            for episode in range(given.episodes):
                folder = root / "shots" / f"{slug(name)}-{shots}-{episode}"
                done = again(name, folder, seed=episode, shots=shots)
                few.setdefault(name, {}).setdefault(shots, []).append(done)

    arms.say("[5/5] report")
    found = results.measure(cost, best, runs, few, draws=200 if tiny else 10_000)
    train = config.part("data", plain["data"])("train")
    seen = plain["batch_size"] * config.duration(plain["steps"], "steps")
    seen = min(seen, len(train.rows)) // len(train.classes)
    results.write(root, given.task, found, plain["data"], seen)
    for name, one in found["methods"].items():
        a = one["accuracy"]
        print(
            f"{name:16} {one['trained']:>11,} trained, step {one['seconds_ratio']:.2f} "
            f"of full, accuracy {a['value']:.3f} [{a['low']:.3f}, {a['high']:.3f}]"
        )
    print(f"report: {root / 'report.html'}  ({time.monotonic() - began:.0f} s)")
    return 0


if __name__ == "__main__":
    cli.run(main)
