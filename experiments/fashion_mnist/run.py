"""The classic small CNN on Fashion-MNIST: three seeds, the official test split.

    python -m experiments.fashion_mnist.run [--size classic] [--seeds 3]

Interrupted and run again, it goes on where it was. Leaves runs/fashion_mnist/SIZE
(--workdir): report.html, report.json, results.jsonl and each run's folder.
"""

from __future__ import annotations

import argparse
import pathlib

from experiments import arms
from fmjax import cli, config, figures, page

CONFIG = "configs/cnn/fashion_mnist.py"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", default="runs/fashion_mnist", type=pathlib.Path)
    parser.add_argument("--size", default="classic", help="of fmjax/models/cnn.py")
    parser.add_argument("--seeds", default=3, type=int)
    given = parser.parse_args()
    cli.cache()
    root = given.workdir / given.size
    settings = config.load(f"{CONFIG}:{given.size}")
    folders = arms.seeds(root, "seed", settings, given.seeds)
    tested = arms.predictions(folders, "test")
    result = arms.summary(**tested)
    arms.record(root, {given.size: result})
    accuracy, std = result["accuracy"], result["accuracy_by_seed"]["std"]
    row = {"model": given.size, "std": std, **{k: result[k] for k in ("ece", "nll")}}
    sections = [
        page.section(
            "Result",
            page.table(
                [row | {"accuracy": accuracy, "seeds": result["seeds"]}],
                [
                    "model",
                    page.column("accuracy", "accuracy [95 %]", ".4f"),
                    page.column("std", "std over seeds", ".4f"),
                    page.column("ece", "calibration error", ".4f"),
                    page.column("nll", "log loss (nats)", ".4f"),
                    "seeds",
                ],
                "Test split of 10,000 images, mean over seeds",
            ),
            page.figure(
                figures.confusion(result["confusion"], tested["classes"]),
                "Confusion, summed over seeds",
            ),
        ),
        page.section(
            "Training",
            page.figure(
                figures.curves(
                    {
                        split: arms.curve(folders, f"{split}/loss")
                        for split in ("train", "validation")
                    },
                    "step",
                    "loss (nats)",
                ),
                "A thin line a seed; the weights of the best validation loss are kept",
            ),
        ),
    ]
    path = page.write(
        root / "report.html",
        f"Fashion-MNIST: the {given.size} CNN",
        sections,
        data={"result": result, "config": settings},
    )
    low, high = accuracy["low"], accuracy["high"]
    print(f"test accuracy {accuracy['value']:.4f} [{low:.4f}, {high:.4f}]")
    print("by seed", *(f"{a:.4f}" for a in result["accuracy_by_seed"]["seeds"]))
    for name, line in zip(tested["classes"], result["confusion"], strict=True):
        print(f"  {name:12}", *(f"{count:6}" for count in line))
    print(f"report: {path}")
    return 0


if __name__ == "__main__":
    cli.run(main)
