"""Small language models beside n-grams: English words and Chinese characters.

    python -m experiments.language_models.run [--seeds 1]

Trains a small GPT on the words of the Brown corpus and one on the characters of the
People's Daily, counts interpolated modified Kneser-Ney n-grams on the same tokens,
mixes the two, and reports the perplexity of all three on the test splits, with texts
that the networks wrote. Interrupted and run again, it goes on where it was. Everything
is left in runs/language_models (--workdir): report.html, report.json, results.jsonl,
the figures of the README, the runs' folders.
"""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import arms
from experiments.language_models import kneser_ney, score
from fmjax import cli, config
from fmjax import generate as writing
from fmjax.data import tokenizer as tokenizers
from fmjax.reporting import figures, page

CONFIG = "configs/gpt/language_model.py"
ORDERS = (2, 3, 4, 5)
SAMPLING = dict(temperature=0.8, top_p=0.95, seed=0)


class Corpus(NamedTuple):
    title: str
    variant: str  # of CONFIG
    unit: str  # what a perplexity is of
    prompts: Sequence[str]


CORPORA = {
    "brown": Corpus(
        "Brown, words", "", "word", ("The jury said", "She was", "In the spring of")
    ),
    "peoples_daily": Corpus(
        "People's Daily, characters",
        "chinese",
        "character",
        ("新华社北京", "中国经济", "江泽民主席"),
    ),
}


def settings_of(corpus: Corpus, tiny: bool) -> dict[str, Any]:
    found = config.load(CONFIG + (f":{corpus.variant}" if corpus.variant else ""))
    if tiny:
        # Made-up text; its vocabulary is cut so that there are unknown words too.
        own = found["tokenizer"] | {"vocab_size": 24}
        found = config.load(CONFIG + ":tiny") | {"tokenizer": own}
    return found


def ngrams(
    lines: dict[str, np.ndarray], document: int, size: int
) -> tuple[dict[str, np.ndarray], dict[int, float]]:
    """Kneser-Ney's nats on validation and test, and each order's nats a token.

    The order is the best of ORDERS on validation; the test line is scored with it only.
    """
    tried: dict[int, float] = {}
    best = None
    for order in ORDERS:
        model = kneser_ney.fit(
            lines["train"], order=order, document=document, size=size
        )
        nats = -np.log(kneser_ney.probabilities(model, lines["validation"]))
        tried[order] = float(nats.mean())
        if tried[order] == min(tried.values()):
            best = model, nats
    assert best is not None
    test = -np.log(kneser_ney.probabilities(best[0], lines["test"]))
    return {"validation": best[1], "test": test}, tried


def measure(corpus: Corpus, settings: dict, folders: Sequence[pathlib.Path]) -> dict:
    """All numbers of a corpus: a model's under 'models', and what was chosen how."""
    parts = config.assemble(settings)
    roles = tokenizers.roles(parts.tokenizer)
    document, unknown = roles["document"], roles["unknown"]
    sources = {name: parts.data(name) for name in ("train", "validation", "test")}
    lines = {name: np.asarray(s.rows.line) for name, s in sources.items()}
    # All but the padding, which no model is asked for.
    size = parts.tokenizer.get_vocab_size() - 1
    counted, tried = ngrams(lines, document, size)
    said = {
        split: [score.network(folder, split) for folder in folders] for split in counted
    }
    weights = [score.best_weight(n, counted["validation"]) for n in said["validation"]]
    test = {
        "GPT": said["test"],
        "Kneser-Ney": [counted["test"]],
        "GPT + Kneser-Ney": [
            score.mixed(nats, counted["test"], weight)
            for nats, weight in zip(said["test"], weights, strict=True)
        ],
    }
    line, order = lines["test"], min(tried, key=lambda n: tried[n])
    models = {
        name: score.summary(nats, line, document=document, unknown=unknown)
        for name, nats in test.items()
    }
    against = [("GPT", "Kneser-Ney"), ("GPT + Kneser-Ney", "Kneser-Ney")]
    against += [("GPT + Kneser-Ney", "GPT")]
    options: dict[str, Any] = {
        **SAMPLING,
        "length": min(64, parts.net.max_length // 2),
        "suppress": (unknown, roles["pad"]),
    }
    rows = [{"text": prompt} for prompt in corpus.prompts]
    return {
        "title": corpus.title,
        "unit": corpus.unit,
        "facts": sources["test"].facts["corpus"],
        "sizes": {
            name: {
                k: s.facts[k] for k in ("documents", "tokens", "words", "characters")
            }
            | {"unknown": float((lines[name] == unknown).mean())}
            for name, s in sources.items()
        },
        "vocabulary": size,
        "models": models,
        "ratios": {
            f"{a} / {b}": score.ratio(test[a], test[b], line, document)
            for a, b in against
        },
        "order": order,
        "orders": [
            {"order": n, "validation perplexity of a token": float(np.exp(nats))}
            for n, nats in tried.items()
        ],
        "weights": weights,
        "samples": [
            {"prompt": prompt, "goes on": made["generated"]}
            for prompt, made in zip(
                corpus.prompts,
                writing.generate(folders[0], rows, **options),
                strict=True,
            )
        ],
    }


def learning(found: dict, folders: Sequence[pathlib.Path]) -> str:
    """The curve of validation perplexity, an SVG, with Kneser-Ney's as a level."""
    runs = [(x, np.exp(y)) for x, y in arms.curve(folders, "validation/loss")]
    level = min(o["validation perplexity of a token"] for o in found["orders"])
    ends = [0, max(int(x[-1]) for x, _ in runs)]
    drawn: dict[str, Any] = {"GPT": runs}
    drawn |= {f"Kneser-Ney, order {found['order']}": [(ends, [level] * 2)]}
    return figures.curves(drawn, "step", "validation perplexity")


def sections_of(found: dict, folders: Sequence[pathlib.Path]) -> list[page.Section]:
    unit = found["unit"]
    rows = [
        {"model": name, **{k: m[k] for k in ("perplexity", "bits", "known", "seeds")}}
        | {"std": m["by_seed"]["std"]}
        for name, m in found["models"].items()
    ]
    ratios = [{"models": name, "ratio": r} for name, r in found["ratios"].items()]
    first = next(iter(found["models"].values()))
    value, low, high = (
        [r["perplexity"][k] for r in rows] for k in ("value", "low", "high")
    )
    said = (
        f"{first['units']:,} {unit}s in {first['documents']:,} documents, "
        f"{first['unknown']:.1%} of them unknown; a vocabulary of "
        f"{found['vocabulary']:,}. Intervals are over documents. The network's weight "
        "in the mixture, from validation: "
        + ", ".join(f"{w:.2f}" for w in found["weights"])
    )
    return [
        page.section(
            found["title"],
            page.text(said),
            page.table(
                rows,
                [
                    "model",
                    page.column("perplexity", f"perplexity a {unit} [95 %]", ".1f"),
                    page.column("bits", f"bits a {unit} [95 %]", ".3f"),
                    page.column("known", "perplexity, known tokens only", ".1f"),
                    page.column("std", "std over seeds", ".2f"),
                    "seeds",
                ],
                "Test split",
            ),
            page.table(
                ratios,
                ["models", page.column("ratio", "ratio of perplexities [95 %]", ".3f")],
                "Paired on the same documents: less than 1, the first is better",
            ),
            page.figure(
                figures.bars_with_intervals(
                    [r["model"] for r in rows],
                    value,
                    low,
                    high,
                    x=f"test perplexity a {unit}",
                ),
                "Perplexity with 95 % bootstrap intervals",
            ),
            page.figure(
                learning(found, folders),
                "Perplexity of a token on validation while the network trained. Its "
                "windows there don't overlap, and half of the tokens have less than "
                "half a window before them; those of the test numbers have more",
            ),
            page.table(
                found["orders"],
                ["order", page.column("validation perplexity of a token", "", ".1f")],
                "Kneser-Ney's orders on validation",
            ),
            page.table(
                found["samples"],
                ["prompt", "goes on"],
                f"Texts by the first seed, temperature {SAMPLING['temperature']}, "
                f"top-p {SAMPLING['top_p']}, unknown words left out",
            ),
        )
    ]


def main() -> int:
    given = arms.parser(__doc__, "runs/language_models").parse_args()
    root, began = given.workdir, time.monotonic()
    cli.cache()
    results, sections, lines = dict[str, Any](), list[page.Section](), list[dict]()
    for name, corpus in CORPORA.items():
        arms.say(f"{corpus.title}: training, {given.seeds} seeds")
        settings = settings_of(corpus, given.tiny)
        folders = arms.seeds(root, name, settings, given.seeds)
        arms.say(f"{corpus.title}: n-grams, test split, samples")
        found = results[name] = measure(corpus, settings, folders)
        sections += sections_of(found, folders)
        arms.drawing(root / f"{name}.svg", learning(found, folders))
        lines += [
            {"corpus": name, "model": model, "unit": corpus.unit, **numbers}
            | {"order": found["order"], "weights": found["weights"]}
            for model, numbers in found["models"].items()
        ]
        lines += [
            {"corpus": name, "ratio": models, **numbers}
            for models, numbers in found["ratios"].items()
        ]
    facts = {name: {k: r[k] for k in ("facts", "sizes")} for name, r in results.items()}
    sections.append(
        page.section("Data", page.code(json.dumps(facts, indent=1, ensure_ascii=False)))
    )
    arms.record_lines(root, lines)
    path = page.write(
        root / "report.html",
        "Small language models beside n-grams",
        sections,
        data={"results": results},
    )
    for found in results.values():
        for model, numbers in found["models"].items():
            shown = arms.shown(numbers["perplexity"], ".1f")
            b = numbers["bits"]["value"]
            print(f"{found['title']:28} {model:18} perplexity {shown}, {b:.3f} bits")
        for one in found["samples"]:
            print(f"  {one['prompt']} -> {one['goes on']}")
    print(f"report: {path}  ({time.monotonic() - began:.0f} s)")
    return 0


if __name__ == "__main__":
    cli.run(main)
