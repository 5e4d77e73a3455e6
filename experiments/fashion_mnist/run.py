"""Nets on Fashion-MNIST: the official test split, once each.

    python -m experiments.fashion_mnist.run [--net resnet-wide-6] [--seeds 1]

A net's recipe, and which epoch's weights are kept, were chosen on validation images.
Interrupted and run again, it goes on where it was. Leaves runs/fashion_mnist
(--workdir): report.html, report.json, results.jsonl, validation.svg and each run's
folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments import arms
from fmjax import cli, config
from fmjax.reporting import figures, looking, page

NETS = {
    "classic": "configs/cnn/fashion_mnist.py:classic",
    "cnn-augmented": "configs/cnn/fashion_mnist.py:augmented",
    "resnet-10": "configs/resnet/fashion_mnist.py:10",
    "resnet-wide-6": "configs/resnet/fashion_mnist.py:wide-6",
    "resnet-wide-6-muon": "configs/resnet/fashion_mnist.py:wide-6-muon",
    "resnet-20": "configs/resnet/fashion_mnist.py:20",
    "resnet-20-muon": "configs/resnet/fashion_mnist.py:20-muon",
    "inception": "configs/inception/fashion_mnist.py",
    "vit-small": "configs/vit/fashion_mnist.py:small",
    "vit": "configs/vit/fashion_mnist.py",
}


def table(results: Mapping[str, Mapping[str, Any]]) -> page.Block:
    rows = [
        {"model": name, "std": one["accuracy_by_seed"]["std"]}
        | {k: one[k] for k in ("accuracy", "ece", "nll", "seeds")}
        | {"validation": max(one["validation"])}
        for name, one in results.items()
    ]
    return page.table(
        rows,
        [
            "model",
            page.column("validation", "best validation value", ".4f"),
            page.column("accuracy", "test accuracy [95 %]", ".4f"),
            page.column("std", "std over seeds", ".4f"),
            page.column("ece", "calibration error", ".4f"),
            page.column("nll", "log loss (nats)", ".4f"),
            "seeds",
        ],
        "Test split of 10,000 images, mean over seeds",
    )


def main() -> int:
    parser = arms.parser(__doc__, "runs/fashion_mnist")
    parser.add_argument(
        "--net", action="append", choices=NETS, help="repeatable; all without"
    )
    given = parser.parse_args()
    cli.cache()
    results: dict[str, Any] = {}
    runs, classes = {}, []
    for name in given.net or NETS:
        variant = NETS[name]
        if given.tiny:
            variant = f"{variant.partition(':')[0]}:tiny"
        runs[name] = arms.seeds(
            given.workdir / name, "seed", config.load(variant), given.seeds
        )
        tested = arms.predictions(runs[name], "test")
        classes = tested["classes"]
        results[name] = arms.summary(**tested, draws=arms.draws(given.tiny))
        results[name]["steps"] = arms.steps(runs[name])
        results[name]["validation"] = [
            max(max(values) for _, values in arms.curve([f], "validation/accuracy"))
            for f in runs[name]
        ]
    arms.record(given.workdir, results)
    drawn = figures.curves(
        {
            name: arms.curve(found, "validation/accuracy")
            for name, found in runs.items()
        },
        "step",
        "validation accuracy",
    )
    arms.drawing(given.workdir / "validation.svg", drawn)
    sections = [
        page.section("Result", table(results)),
        page.section("Training", page.figure(drawn, "A thin line a seed")),
        page.section(
            "Confusion",
            *(
                page.figure(
                    figures.confusion(one["confusion"], classes), f"{name}, all seeds"
                )
                for name, one in results.items()
            ),
        ),
    ]
    for name, found in runs.items():
        seen = looking.section(found[0], f"What {name} looks at")
        sections += [seen] if seen else []
    path = page.write(
        given.workdir / "report.html", "Fashion-MNIST", sections, data=results
    )
    for name, one in results.items():
        spans = arms.shown(one["accuracy"])
        print(
            name, f"validation {one['validation']} test {spans}, ece {one['ece']:.4f}"
        )
    best = max(results, key=lambda name: max(results[name]["validation"]))
    for name, line in zip(classes, results[best]["confusion"], strict=True):
        print(f"  {name:12}", *(f"{count:6}" for count in line))
    print(f"report: {path}")
    return 0


if __name__ == "__main__":
    cli.run(main)
