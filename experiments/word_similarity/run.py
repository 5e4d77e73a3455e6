"""Do the public MiniLM's vectors find words alike as people do? Nothing is trained.

    python -m experiments.word_similarity.run

Reads the packaged weights by `fmjax.interop`, checks the vector of a sentence against
the published one, and reports Spearman's correlation of cosines with people's scores on
WordSim-353, SimLex-999 and MEN. Leaves runs/word_similarity (--workdir): report.html,
report.json, results.jsonl.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments import arms
from fmjax import cli, config, interop
from fmjax.data.inputs import text
from fmjax.metrics import bootstrap, similarity
from fmjax.reporting import figures, page

CHECKPOINT = "all-MiniLM-L6-v2"
SETS = {"wordsim353": "WordSim-353", "simlex999": "SimLex-999", "men": "MEN"}
SENTENCE = "This is an example sentence"
# The first numbers of its vector as sentence-transformers gives it, to four places.
PUBLISHED = (0.0677, 0.0635, 0.0487, 0.0793, 0.0374)


def vectors(
    checkpoint: str | pathlib.Path,
    texts: Sequence[str],
    *,
    length: int = 16,
    batch: int = 64,
) -> np.ndarray:
    """Unit vectors float32 [N, D] of texts, the mean of their tokens' states.

    checkpoint: as in `interop.load`; a text beyond `length` pieces is cut there.
    """
    net, variables = interop.load(checkpoint, head="embed")
    encode = text.make(tokenizer=interop.tokenizer(checkpoint), length=length)
    apply, found = jax.jit(net.apply), []
    for start in range(0, len(texts), batch):
        # The last batch is filled up with its last text, so that one shape is compiled.
        part = list(texts[start : start + batch])
        filled = part + part[-1:] * (batch - len(part))
        rows = [encode({"text": one}, None)["inputs"] for one in filled]
        inputs = {k: np.stack([row[k] for row in rows]) for k in ("tokens", "mask")}
        found.append(np.asarray(apply(variables, inputs))[: len(part)])
    return np.concatenate(found)


def measure(
    checkpoint: str | pathlib.Path, dataset: str, *, draws: int = 10_000
) -> dict[str, Any]:
    """A set's count, spearman with its interval, and pearson."""
    source = config.part("data", dict(name="word_similarity", dataset=dataset))("test")
    rows = [source.rows[i] for i in range(len(source.rows))]
    words = sorted({row[side] for row in rows for side in ("first", "second")})
    place = {word: i for i, word in enumerate(words)}
    found = vectors(checkpoint, words)
    one, other = (found[[place[r[s]] for r in rows]] for s in ("first", "second"))
    cosine = np.einsum("nd,nd->n", one, other)
    score = np.array([row["score"] for row in rows])
    computed = similarity.compute(cosine=cosine, score=score)
    interval = bootstrap.interval(
        cosine, score, seed=0, draws=draws, statistic=similarity.spearman
    )
    return {
        "count": computed["count"],
        "words": len(words),
        "spearman": interval,
        "pearson": computed["pearson"],
        "facts": source.facts,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--workdir",
        default="runs/word_similarity",
        type=pathlib.Path,
        help="where runs and the report go (%(default)s)",
    )
    parser.add_argument(
        "--checkpoint",
        default=CHECKPOINT,
        help="any BERT: a folder or name (%(default)s)",
    )
    given = parser.parse_args()
    root, began = given.workdir, time.monotonic()
    root.mkdir(parents=True, exist_ok=True)
    cli.cache()
    beginning = vectors(given.checkpoint, [SENTENCE])[0, :5]
    shown = " ".join(f"{x:.4f}" for x in beginning)
    note = f"{SENTENCE!r} starts {shown}"
    print(note)
    results = {name: measure(given.checkpoint, name) for name in SETS}
    rows = [
        {"set": SETS[name], **{k: r[k] for k in ("count", "spearman", "pearson")}}
        for name, r in results.items()
    ]
    spans = [[r["spearman"][k] for r in rows] for k in ("value", "low", "high")]
    drawn = figures.bars_with_intervals(
        list(SETS.values()), spans[0], spans[1], spans[2], x="Spearman correlation"
    )
    path = page.write(
        root / "report.html",
        "Word similarity by a public BERT",
        [
            page.section(
                "Result",
                page.text(note),
                page.table(
                    rows,
                    [
                        "set",
                        page.column("count", "pairs"),
                        page.column("spearman", "Spearman [95 %]", ".3f"),
                        page.column("pearson", "Pearson", ".3f"),
                    ],
                    "Cosines against people's scores; intervals over pairs",
                ),
                page.figure(drawn, "Rank correlation with 95 % bootstrap intervals"),
            )
        ],
        data={"results": results, "checkpoint": str(given.checkpoint)},
    )
    arms.drawing(root / "spearman.svg", drawn)
    keys = ("count", "words", "spearman", "pearson")
    lines = [{"set": n, **{k: r[k] for k in keys}} for n, r in results.items()]
    arms.record_lines(root, lines)
    for row in rows:
        x = row["spearman"]
        print(
            f"{row['set']:12} {row['count']:5} pairs  Spearman {x['value']:.3f} "
            f"[{x['low']:.3f}, {x['high']:.3f}]  Pearson {row['pearson']:.3f}"
        )
    print(f"report: {path}  ({time.monotonic() - began:.0f} s)")
    return 0


if __name__ == "__main__":
    cli.run(main)
