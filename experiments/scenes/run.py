"""U-Net on composed scenes, with and without its shortcuts from encoder to decoder.

    python -m experiments.scenes.run [--seeds 1]

Both nets are trained alike on scenes of real cut-outs before real textures, whose
stamps are split, and measured on scenes of stamps that neither has seen. Interrupted
and run again, it goes on where it was. Leaves runs/scenes (--workdir): report.html,
report.json, results.jsonl, overlays.png, loss.svg and the runs' folders.
"""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import numpy as np

from experiments import arms
from fmjax import cli, config, workdir
from fmjax.metrics import bootstrap, segmentation
from fmjax.reporting import figures, page, pictures

CONFIG = "configs/unet/segment.py"
NETS = {"U-Net": ("unet", True), "without shortcuts": ("noskip", False)}


def miou(weights: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Mean IoU as a statistic of scenes' confusions [K * K, N], weights [R, N].

    Of the classes that are there or predicted in a draw.
    """
    size = round(len(cells) ** 0.5)
    matrix = (weights @ cells.T).reshape(-1, size, size)
    both = np.einsum("rii->ri", matrix)
    either = matrix.sum(1) + matrix.sum(2) - both
    seen = either > 0
    return (both / np.maximum(either, 1)).sum(1) / seen.sum(1)


def difference(weights: np.ndarray, ours: np.ndarray, other: np.ndarray) -> np.ndarray:
    return miou(weights, ours) - miou(weights, other)


def measure(folders: dict[str, list[pathlib.Path]], draws: int) -> dict[str, Any]:
    """Numbers of each net on the test scenes, and the paired difference of mIoU."""
    found: dict[str, Any] = {"nets": {}}
    cells: dict[str, np.ndarray] = {}
    for name, runs in folders.items():
        confusion = [arms.said(folder, "test")["confusion"] for folder in runs]
        # Seeds are averaged as if each scene were segmented by all of them.
        whole = np.sum(confusion, axis=0)
        cells[name] = whole.reshape(len(whole), -1).T.astype(np.float64)
        numbers = segmentation.compute(
            confusion=whole, classes=arms.class_names(runs[0])
        )
        span = bootstrap.interval(cells[name], seed=0, draws=draws, statistic=miou)
        keys = ("accuracy", "dice", "per_class")
        found["nets"][name] = {k: numbers[k] for k in keys} | {
            "seeds": len(runs),
            "examples": len(whole),
            "miou": span,
            "steps": arms.steps(runs),
        }
    ours, other = cells.values()
    found["difference"] = bootstrap.interval(
        ours, other, seed=0, draws=draws, statistic=difference
    )
    # All pixels the ground: what a net gets that says nothing.
    truth = next(iter(cells.values())).sum(1).reshape(len(numbers["per_class"]), -1)
    ground = np.zeros_like(truth)
    ground[:, 0] = truth.sum(1)
    blank = segmentation.compute(confusion=ground)
    found["all background"] = {k: blank[k] for k in ("accuracy", "miou")}
    return found


def overlays(folders: dict[str, list[pathlib.Path]], count: int = 6) -> bytes:
    """PNG: test scenes, their true masks, and each net's, of its first seed."""
    runs = {name: workdir.open_run(found[0]) for name, found in folders.items()}
    first = next(iter(runs.values()))
    rows = [first.parts.data("test").rows[i] for i in range(count)]
    images = [row["image"] for row in rows]
    lines = [
        images,
        [pictures.overlay(r["image"], r["mask"].astype(int)) for r in rows],
    ]
    for run in runs.values():
        examples = [run.parts.inputs(row, None) for row in rows]
        params, extras = run.weights(examples[0])
        inputs = np.stack([example["inputs"] for example in examples])
        said = np.asarray(jax.jit(run.apply)(params, extras, inputs)[0]).argmax(-1)
        lines.append(
            [pictures.overlay(*pair) for pair in zip(images, said, strict=True)]
        )
    return pictures.grid(lines)


def main() -> int:
    given = arms.parser(__doc__, "runs/scenes").parse_args()
    cli.cache()
    root, draws = given.workdir, arms.draws(given.tiny)
    settings = config.load(CONFIG + (":tiny" if given.tiny else ""))
    folders = {}
    for name, (short, skip) in NETS.items():
        own = {**settings, "model": {**settings["model"]}}
        if not skip:
            own["model"]["skip"] = False
        folders[name] = arms.seeds(root, short, own, given.seeds)
    found = measure(folders, draws)
    lines = [{"model": name} | numbers for name, numbers in found["nets"].items()]
    lines += [
        {"model": "all background"} | found["all background"],
        {"difference": "U-Net - without shortcuts", "miou": found["difference"]},
    ]
    arms.record_lines(root, lines)
    drawn = overlays(folders)
    (root / "overlays.png").write_bytes(drawn)
    loss = figures.curves(
        {
            f"{name}, {split}": arms.curve(runs, f"{split}/cross_entropy_loss")
            for name, runs in folders.items()
            for split in ("train", "validation")
        },
        "step",
        "cross-entropy (nats a pixel)",
    )
    arms.drawing(root / "loss.svg", loss)
    classes = [
        {"class": one["class"]}
        | {
            name: numbers["per_class"][i]["iou"]
            for name, numbers in found["nets"].items()
        }
        for i, one in enumerate(found["nets"]["U-Net"]["per_class"])
    ]
    sections = [
        page.section(
            "Result",
            page.table(
                [{"model": n, **v} for n, v in found["nets"].items()],
                [
                    "model",
                    page.column("miou", "mIoU [95 %]", ".3f"),
                    page.column("dice", "mean Dice", ".3f"),
                    page.column("accuracy", "pixels right", ".3f"),
                    "seeds",
                    "examples",
                ],
                "Test scenes, of stamps in no other split",
            ),
            page.table(
                [{"model": "U-Net - without", "miou": found["difference"]}],
                ["model", page.column("miou", "mIoU [95 %]", "+.3f")],
                "Paired difference",
            ),
            page.table(
                classes,
                ["class", *(page.column(name, "", ".3f") for name in NETS)],
                "Intersection over union by class",
            ),
            page.figure(
                drawn, "Scenes, true masks, U-Net's, those of the net without shortcuts"
            ),
        ),
        page.section(
            "Training", page.figure(loss, "Cross-entropy, a thin line a seed")
        ),
    ]
    path = page.write(
        root / "report.html", "U-Net on composed scenes", sections, data=found
    )
    for name, numbers in found["nets"].items():
        print(f"{name}: mIoU {numbers['miou']['value']:.4f}", numbers["steps"])
    print("difference", found["difference"])
    print(f"report: {path}")
    return 0


if __name__ == "__main__":
    cli.run(main)
