"""MiniLM fine-tuned to tag the words of the Brown corpus, beside most frequent tags.

    python -m experiments.tagging.run [--seeds 1]

Interrupted and run again, it goes on where it was. Leaves runs/tagging (--workdir):
report.html, report.json, results.jsonl, a curve and the runs' folders.
"""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn import metrics

from experiments import arms
from experiments.tagging import baseline
from fmjax import cli, config
from fmjax.metrics import bootstrap, tagging
from fmjax.reporting import figures, page

CONFIG = "configs/bert/tagging.py"
MINILM, FREQUENT = "MiniLM", "most frequent tag, endings"


def ratio(weights: np.ndarray, right: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Right words of all words: [R] of draws of sentences.

    weights [R, N]; right [N] or [S, N], averaged over S; words [N].
    """
    return weights @ np.atleast_2d(right).mean(0) / np.maximum(weights @ words, 1)


def measure(
    settings: Mapping[str, Any], folders: Sequence[pathlib.Path], draws: int
) -> dict[str, Any]:
    """All numbers of the test split; both arms tag the words that the network can see.

    A sentence has N words at most that fit into the network's `length`.
    """
    load = config.part("data", settings["data"])
    train, test = load("train"), load("test")
    known = baseline.fit((row["words"], row["tags"]) for row in _rows(train.rows))
    made = [arms.said(folder, "test") for folder in folders]
    targets, weights = made[0]["targets"], made[0]["weights"]
    here = weights > 0
    count = here.sum(1)
    frequent = np.full_like(targets, -1)
    fresh = np.zeros_like(here)
    total = 0
    for index, row in enumerate(_rows(test.rows)):
        words = row["words"][: count[index]]
        frequent[index, here[index]] = baseline.tags(known, words)
        fresh[index, here[index]] = [w not in known.words for w in words]
        total += len(row["words"])
    said = {MINILM: [one["tags"] for one in made], FREQUENT: [frequent]}
    right = {
        name: np.stack([(tags == targets) & here for tags in arms_])
        for name, arms_ in said.items()
    }

    def accuracy(name: str, where: np.ndarray) -> dict[str, Any]:
        per = (right[name] & where).sum(-1)
        return bootstrap.interval(
            per, where.sum(-1), seed=0, draws=draws, statistic=ratio
        )

    found = {}
    for name, arms_ in said.items():
        each = [
            tagging.compute(
                tags=t, targets=targets, weights=weights, classes=test.classes
            )
            for t in arms_
        ]
        found[name] = {
            "seeds": len(arms_),
            "accuracy": accuracy(name, here),
            "known": accuracy(name, here & ~fresh),
            "unknown": accuracy(name, here & fresh),
            "by_seed": bootstrap.spread([one["accuracy"] for one in each]),
            "macro_f1": float(np.mean([one["macro_f1"] for one in each])),
            "whole_sentences": float(np.mean([o["whole_sentences"] for o in each])),
            "sentences": each[0]["sentences"],
            "words": each[0]["words"],
        }
    gap = right[MINILM].mean(0) - right[FREQUENT].mean(0)
    return {
        "arms": found,
        "difference": bootstrap.interval(
            gap.sum(-1), here.sum(-1), seed=0, draws=draws, statistic=ratio
        ),
        "tags": per_tag(said, targets, here, test.classes),
        "words_of_all": [int(here.sum()), total],
        "unknown_words": int(fresh.sum()),
        "facts": test.facts,
    }


def per_tag(
    said: Mapping[str, Sequence[np.ndarray]],
    targets: np.ndarray,
    here: np.ndarray,
    classes: Sequence[str],
) -> list[dict[str, Any]]:
    """F1 of every tag in the test, frequent ones first; of an arm's first seed."""
    truth = targets[here]
    labels, support = np.unique(truth, return_counts=True)
    scores = {
        name: metrics.f1_score(
            truth, arms_[0][here], labels=labels, average=None, zero_division=0
        )
        for name, arms_ in said.items()
    }
    return [
        {"tag": classes[labels[i]], "words": int(support[i])}
        | {name: float(score[i]) for name, score in scores.items()}
        for i in np.argsort(-support, kind="stable")
    ]


def _rows(rows: Any) -> Any:
    return (rows[i] for i in range(len(rows)))


def learning(folders: Sequence[pathlib.Path]) -> str:
    """The curve of accuracy in training, an SVG."""
    drawn = {"training": arms.curve(folders, "train/accuracy")}
    return figures.curves(drawn, "step", "accuracy of words")


def sections_of(
    found: Mapping[str, Any], folders: Sequence[pathlib.Path]
) -> list[page.Section]:
    keys = ("accuracy", "known", "unknown", "macro_f1", "whole_sentences", "seeds")
    rows = [
        {"model": name, **{k: a[k] for k in keys}} for name, a in found["arms"].items()
    ]
    spans = [[r["accuracy"][k] for r in rows] for k in ("value", "low", "high")]
    some, everything = found["words_of_all"]
    note = (
        f"{some:,} of the test's {everything:,} words are within the network's length "
        f"and measured, for both; {found['unknown_words']:,} of them are unknown, "
        f"which training lacks. {MINILM} less {FREQUENT}: accuracy "
        f"{arms.shown(found['difference'], '+.4f')}, over sentences."
    )
    return [
        page.section(
            "Result",
            page.text(note),
            page.table(
                rows,
                [
                    "model",
                    page.column("accuracy", "accuracy [95 %]", ".4f"),
                    page.column("known", "known words [95 %]", ".4f"),
                    page.column("unknown", "unknown words [95 %]", ".4f"),
                    page.column("macro_f1", "macro F1", ".3f"),
                    page.column("whole_sentences", "sentences all right", ".3f"),
                    "seeds",
                ],
                "Test split",
            ),
            page.figure(
                figures.bars_with_intervals(
                    [r["model"] for r in rows],
                    spans[0],
                    spans[1],
                    spans[2],
                    x="accuracy",
                    form=".4f",
                ),
                "Accuracy with 95 % bootstrap intervals over sentences",
            ),
            page.figure(learning(folders), "Accuracy while training: a line a seed"),
            page.table(
                found["tags"][:40],
                ["tag", "words", *(page.column(n, "", ".3f") for n in found["arms"])],
                "F1 of the most frequent tags",
            ),
        ),
        page.section("Data", page.code(json.dumps(found["facts"], indent=1))),
    ]


def main() -> int:
    given = arms.parser(__doc__, "runs/tagging").parse_args()
    root, began = given.workdir, time.monotonic()
    cli.cache()
    settings = config.load(CONFIG + ":tiny" * given.tiny)
    arms.say(f"training, {given.seeds} seeds")
    folders = arms.seeds(root, "minilm", settings, given.seeds)
    arms.say("test split, most frequent tags, intervals")
    found = measure(settings, folders, arms.draws(given.tiny))
    arms.drawing(root / "accuracy.svg", learning(folders))
    lines: list[dict[str, Any]] = [
        {"model": name, **arm} for name, arm in found["arms"].items()
    ]
    lines += [{"difference": f"{MINILM} - {FREQUENT}", **found["difference"]}]
    arms.record_lines(root, lines)
    path = page.write(
        root / "report.html",
        "Parts of speech: MiniLM beside most frequent tags",
        sections_of(found, folders),
        data={"results": found},
    )
    for name, arm in found["arms"].items():
        keys = ("accuracy", "known", "unknown")
        spans = [f"{key} {arms.shown(arm[key])}" for key in keys]
        print(f"{name:28} {'  '.join(spans)}  macro F1 {arm['macro_f1']:.3f}")
    print(f"difference {arms.shown(found['difference'], '+.4f')}")
    print(f"report: {path}  ({time.monotonic() - began:.0f} s)")
    return 0


if __name__ == "__main__":
    cli.run(main)
