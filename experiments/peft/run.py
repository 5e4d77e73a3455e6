"""What each way to adapt MiniLM to movie sentiment costs, and what it gains.

    python -m experiments.peft.run [--seeds 3] [--method full --method "LoRA r 4" ...]

Times a step of each method beside one of full fine-tuning, trains each at several
rates and keeps the rate with the lowest validation loss, repeats some with more seeds,
trains three with few examples a class, and tests all of it. Interrupted and run again,
it goes on where it was. Leaves runs/peft (--workdir): report.html, report.json,
results.jsonl, accuracy.svg, shots.svg, costs.json and the runs' folders.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import re
import time
from collections.abc import Sequence
from typing import Any

from experiments import arms
from experiments.peft import costs, methods, results
from fmjax import cli, config

FACTORS = (3.0, 9.0, 1.0)  # of the config's rate; the last if the second is the worse
REPEATED = ("full", "LoRA r 4", "AdaLoRA", "Houlsby adapter")  # with --seeds
SHOTS = (16, 64, 256)  # examples a class
FEW = ("full", "LoRA r 4", "probe")


def slug(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()).strip("-")


def chosen(
    root: pathlib.Path, name: str, factors: Sequence[float], **options: Any
) -> dict[str, Any]:
    """A method at its best rate: `folder`, `factor`, and validation losses by rate.

    options: of `methods.settings`.
    """
    tried: dict[float, float] = {}
    folders: dict[float, pathlib.Path] = {}
    for factor in factors:
        settings = methods.settings(name, factor=factor, **options)
        folders[factor] = root / "rates" / f"{slug(name)}-x{factor:g}"
        best = arms.fit(folders[factor], settings)["best"]
        tried[factor] = math.inf if best is None else best
        arms.say(f"  {name} at {settings['optim']['lr']:.0e}: {tried[factor]:.4f}")
        if len(tried) == 2 and tried[factor] < tried[factors[0]]:
            break
    factor = min(tried, key=lambda f: tried[f])
    rate = methods.settings(name, **options)["optim"]["lr"]
    return {
        "folder": folders[factor],
        "factor": factor,
        "rate": rate * factor,
        "validation": {
            f"{rate * f:.6g}": loss if math.isfinite(loss) else None
            for f, loss in tried.items()
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", default="runs/peft", type=pathlib.Path)
    parser.add_argument("--seeds", default=1, type=int, help=f"of {REPEATED}")
    parser.add_argument("--episodes", default=1, type=int, help="of few examples")
    parser.add_argument("--shots", default=SHOTS, type=int, nargs="*")
    parser.add_argument("--steps", default=64, type=int, help="of every run")
    parser.add_argument("--rates", default=3, type=int, help="tried at most, of 3")
    parser.add_argument("--tiny", action="store_true", help="made-up data, seconds")
    parser.add_argument("--method", action="append", choices=list(methods.METHODS))
    given = parser.parse_args()
    root, tiny, began = given.workdir, given.tiny, time.monotonic()
    names = given.method or list(methods.METHODS)
    root.mkdir(parents=True, exist_ok=True)
    cli.cache()

    arms.say("[1/5] what a step costs")
    options: dict[str, Any] = {"tiny": tiny, "steps": given.steps}
    every = {name: methods.settings(name, **options) for name in names}
    plain = methods.settings("full", **options)
    cost = costs.against(root / "costs.json", plain, every, rounds=5)

    arms.say("[2/5] rates, by validation loss")
    best: dict[str, dict[str, Any]] = {}
    for name in sorted(names, key=lambda n: n in methods.RELATIVES):
        kin = best.get(methods.RELATIVES.get(name, ""))
        factors = [kin["factor"]] if kin else FACTORS[: given.rates]
        best[name] = chosen(root, name, factors, **options)
        arms.predictions([best[name]["folder"]], "test")
    runs = {name: [best[name]["folder"]] for name in names}

    arms.say("[3/5] few examples a class")
    few: dict[str, dict[int, list[pathlib.Path]]] = {}
    for shots in (2,) if tiny else given.shots:
        for name in (n for n in FEW if n in names):
            for episode in range(given.episodes):
                folder = root / "shots" / f"{slug(name)}-{shots}-{episode}"
                settings = methods.settings(
                    name,
                    factor=best[name]["factor"],
                    seed=episode,
                    shots=shots,
                    **options,
                )
                arms.fit(folder, settings)
                arms.predictions([folder], "test")
                few.setdefault(name, {}).setdefault(shots, []).append(folder)

    arms.say("[4/5] more seeds")
    for name in (n for n in REPEATED if n in names):
        for seed in range(1, given.seeds):
            folder = root / "seeds" / f"{slug(name)}-{seed}"
            factor = best[name]["factor"]
            settings = methods.settings(name, factor=factor, seed=seed, **options)
            arms.fit(folder, settings)
            arms.predictions([folder], "test")
            runs[name].append(folder)

    arms.say("[5/5] report")
    found = results.measure(cost, best, runs, few, draws=200 if tiny else 10_000)
    seen = plain["batch_size"] * config.duration(plain["steps"], "steps") // 2
    results.write(root, found, plain["data"], seen)
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
