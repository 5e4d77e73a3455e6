"""MiniLM, fine-tuned for a text classification, beside TF-IDF and the largest class.

What the experiments on topics and on BoolQ share: all three are measured on the same
published test split, with intervals and paired differences.
"""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import arms, tfidf
from fmjax import cli, config
from fmjax.metrics import bootstrap
from fmjax.reporting import figures, page

MINILM, TFIDF, LARGEST = "MiniLM", "TF-IDF + logistic regression", "largest class"


class Task(NamedTuple):
    """One data set: its config and what others report on the same split."""

    title: str
    config: str  # FILE[:VARIANT]
    claimed: Mapping[str, float]  # name -> test accuracy
    tfidf: Mapping[str, Any] = {}  # options of tfidf.fit


def f1_difference(classes: int, positive: int | None) -> bootstrap.Statistic:
    """F1 of one arm's predictions less another's, as a statistic for an interval."""
    f1 = bootstrap.f1(classes, positive)

    def statistic(weights, labels, one, other):
        return f1(weights, labels, one) - f1(weights, labels, other)

    return statistic


def measure(
    root: pathlib.Path,
    task: Task,
    settings: Mapping[str, Any],
    folders: Sequence[pathlib.Path],
    draws: int,
) -> dict[str, Any]:
    """Every number of a task's test split: arms.summary an arm, and differences."""
    load = config.part("data", settings["data"])
    train, facts = load("train"), load("test").facts
    tested = arms.predictions(folders, "test")
    labels, classes = tested["labels"], tested["classes"]
    baseline, strength = tfidf.of(settings["data"], root / "tfidf.npz", **task.tfidf)
    counts = np.bincount(
        [train.rows[i]["label"] for i in range(len(train.rows))], minlength=len(classes)
    )
    share = np.tile(counts / counts.sum(), (len(labels), 1))
    said = {
        MINILM: tested["probabilities"],
        TFIDF: baseline[None],
        LARGEST: share[None],
    }
    right = {name: arms.correct(labels, p) for name, p in said.items()}
    chosen = {name: p.argmax(-1) for name, p in said.items()}
    statistic = f1_difference(len(classes), 1 if len(classes) == 2 else None)
    differences = {
        f"{MINILM} - {other}": {
            "accuracy": bootstrap.paired_difference(
                right[MINILM], right[other], seed=0, draws=draws
            ),
            "f1": bootstrap.interval(
                *(labels, chosen[MINILM], chosen[other]),
                seed=0,
                draws=draws,
                statistic=statistic,
            ),
        }
        for other in (TFIDF, LARGEST)
    }
    ran = [json.loads((f / "result.json").read_text("utf-8")) for f in folders]
    return {
        "title": task.title,
        "classes": classes,
        "claimed": dict(task.claimed),
        "arms": {
            name: arms.summary(labels, p, classes, draws=draws)
            for name, p in said.items()
        },
        "differences": differences,
        "tfidf_C": strength,
        "steps": [one["step"] for one in ran],
        "facts": facts,
    }


def sections_of(
    found: Mapping[str, Any], folders: Sequence[pathlib.Path]
) -> list[page.Section]:
    two = len(found["classes"]) == 2
    f1 = f"F1 of {found['classes'][1]} [95 %]" if two else "macro F1 [95 %]"
    rows = [
        {"model": name, **{k: a[k] for k in ("accuracy", "f1", "ece", "nll", "seeds")}}
        | {"std": a["accuracy_by_seed"]["std"], "examples": a["examples"]}
        for name, a in found["arms"].items()
    ]
    rows += [
        {"model": f"{name} (claimed)", "accuracy": value}
        | dict.fromkeys(("f1", "ece", "nll", "seeds", "std", "examples"))
        for name, value in found["claimed"].items()
    ]
    differences = [{"arms": n, **d} for n, d in found["differences"].items()]
    own = rows[: len(found["arms"])]
    spans = [[r["accuracy"][k] for r in own] for k in ("value", "low", "high")]
    return [
        page.section(
            found["title"],
            page.table(
                rows,
                [
                    "model",
                    page.column("accuracy", "accuracy [95 %]", ".3f"),
                    page.column("f1", f1, ".3f"),
                    page.column("ece", "calibration error", ".3f"),
                    page.column("nll", "log loss (nats)", ".3f"),
                    page.column("std", "std of accuracy over seeds", ".3f"),
                    "seeds",
                    "examples",
                ],
                "Test split",
            ),
            page.table(
                differences,
                [
                    "arms",
                    page.column("accuracy", "accuracy [95 %]", "+.3f"),
                    page.column("f1", f1, "+.3f"),
                ],
                "Paired differences on the same test examples",
            ),
            page.figure(
                figures.bars_with_intervals(
                    [r["model"] for r in own],
                    spans[0],
                    spans[1],
                    spans[2],
                    x="test accuracy",
                ),
                "Accuracy with 95 % bootstrap intervals",
            ),
            page.figure(
                learning(folders), "Training and validation loss: a thin line a seed"
            ),
            page.figure(
                figures.confusion(
                    found["arms"][MINILM]["confusion"], found["classes"], MINILM
                ),
                "Confusion on the test split, summed over seeds",
            ),
            page.figure(
                figures.reliability(
                    {n: found["arms"][n]["reliability"] for n in (MINILM, TFIDF)}
                ),
                "Accuracy against confidence",
            ),
        )
    ]


def learning(folders: Sequence[pathlib.Path]) -> str:
    """The curves of a task's runs, an SVG."""
    drawn = {s: arms.curve(folders, f"{s}/loss") for s in ("train", "validation")}
    return figures.curves(drawn, "step", "loss (nats)")


def main(doc: str, title: str, workdir: str, tasks: Mapping[str, Task]) -> int:
    """The command line of an experiment: trains, tests and reports its tasks.

    doc, title: of the experiment; workdir: where it is kept by default; tasks: by name,
    which is the name of a task's folder. Several can be chosen from by --task.
    """
    parser = arms.parser(doc, workdir)
    parser.add_argument(
        "--task",
        action="append",
        choices=list(tasks),
        help="repeatable; all by default",
    )
    given = parser.parse_args()
    root, began = given.workdir, time.monotonic()
    cli.cache()
    results, sections, lines = dict[str, Any](), list[page.Section](), list[dict]()
    for name in given.task or tasks:
        task, own = tasks[name], root / name
        file = task.config.split(":")[0]
        settings = config.load(f"{file}:tiny" if given.tiny else task.config)
        arms.say(f"{task.title}: training, {given.seeds} seeds")
        folders = arms.seeds(own, "minilm", settings, given.seeds)
        arms.say(f"{task.title}: test split, TF-IDF, intervals")
        draws = 200 if given.tiny else 10_000
        found = results[name] = measure(own, task, settings, folders, draws)
        sections += sections_of(found, folders)
        arms.drawing(root / f"{name}.svg", learning(folders))
        keys = ("seeds", "examples", "accuracy", "accuracy_by_seed", "f1", "ece", "nll")
        lines += [
            {"task": name, "model": model, **{k: arm[k] for k in keys}}
            | {"confusion": arm["confusion"]}
            for model, arm in found["arms"].items()
        ]
        lines += [
            {"task": name, "difference": of, **d}
            for of, d in found["differences"].items()
        ]
    facts = {name: r["facts"] for name, r in results.items()}
    shown = json.dumps(facts, indent=1, ensure_ascii=False)
    sections.append(page.section("Data", page.code(shown)))
    arms.record_lines(root, lines)
    path = page.write(
        root / "report.html", title, sections, data={"results": results, "data": facts}
    )
    for found in results.values():
        for model, arm in found["arms"].items():
            spans = [
                f"{kind} {arm[key]['value']:.3f} "
                f"[{arm[key]['low']:.3f}, {arm[key]['high']:.3f}]"
                for kind, key in (("accuracy", "accuracy"), ("F1", "f1"))
            ]
            print(f"{found['title']:20} {model:30} {'  '.join(spans)}")
        for of, d in found["differences"].items():
            for key, x in d.items():
                span = f"{x['value']:+.3f} [{x['low']:+.3f}, {x['high']:+.3f}]"
                print(f"{found['title']:20} {of}: {key} {span}")
    print(f"report: {path}  ({time.monotonic() - began:.0f} s)")
    return 0
