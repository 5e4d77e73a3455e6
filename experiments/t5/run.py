"""T5 at small scale: does span corruption help to answer yes-or-no questions?

    python -m experiments.t5.run [--seeds 1]    # of the fine-tuning

Fetches the passages, learns a vocabulary, pre-trains a small T5 by span corruption,
fine-tunes it for BoolQ as text to text, trains the same network from scratch, and lets
both write their answers to the test questions. Interrupted and run again, it goes on
where it was. Everything is left in runs/t5 (--workdir): report.html, report.json,
results.jsonl, loss.svg, the runs' folders.
"""

from __future__ import annotations

import collections
import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import arms
from fmjax import cli, config
from fmjax.metrics import bootstrap
from fmjax.metrics.question_answering import normal
from fmjax.reporting import figures, page

PRETRAIN, BOOLQ = "configs/t5/pretrain.py", "configs/t5/boolq.py"
MAJORITY = "the commoner answer"


def answers(folders: Sequence[pathlib.Path], length: int) -> dict[str, Any]:
    """Each run's written answers to the test questions, [S][N], and the right ones."""
    said = [arms.written(f, "test", length=length, batch_size=64) for f in folders]
    return {
        "written": [[row["generated"] for row in rows] for rows in said],
        "wanted": [row["reference"] for row in said[0]],
    }


def majority(spec: dict) -> str:
    """The answer that most training questions have."""
    source = config.part("data", spec)("train")
    labels = [source.rows[i]["label"] for i in range(len(source.rows))]
    return source.classes[int(np.bincount(labels).argmax())]


def right(written: Sequence[Sequence[str]], wanted: Sequence[str]) -> np.ndarray:
    """[S, N]: exact matches, as `fmjax.metrics.exact_match` compares."""
    return np.array(
        [
            [normal(a) == normal(b) for a, b in zip(texts, wanted, strict=True)]
            for texts in written
        ],
        np.float64,
    )


def write(root: pathlib.Path, results: dict, folders: dict, note: str):
    """report.html, report.json and loss.svg."""
    rows = [
        {"model": name, **{k: one[k] for k in ("accuracy", "seeds")}}
        | {"written": ", ".join(f"{k!r}: {v:,}" for k, v in one["written"].items())}
        for name, one in results["arms"].items()
    ]
    differences = [
        {"arms": name, "difference": {k: one[k] for k in ("value", "low", "high")}}
        for name, one in results["differences"].items()
    ]
    accuracy = page.column("accuracy", "accuracy [95 %]", ".3f")
    pretrain = [root / "pretrain"]
    losses = figures.curves(
        {s: arms.curve(pretrain, f"{s}/loss") for s in ("train", "validation")},
        "step",
        "loss (nats a token)",
    )
    arms.drawing(root / "loss.svg", losses)
    tuned = figures.curves(
        {name: arms.curve(runs, "validation/loss") for name, runs in folders.items()},
        "step",
        "validation loss (nats a token)",
    )
    spans = [one["accuracy"] for one in results["arms"].values()]
    sections = [
        page.section(
            "Result",
            page.text(note),
            page.table(rows, ["model", accuracy, "seeds", "written"], "Test split"),
            page.table(
                differences,
                ["arms", page.column("difference", "accuracy [95 %]", "+.3f")],
                "Paired differences of accuracy on the same test questions",
            ),
            page.figure(
                figures.bars_with_intervals(
                    list(results["arms"]),
                    [one["value"] for one in spans],
                    [one["low"] for one in spans],
                    [one["high"] for one in spans],
                    x="test accuracy",
                ),
                "Accuracy with 95 % bootstrap intervals",
            ),
        ),
        page.section(
            "Pre-training",
            page.figure(losses, "Span corruption: hidden tokens and sentinels"),
            page.table(
                [results["pretrain"]],
                [page.column(k, "", ".4f") for k in results["pretrain"]],
                "Best validation numbers",
            ),
        ),
        page.section(
            "Fine-tuning",
            page.figure(tuned, "The best weights by validation loss are kept"),
        ),
        page.section(
            "Data", page.code(json.dumps(results["data"], indent=1, ensure_ascii=False))
        ),
    ]
    title = "Does span corruption help?"
    return page.write(root / "report.html", title, sections, data={"results": results})


def main() -> int:
    given = arms.parser(__doc__, "runs/t5").parse_args()
    root, began = given.workdir, time.monotonic()
    cli.cache()

    arms.say("[1/5] texts")
    pretrain = config.load(PRETRAIN + ":tiny" * given.tiny)
    pretrained = config.load(BOOLQ + ":tiny" * given.tiny)
    specs = {
        "pre-training": pretrain["data"]["corpus"],
        "questions": pretrained["data"],
    }
    facts = {}
    for use, spec in specs.items():
        facts[use] = known = config.part("data", spec)("train").facts
        arms.say(f"  {use}: {known.get('title', known['name'])}, {known['origin']}")
        arms.say(f"    licence: {known['licence']}")

    arms.say("[2/5] vocabulary and pre-training")
    arms.fit(root / "pretrain", pretrain)

    arms.say(f"[3/5] fine-tuning, {given.seeds} seeds")
    start = config.load(BOOLQ)["init_from"] | {"path": str(root / "pretrain")}
    tuned = pretrained | {"init_from": start}
    folders = {"pre-trained": arms.seeds(root, "pretrained", tuned, given.seeds)}

    arms.say(f"[4/5] the same network from scratch, {given.seeds} seeds")
    scratch = pretrained | {"init_from": None}
    folders["scratch"] = arms.seeds(root, "scratch", scratch, given.seeds)

    arms.say("[5/5] answers to the test questions, and report")
    length = pretrained["inputs"]["target_length"]
    said = {name: answers(runs, length) for name, runs in folders.items()}
    wanted = said["scratch"]["wanted"]
    common = majority(pretrained["data"])
    said[MAJORITY] = {"written": [[common] * len(wanted)], "wanted": wanted}
    hits = {name: right(one["written"], wanted) for name, one in said.items()}
    best = dict(
        zip(*arms.curve([root / "pretrain"], "validation/loss")[0], strict=True)
    )
    step = min(best, key=best.__getitem__)
    accuracies = arms.curve([root / "pretrain"], "validation/accuracy")[0]
    results: dict[str, Any] = {
        "arms": {
            name: {
                "seeds": len(hits[name]),
                "questions": len(wanted),
                "accuracy": bootstrap.interval(hits[name], seed=0),
                "accuracy_by_seed": bootstrap.spread(hits[name].mean(1)),
                "written": dict(
                    collections.Counter(
                        t for texts in one["written"] for t in texts
                    ).most_common(10)
                ),
            }
            for name, one in said.items()
        },
        "differences": {
            f"{a} - {b}": bootstrap.paired_difference(hits[a], hits[b], seed=0)
            for a, b in (
                ("pre-trained", "scratch"),
                ("pre-trained", MAJORITY),
                ("scratch", MAJORITY),
            )
        },
        "pretrain": {
            "step": step,
            "loss": best[step],
            "accuracy": dict(zip(*accuracies, strict=True))[step],
        },
        "data": facts,
        "seconds": round(time.monotonic() - began, 1),
    }
    difference = results["differences"]["pre-trained - scratch"]
    note = (
        f"Accuracy on {len(wanted):,} test questions: pre-trained minus scratch is "
        f"{difference['value']:+.3f} "
        f"[{difference['low']:+.3f}, {difference['high']:+.3f}]."
    )
    path = write(root, results, folders, note)
    lines = [{"model": name, **one} for name, one in results["arms"].items()]
    lines += [
        {"difference": name, **one} for name, one in results["differences"].items()
    ]
    arms.record_lines(root, [*lines, {"pretrain": results["pretrain"]}])
    for name, arm in results["arms"].items():
        a = arm["accuracy"]
        print(f"{name:22} accuracy {a['value']:.3f} [{a['low']:.3f}, {a['high']:.3f}]")
    print(note)
    print(f"report: {path}  ({results['seconds']} s)")
    return 0


if __name__ == "__main__":
    cli.run(main)
