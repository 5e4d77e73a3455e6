"""Does pre-training help? BERT pre-trained and fine-tuned, against BERT from scratch.

    python -m experiments.sentiment.run [--full]

Fetches the texts, learns a vocabulary, pre-trains a small BERT, fine-tunes it three
times for movie sentiment, trains the same network from scratch three times, and reports
all of it on the test split beside TF-IDF with logistic regression. `--full` adds the
public MiniLM. Interrupted and run again, it goes on where it was. Everything is left in
runs/sentiment (--workdir): report.html, report.json, results.jsonl, the runs' folders.
"""

from __future__ import annotations

import json
import pathlib
import time
from typing import Any

from experiments import arms, tfidf
from fmjax import cli, config
from fmjax.metrics import bootstrap
from fmjax.reporting import figures, page

SENTENCES = (
    "A warm, funny and beautifully acted film.",
    "It is far too long, and nothing in it rings true.",
    "Not bad at all.",
)
PRETRAIN, SENTIMENT = "configs/bert/pretrain.py", "configs/bert/sentiment.py"


def fetch(specs: dict[str, dict]) -> dict[str, Any]:
    """Fetches, verifies and prepares the texts, and prints what they are."""
    found = {}
    for use, spec in specs.items():
        facts = found[use] = config.part("data", spec)("train").facts
        title = facts.get("title", facts["name"])
        arms.say(f"  {use}: {title}, from {facts['origin']}")
        arms.say(f"    licence: {facts['licence']}")
        for name in ("counts", "bytes", "score zero, left out", "duplicates, left out"):
            if name in facts:
                arms.say(f"    {name}: {facts[name]}")
    return found


def write(root: pathlib.Path, facts: dict, results: dict, folders: dict, note: str):
    """report.html and report.json."""
    classes = results["classes"]
    rows = [
        {"model": name, **{k: r[k] for k in ("accuracy", "f1", "ece", "nll", "seeds")}}
        | {"std": r["accuracy_by_seed"]["std"]}
        for name, r in results["arms"].items()
    ]
    columns: list[Any] = [
        "model",
        page.column("accuracy", "accuracy [95 %]", ".3f"),
        page.column("f1", "F1 positive [95 %]", ".3f"),
        page.column("ece", "calibration error", ".3f"),
        page.column("nll", "log loss (nats)", ".3f"),
        page.column("std", "std of accuracy over seeds", ".3f"),
        "seeds",
    ]
    differences = [{"arms": name, **d} for name, d in results["differences"].items()]
    for row in differences:
        row["difference"] = {k: row[k] for k in ("value", "low", "high")}
    drawn = {name: runs for name, runs in folders.items() if len(runs)}
    pretrain = [root / "pretrain"]
    terms = ("loss", "masked_lm_loss", "next_sentence_loss")
    accuracies = ("masked_lm_accuracy", "next_sentence_accuracy")
    spans = [[r["accuracy"][k] for r in rows] for k in ("value", "low", "high")]
    confusions = [
        page.figure(figures.confusion(r["confusion"], classes, name), f"{name}: test")
        for name, r in results["arms"].items()
    ]
    wanted = ("title", "origin", "licence", "citation")
    sources = [{"use": use} | {k: f.get(k) for k in wanted} for use, f in facts.items()]
    sections = [
        page.section(
            "Result",
            page.text(note),
            page.table(rows, columns, "Test split, means over seeds"),
            page.table(
                differences,
                ["arms", page.column("difference", "accuracy [95 %]", "+.3f")],
                "Paired differences of accuracy on the same test examples",
            ),
            page.figure(
                figures.bars_with_intervals(
                    [r["model"] for r in rows],
                    spans[0],
                    spans[1],
                    spans[2],
                    x="test accuracy",
                ),
                "Accuracy with 95 % bootstrap intervals",
            ),
        ),
        page.section(
            "Pre-training",
            page.figure(
                figures.curves(
                    {t: arms.curve(pretrain, f"train/{t}") for t in terms},
                    "step",
                    "nats",
                ),
                "Training losses: masked words, next sentence, and their sum",
            ),
            page.figure(
                figures.curves(
                    {a: arms.curve(pretrain, f"validation/{a}") for a in accuracies},
                    "step",
                    "accuracy",
                ),
                "Validation accuracies",
            ),
            page.table(
                [results["pretrain"]],
                [page.column(k, "", ".4f") for k in results["pretrain"]],
                "Best validation numbers",
            ),
        ),
        page.section(
            "Fine-tuning",
            page.figure(
                figures.curves(
                    {n: arms.curve(f, "validation/loss") for n, f in drawn.items()},
                    "step",
                    "validation loss (nats)",
                ),
                "Validation loss: a thin line a seed; the best weights are kept",
            ),
        ),
        page.section("Confusion", *confusions),
        page.section(
            "Calibration",
            page.figure(
                figures.reliability(
                    {n: r["reliability"] for n, r in results["arms"].items()}
                ),
                "Accuracy against confidence",
            ),
        ),
        page.section(
            "Data",
            page.table(sources, ["use", *wanted], "What was fetched"),
            page.code(json.dumps(facts, indent=1, ensure_ascii=False)),
        ),
    ]
    return page.write(
        root / "report.html",
        "Does pre-training help?",
        sections,
        data={"results": results, "data": facts},
    )


def main() -> int:
    parser = arms.parser(__doc__, "runs/sentiment", seeds=3)
    parser.add_argument("--full", action="store_true", help="also the public MiniLM")
    given = parser.parse_args()
    root, began = given.workdir, time.monotonic()
    cli.cache()
    stages = 6 + given.full

    arms.say(f"[1/{stages}] texts")
    pretrain = config.load(PRETRAIN + ":tiny" * given.tiny)
    pretrained = config.load(SENTIMENT + ":tiny" * given.tiny)
    corpus, texts = pretrain["data"]["corpus"], pretrained["data"]
    facts = fetch({"pre-training": corpus, "sentiment": texts})

    arms.say(f"[2/{stages}] vocabulary and pre-training")
    arms.fit(root / "pretrain", pretrain)
    start = config.load(SENTIMENT)["init_from"]
    pretrained["init_from"] = start | {"path": str(root / "pretrain")}

    arms.say(f"[3/{stages}] fine-tuning, {given.seeds} seeds")
    folders = {"pre-trained": arms.seeds(root, "pretrained", pretrained, given.seeds)}

    arms.say(f"[4/{stages}] the same network from scratch, {given.seeds} seeds")
    scratch = pretrained | {"init_from": None}
    folders["scratch"] = arms.seeds(root, "scratch", scratch, given.seeds)

    if given.full:
        arms.say(f"[5/{stages}] the public MiniLM, {given.seeds} seeds")
        minilm = config.load(SENTIMENT + ":minilm")
        folders["MiniLM"] = arms.seeds(root, "minilm", minilm, given.seeds)

    arms.say(f"[{stages - 1}/{stages}] test split, and TF-IDF with logistic regression")
    tested = {name: arms.predictions(runs, "test") for name, runs in folders.items()}
    labels, classes = (tested["scratch"][k] for k in ("labels", "classes"))
    probabilities, strength = tfidf.of(texts, root / "tfidf.npz")
    everything = {name: t["probabilities"] for name, t in tested.items()}
    everything["TF-IDF + logistic regression"] = probabilities[None]
    right = {n: arms.correct(labels, p) for n, p in everything.items()}
    against = [("pre-trained", "scratch"), ("pre-trained", list(everything)[-1])]
    against += [("MiniLM", "pre-trained")] if given.full else []
    last = arms.curve([root / "pretrain"], "validation/loss")[0]
    best = min(zip(last[1], last[0], strict=True))[1]
    lines = {
        name: dict(
            zip(*arms.curve([root / "pretrain"], f"validation/{name}")[0], strict=True)
        )
        for name in (
            "masked_lm_loss",
            "next_sentence_loss",
            "masked_lm_accuracy",
            "next_sentence_accuracy",
        )
    }
    results: dict[str, Any] = {
        "classes": classes,
        "arms": {
            name: arms.summary(labels, p, classes) for name, p in everything.items()
        },
        "differences": {
            f"{a} - {b}": bootstrap.paired_difference(right[a], right[b], seed=0)
            for a, b in against
        },
        "pretrain": {name: values[best] for name, values in lines.items()},
        "tfidf_C": strength,
        "seconds": round(time.monotonic() - began, 1),
    }

    arms.say(f"[{stages}/{stages}] report")
    difference = results["differences"]["pre-trained - scratch"]
    note = (
        f"Accuracy on {len(labels):,} test snippets: pre-trained minus scratch is "
        f"{difference['value']:+.3f} "
        f"[{difference['low']:+.3f}, {difference['high']:+.3f}]."
    )
    path = write(root, facts, results, folders, note)
    arms.record(root, results["arms"])
    for name, arm in results["arms"].items():
        a = arm["accuracy"]
        print(f"{name:30} accuracy {a['value']:.3f} [{a['low']:.3f}, {a['high']:.3f}]")
    print(note)
    print(f"report: {path}  ({results['seconds']} s)")
    from fmjax.predict import predict

    rows = [{"text": text} for text in SENTENCES]
    for row, said in zip(rows, predict(folders["pre-trained"][0], rows), strict=True):
        print(f"  {row['text']!r}: {said['label']} ({said['probability']:.2f})")
    return 0


if __name__ == "__main__":
    cli.run(main)
