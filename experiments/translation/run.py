"""English to Spanish on Bible verses: a Transformer, and what costs no attention.

    python -m experiments.translation.run [--seeds 1]

Fetches the verses, learns a vocabulary, trains a small Transformer, translates the
three books of the test split greedily and with four beams, and scores both beside a
word-by-word dictionary (IBM Model 1) and the English as it is. Interrupted and run
again, it goes on where it was. Everything is left in runs/translation (--workdir):
report.html, report.json, results.jsonl, loss.svg, the runs' folders.
"""

from __future__ import annotations

import json
import pathlib
import time

from experiments import arms
from experiments.translation import dictionary, scores
from fmjax import cli, config
from fmjax.reporting import figures, page

CONFIG = "configs/transformer/translation.py"
BEAM4, BEAM1 = "Transformer, 4 beams", "Transformer, greedy"
WORDS, COPY = "IBM Model 1, word by word", "the English as it is"
AGAINST = ((BEAM4, BEAM1), (BEAM4, WORDS), (BEAM1, WORDS))
SHOWN = 5  # verses in the report, evenly spaced in the test split


def word_by_word(spec: dict, sources: list[str]) -> tuple[list[str], int]:
    """The dictionary's translations, and how many words it has."""
    rows = config.part("data", spec)("train").rows
    pairs = (
        (row["source"], row["target"])
        for row in map(rows.__getitem__, range(len(rows)))
    )
    table = dictionary.learn(pairs)
    return [dictionary.translate(text, table) for text in sources], len(table)


def write(root: pathlib.Path, runs: list[pathlib.Path], results: dict, note: str):
    """report.html, report.json and loss.svg."""
    numbers = [page.column(k, f"{n} [95 %]", ".1f") for k, n in NAMES.items()]
    spread = [page.column(f"{k}_std", f"{n}, std", ".2f") for k, n in NAMES.items()]
    rows = [
        {"system": name, **one}
        | {f"{k}_std": one[k]["by_seed"]["std"] for k in NAMES}
        | {"seeds": len(one["bleu"]["by_seed"]["seeds"])}
        for name, one in results["systems"].items()
    ]
    signed = [page.column(k, f"{n} [95 %]", "+.1f") for k, n in NAMES.items()]
    differences = [{"systems": n, **one} for n, one in results["differences"].items()]
    loss = figures.curves(
        {s: arms.curve(runs, f"{s}/loss") for s in ("train", "validation")},
        "step",
        "loss (nats a token)",
    )
    arms.drawing(root / "loss.svg", loss)
    systems = list(results["systems"].values())
    bars = [
        page.figure(
            figures.bars_with_intervals(
                list(results["systems"]),
                [one[k]["value"] for one in systems],
                [one[k]["low"] for one in systems],
                [one[k]["high"] for one in systems],
                x=name,
                form=".1f",
            ),
            f"{name} with 95 % bootstrap intervals",
        )
        for k, name in NAMES.items()
    ]
    samples = [
        page.table(
            [{"by": by, "text": text} for by, text in sample.items() if by != "id"],
            ["by", "text"],
            sample["id"],
        )
        for sample in results["samples"]
    ]
    sections = [
        page.section(
            "Result",
            page.text(note),
            page.table(rows, ["system", *numbers, *spread, "seeds"], "Test split"),
            page.table(
                differences,
                ["systems", *signed],
                "Paired differences on the same test verses",
            ),
            *bars,
            page.code("\n".join(results["signatures"].values())),
        ),
        page.section(
            "Training",
            page.figure(
                loss,
                "Label-smoothed in training, plain in validation; the best weights by "
                "validation are kept",
            ),
        ),
        page.section("Samples", *samples),
        page.section(
            "Data", page.code(json.dumps(results["data"], indent=1, ensure_ascii=False))
        ),
    ]
    return page.write(
        root / "report.html", "English to Spanish", sections, data={"results": results}
    )


NAMES = {"bleu": "BLEU", "chrf": "chrF"}


def main() -> int:
    given = arms.parser(__doc__, "runs/translation").parse_args()
    root, began = given.workdir, time.monotonic()
    cli.cache()
    settings = config.load(CONFIG + ":tiny" * given.tiny)

    arms.say(f"[1/4] texts, vocabulary and training, {given.seeds} seeds")
    facts = config.part("data", settings["data"])("train").facts
    for name in ("title", "origin", "licence"):
        arms.say(f"  {name}: {facts.get(name, facts['name'])}")
    runs = arms.seeds(root, "transformer", settings, given.seeds)

    arms.say("[2/4] translation of the test split")
    said = {
        name: [arms.written(run, "test", beams=beams) for run in runs]
        for name, beams in ((BEAM1, 1), (BEAM4, 4))
    }
    rows = said[BEAM1][0]
    sources, references = ([row[k] for row in rows] for k in ("source", "reference"))
    systems = {
        name: [[row["generated"] for row in seed] for seed in said[name]]
        for name in (BEAM4, BEAM1)
    }

    arms.say("[3/4] a dictionary by IBM Model 1")
    by_word, size = word_by_word(settings["data"], sources)
    systems |= {WORDS: [by_word], COPY: [sources]}

    arms.say("[4/4] scores and report")
    results = scores.compare(systems, references, AGAINST)
    step = max(1, len(rows) // SHOWN)
    results |= {
        "verses": len(rows),
        "dictionary": size,
        "samples": [
            {"id": str(rows[i]["id"]), "English": sources[i], "Spanish": references[i]}
            | {name: seeds[0][i] for name, seeds in systems.items() if name != COPY}
            for i in range(step // 2, len(rows), step)
        ],
        "data": facts,
        "seconds": round(time.monotonic() - began, 1),
    }
    gain = results["differences"][f"{BEAM4} - {WORDS}"]["bleu"]
    note = (
        f"On {len(rows):,} test verses the Transformer with four beams is "
        f"{gain['value']:+.1f} [{gain['low']:+.1f}, {gain['high']:+.1f}] BLEU from "
        "the word-by-word dictionary."
    )
    path = write(root, runs, results, note)
    lines: list[dict] = [
        {"model": name, "seeds": len(systems[name]), **one}
        for name, one in results["systems"].items()
    ]
    lines += [
        {"difference": name, **one} for name, one in results["differences"].items()
    ]
    lines.append({"verses": len(rows), "signatures": results["signatures"]})
    arms.record_lines(root, lines)
    for name, one in results["systems"].items():
        shown = (
            f"{NAMES[k]} {x['value']:.1f} [{x['low']:.1f}, {x['high']:.1f}]"
            for k, x in one.items()
        )
        print(f"{name:28}", *shown)
    print(note)
    print(f"report: {path}  ({results['seconds']} s)")
    return 0


if __name__ == "__main__":
    cli.run(main)
