"""ImageNet's MobileNetV2 on stamps' categories: frozen, trained further, from chance.

    python -m experiments.stamps.run [--seeds 3] [--episodes 5]

A linear probe on the frozen net's features, the same net trained further, and one from
chance with as many steps; probes of few stamps a category; each tested once.
Interrupted and run again, it goes on where it was. Leaves runs/stamps (--workdir):
report.html, report.json, results.jsonl, shots.svg, loss.svg, the features and the
runs' folders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments import arms
from experiments.stamps import probe
from fmjax import cli, config
from fmjax.metrics import bootstrap
from fmjax.reporting import figures, page

CONFIG = "configs/mobilenet/stamps.py"
TRAINED = {"trained further": "full", "from chance": "scratch"}
PROBED = {"probe": "full", "probe of a net from chance": "scratch"}
SHOTS = (1, 2, 5, 10, 20)  # stamps a category


def settings(variant: str, tiny: bool) -> dict[str, Any]:
    found: dict[str, Any] = config.load(f"{CONFIG}:{'tiny' if tiny else variant}")
    if tiny:
        found["optim"]["train"] = None
        found["model"]["frozen_norm"] = variant != "scratch"
    return found


def few(
    found: probe.Features,
    data: Mapping[str, Any],
    shots: Any,
    episodes: int,
    draws: int,
) -> list[dict[str, Any]]:
    """Probes of few examples a class, a row each number of them."""
    rows = []
    for number in shots:
        places = [probe.episode(data, number, e) for e in range(episodes)]
        penalty, said = probe.chosen(found, places)
        hits = arms.correct(found["test"][1], said)
        rows.append(
            {
                "per_class": number,
                "penalty": penalty,
                "accuracy": bootstrap.interval(hits, seed=0, draws=draws),
                "by_episode": hits.mean(1).tolist(),
            }
        )
    return rows


def main() -> int:
    parser = arms.parser(__doc__, "runs/stamps", seeds=3)
    parser.add_argument(
        "--episodes", default=5, type=int, help="draws of few stamps (%(default)s)"
    )
    given = parser.parse_args()
    root, tiny, draws = given.workdir, given.tiny, 200 if given.tiny else 10_000
    shots = (1, 2) if tiny else SHOTS
    cli.cache()

    said: dict[str, np.ndarray] = {}
    extra: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    features = {}
    for name, variant in PROBED.items():
        own = settings(variant, tiny)
        features[name] = probe.features(root / f"features-{variant}.npz", own)
        penalty, said[name] = probe.chosen(features[name], [None])
        extra[name] = {"penalty": penalty}
        arms.say(f"{name}: penalty {penalty:g}")
        for row in few(features[name], own["data"], shots, given.episodes, draws):
            rows.append({"probe": name, **row})
    labels, taught = features["probe"]["test"][1], features["probe"]["train"][1]

    runs = {
        name: arms.seeds(root, variant, settings(variant, tiny), given.seeds)
        for name, variant in TRAINED.items()
    }
    for name, folders in runs.items():
        tested = arms.predictions(folders, "test")
        said[name], classes = tested["probabilities"], tested["classes"]
        ended = json.loads((folders[0] / "result.json").read_text("utf-8"))
        extra[name] = {"steps": ended["step"]}
    share = np.bincount(taught, minlength=len(classes)) / len(taught)
    said["largest class"] = np.tile(share, (1, len(labels), 1))

    results = {
        name: arms.summary(labels, p, classes, draws=draws) | extra.get(name, {})
        for name, p in said.items()
    }
    right = {name: arms.correct(labels, p) for name, p in said.items()}
    pairs = [("trained further", "probe"), ("trained further", "from chance")]
    pairs += [("probe", "from chance"), ("probe", "probe of a net from chance")]
    gaps = {
        f"{a} - {b}": bootstrap.paired_difference(
            right[a], right[b], seed=0, draws=draws
        )
        for a, b in pairs
    }
    keys = [
        *("seeds", "examples", "accuracy", "accuracy_by_seed", "f1", "nll", "ece"),
        *("confusion", "penalty", "steps"),
    ]
    lines = [
        {"model": name, **{k: one[k] for k in keys if k in one}}
        for name, one in results.items()
    ]
    lines += [{"difference": name, **one} for name, one in gaps.items()]
    arms.record_lines(root, [*lines, *rows])
    report(root, results, gaps, rows, runs, features["probe"]["train"][1])
    for name, one in results.items():
        print(
            f"{name:28}",
            "{value:.3f} [{low:.3f}, {high:.3f}]".format(**one["accuracy"]),
        )
    return 0


def report(root, results, gaps, rows, runs, taught) -> None:
    """report.html, report.json and the figures."""
    mean = len(taught) / len(np.unique(taught))
    drawn = {}
    for name in PROBED:
        own = [row for row in rows if row["probe"] == name]
        at = [*(row["per_class"] for row in own), mean]
        whole = results[name]["accuracy"]["value"]
        episodes = zip(*(row["by_episode"] for row in own), strict=True)
        drawn[name] = [(at, [*ys, whole]) for ys in episodes]
    few_svg = figures.curves(drawn, "stamps a category", "test accuracy", log=True)
    curves = {
        f"{name}, {split}": arms.curve(folders, f"{split}/loss")
        for name, folders in runs.items()
        for split in ("train", "validation")
    }
    loss_svg = figures.curves(curves, "step", "loss (nats)")
    for name, svg in (("shots", few_svg), ("loss", loss_svg)):
        arms.drawing(root / f"{name}.svg", svg)
    table = [
        {"model": name, "std": one["accuracy_by_seed"]["std"]}
        | {k: one[k] for k in ("accuracy", "f1", "nll", "seeds")}
        for name, one in results.items()
    ]
    accuracy = page.column("accuracy", "test accuracy [95 %]", ".3f")
    columns: list[Any] = [
        "model",
        accuracy,
        page.column("f1", "macro F1 [95 %]", ".3f"),
        page.column("nll", "log loss (nats)", ".3f"),
        page.column("std", "std over seeds", ".3f"),
        "seeds",
    ]
    spans = [
        {"pair": name, "accuracy": {k: one[k] for k in ("value", "low", "high")}}
        for name, one in gaps.items()
    ]
    gap = page.column("accuracy", "difference of accuracy [95 %]", "+.3f")
    number = page.column("per_class", "stamps a category")
    sections = [
        page.section(
            "Result",
            page.table(table, columns, "Test stamps"),
            page.table(spans, ["pair", gap], "On the same stamps"),
        ),
        page.section(
            "Few stamps",
            page.table(rows, ["probe", number, accuracy], "Probes, mean of episodes"),
            page.figure(few_svg, "A thin line an episode"),
        ),
        page.section("Training", page.figure(loss_svg, "A thin line a seed")),
    ]
    data = {"results": results, "differences": gaps, "few": rows}
    page.write(
        root / "report.html", "ImageNet's MobileNetV2 on stamps", sections, data=data
    )


if __name__ == "__main__":
    cli.run(main)
