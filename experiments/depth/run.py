"""Does depth hurt without the shortcut, and not with it? (He et al. 2016, figure 6)

    python -m experiments.depth.run [--seeds 1]

Plain nets and ResNets of 20 and 44 layers, trained alike on Fashion-MNIST's images at
14 x 14 without augmentation; training error is what is asked for. Interrupted and run
again, it goes on where it was. Leaves runs/depth (--workdir): report.html, report.json,
results.jsonl, training_error.svg and the runs' folders.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from experiments import arms
from fmjax import cli, config, report
from fmjax.metrics import bootstrap
from fmjax.reporting import figures, page

CONFIG = "configs/resnet/fashion_mnist.py"
NETS = {
    "plain-20": "plain-20",
    "plain-44": "plain-44",
    "ResNet-20": "20",
    "ResNet-44": "44",
}
STEPS, BATCH = 600, 64
LAST = 5  # records that the final training error is the mean of


def settings_of(variant: str, tiny: bool) -> dict[str, Any]:
    if tiny:
        found: dict[str, Any] = config.load(f"{CONFIG}:tiny")
        deep = 1 + variant.endswith("44")
        found["model"].update(
            depths=(deep, deep), shortcut=not variant.startswith("plain")
        )
        return found
    found = config.load(f"{CONFIG}:{variant}")
    found["inputs"] |= {"size": 14, "flip": False, "crop": 0}
    found |= {"steps": f"{STEPS} steps", "batch_size": BATCH}
    found["evaluate"] |= {"every": f"{STEPS} steps"}
    found["checkpoint"] |= {"every": "100 steps"}
    found["log"] |= {"every": "20 steps"}
    return found


def errors(folders: list[pathlib.Path]) -> list[tuple[list, list]]:
    """Each run's training error by step."""
    drawn = arms.curve(folders, "train/accuracy")
    return [(steps, [1 - value for value in values]) for steps, values in drawn]


def measure(folders: dict[str, list[pathlib.Path]], draws: int) -> dict[str, Any]:
    """Each net's training error at the end, and its error on the test split."""
    found: dict[str, Any] = {"nets": {}, "differences": {}}
    right = {}
    for name, runs in folders.items():
        tested = arms.predictions(runs, "test")
        right[name] = arms.correct(tested["labels"], tested["probabilities"])
        end = [float(np.mean(values[-LAST:])) for _, values in errors(runs)]
        lost = [
            float(np.mean([x["train/loss"] for x in lines][-LAST:]))
            for lines in (
                [x for x in report.read(f) if x.get("train/loss") is not None]
                for f in runs
            )
        ]
        found["nets"][name] = {
            "seeds": len(runs),
            "training_error": bootstrap.spread(end),
            "training_loss": bootstrap.spread(lost),
            "test_error": bootstrap.interval(1 - right[name], seed=0, draws=draws),
            "steps": arms.steps(runs),
        }
    for kind in ("plain", "ResNet"):
        deep, shallow = right[f"{kind}-44"], right[f"{kind}-20"]
        found["differences"][f"{kind}-44 - {kind}-20"] = bootstrap.paired_difference(
            1 - deep, 1 - shallow, seed=0, draws=draws
        )
    return found


def main() -> int:
    given = arms.parser(__doc__, "runs/depth").parse_args()
    cli.cache()
    root, draws = given.workdir, arms.draws(given.tiny)
    folders = {
        name: arms.seeds(root, name, settings_of(variant, given.tiny), given.seeds)
        for name, variant in NETS.items()
    }
    found = measure(folders, draws)
    lines = [{"model": name} | numbers for name, numbers in found["nets"].items()]
    lines += [
        {"difference": n, "test_error": d} for n, d in found["differences"].items()
    ]
    arms.record_lines(root, lines)
    drawn = figures.curves(
        {name: errors(runs) for name, runs in folders.items()}, "step", "training error"
    )
    arms.drawing(root / "training_error.svg", drawn)
    rows = [
        {"model": name, "test": n["test_error"], "seeds": n["seeds"]}
        | {k: n[k]["mean"] for k in ("training_error", "training_loss")}
        for name, n in found["nets"].items()
    ]
    sections = [
        page.section(
            "Result",
            page.table(
                rows,
                [
                    "model",
                    page.column("training_error", "training error", ".3f"),
                    page.column("training_loss", "training loss (nats)", ".3f"),
                    page.column("test", "test error [95 %]", ".3f"),
                    "seeds",
                ],
                f"Training: mean of the last {LAST} records; test: 10,000 images",
            ),
            page.table(
                [{"nets": n, **d} for n, d in found["differences"].items()],
                ["nets", page.column("value", "", "+.4f"), "low", "high"],
                "Paired differences of test error",
            ),
            page.figure(drawn, "Training error, a thin line a seed"),
        )
    ]
    path = page.write(root / "report.html", "Depth and shortcuts", sections, data=found)
    for row in rows:
        print(row["model"], f"{row['training_error']:.4f} {row['test']['value']:.4f}")
    print(f"report: {path}")
    return 0


if __name__ == "__main__":
    cli.run(main)
