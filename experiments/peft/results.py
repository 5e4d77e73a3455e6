"""The numbers of the comparison, its two figures and its report."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import arms
from experiments.peft import methods as compared
from fmjax import checkpoint, config
from fmjax.metrics import bootstrap
from fmjax.reporting import figures, page
from fmjax.transforms import adalora

Folders = Sequence[pathlib.Path]
# Pairs whose order the papers tell.
PAIRS = (
    ("LoRA r 4", "BitFit"),
    ("LoRA r 4", "Houlsby adapter"),
    ("LoRA r 4", "prefix"),
    ("LoRA r 16", "LoRA r 1"),
    ("AdaLoRA", "LoRA r 4"),
    ("DoRA r 4", "LoRA r 4"),
    ("(IA)^3", "LoRA r 4"),
    ("Pfeiffer adapter", "Houlsby adapter"),
    ("Houlsby adapter", "top layer"),
    ("prompt", "probe"),
    ("top layer", "probe"),
    ("LoRA r 4", "probe"),
    ("LoRA r 4", "adapter"),
)
KEYS = ("seeds", "examples", "accuracy", "accuracy_by_seed", "f1", "nll", "ece")


def measure(
    cost: Mapping[str, Mapping[str, Any]],
    best: Mapping[str, Mapping[str, Any]],
    runs: Mapping[str, Folders],
    few: Mapping[str, Mapping[int, Folders]],
    draws: int,
) -> dict[str, Any]:
    """All numbers: `methods` by name, `differences` by pair, `shots` a row each."""
    tested = {name: arms.predictions(own, "test") for name, own in runs.items()}
    methods, right = {}, {}
    for name, one in tested.items():
        said, labels = one["probabilities"], one["labels"]
        found = arms.summary(labels, said, one["classes"], draws=draws)
        right[name] = arms.correct(labels, said)
        methods[name] = {
            **cost[name],
            "rate": best[name]["rate"],
            "validation": best[name]["validation"],
            **{key: found[key] for key in KEYS},
        }
        if name == "AdaLoRA":
            kept = adalora.ranks(checkpoint.weights(runs[name][0])["params"])
            methods[name]["ranks"] = kept
    pairs = [(name, "full") for name in runs if name != "full"]
    pairs += [pair for pair in PAIRS if set(pair) <= set(runs)]
    shots: list[dict[str, Any]] = []
    for name, by_number in few.items():
        for number, own in by_number.items():
            one = arms.predictions(own, "test")
            hits = arms.correct(one["labels"], one["probabilities"])
            shots.append(
                {
                    "method": name,
                    "per_class": number,
                    "accuracy": bootstrap.interval(hits, seed=0, draws=draws),
                    "by_episode": hits.mean(1).tolist(),
                }
            )
    return {
        "methods": methods,
        "differences": {
            f"{a} - {b}": bootstrap.paired_difference(
                right[a], right[b], seed=0, draws=draws
            )
            for a, b in pairs
            if "full" in runs or b != "full"
        },
        "shots": shots,
    }


def lines(task: str, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """results.jsonl's."""
    rows = [
        *({"method": name, **one} for name, one in found["methods"].items()),
        *({"difference": name, **one} for name, one in found["differences"].items()),
        *found["shots"],
    ]
    return [{"task": task, **row} for row in rows]


def scatter(found: Mapping[str, Any]) -> str:
    """Accuracy over trained parameters, SVG."""
    named = {
        name: (one["trained"], *(one["accuracy"][k] for k in ("value", "low", "high")))
        for name, one in found["methods"].items()
    }
    return figures.points(named, "trained parameters", "test accuracy", log=True)


def shots(found: Mapping[str, Any], seen: int) -> str:
    """Accuracy over examples a class, a thin line an episode, SVG.

    seen: examples a class that a run on the whole set draws.
    """
    drawn = {}
    for name in dict.fromkeys(one["method"] for one in found["shots"]):
        own = [one for one in found["shots"] if one["method"] == name]
        numbers = [*(one["per_class"] for one in own), seen]
        whole = found["methods"][name]["accuracy"]["value"]
        episodes = zip(*(one["by_episode"] for one in own), strict=True)
        drawn[name] = [(numbers, [*ys, whole]) for ys in episodes]
    return figures.curves(drawn, "examples a class", "test accuracy", log=True)


def write(
    root: pathlib.Path, task: str, found: Mapping[str, Any], data: Mapping, seen: int
) -> None:
    """report.html, report.json, results.jsonl and the figures."""
    arms.record_lines(root, lines(task, found))
    drawings = {"accuracy": scatter(found)}
    if found["shots"]:
        drawings["shots"] = shots(found, seen)
    for name, svg in drawings.items():
        arms.drawing(root / f"{name}.svg", svg)
    rows = [
        {"method": name, **one, "std": one["accuracy_by_seed"]["std"]}
        for name, one in found["methods"].items()
    ]
    differences = [
        {"pair": name, "accuracy": {k: one[k] for k in ("value", "low", "high")}}
        for name, one in found["differences"].items()
    ]
    accuracy = page.column("accuracy", "test accuracy [95 %]", ".3f")
    costs = [
        page.column("trained", "trained parameters", ",d"),
        page.column("optimizer_bytes", "optimizer bytes", ",d"),
        page.column("flops_ratio", "FLOPs / full", ".2f"),
        page.column("seconds_ratio", "step time / full", ".2f"),
        page.column("peak_bytes_ratio", "peak memory / full", ".2f"),
    ]
    shown = [
        page.table(
            rows,
            [
                "method",
                accuracy,
                page.column("f1", "F1, macro of many classes [95 %]", ".3f"),
                page.column("std", "std over seeds", ".3f"),
                "seeds",
                page.column("rate", "learning rate", ".2g"),
                page.column("nll", "log loss (nats)", ".3f"),
            ],
            "Test split, at the rate with the lowest validation loss",
        ),
        page.table(rows, ["method", *costs], "What a step costs"),
        page.figure(drawings["accuracy"], "Test accuracy with 95 % intervals"),
    ]
    if differences:
        gap = page.column("accuracy", "difference of accuracy [95 %]", "+.3f")
        shown.append(page.table(differences, ["pair", gap], "On the same examples"))
    sections = [page.section("Result", *shown)]
    if found["shots"]:
        columns: list[Any] = [
            "method",
            page.column("per_class", "examples a class"),
            accuracy,
        ]
        table = page.table(found["shots"], columns, "Test split")
        figure = page.figure(drawings["shots"], "A thin line an episode, and the mean")
        sections.append(page.section("Few examples a class", table, figure))
    facts = config.part("data", data)("train").facts
    shown_facts = json.dumps(facts, indent=1, ensure_ascii=False)
    sections.append(page.section("Data", page.code(shown_facts)))
    title = f"Ways to adapt: {compared.TASKS[task].title}; costs and gains"
    page.write(root / "report.html", title, sections, data={"results": found})
