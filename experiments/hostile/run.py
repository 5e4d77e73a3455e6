"""Spoiled files of every kind that fmjax reads, and bombs: who is fooled?

python -m experiments.hostile.run [--files 10000] [--seed 0]

Each kind is read in a process of its own (`fuzz`). Writes results.jsonl beside this
file where the counts are whole, and prints the table of README.md. Exit status 1 where
anything was fooled.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys

from experiments import arms
from experiments.hostile import bombs, corpus

HERE = pathlib.Path(__file__).parent
WHOLE = 10_000


def one(kind: str, files: int, seed: int) -> dict:
    """The counts of a kind; a reader that was killed shows as wrong."""
    words = [sys.executable, "-m", "experiments.hostile.fuzz", kind]
    words += ["--files", str(files), "--seed", str(seed)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=HERE.parents[1])
    lines = done.stdout.splitlines()
    if not lines:
        what = f"exit status {done.returncode}: {done.stderr[-300:]}"
        return {"kind": kind, "files": 0, "refused": 0, "accepted": 0, "wrong": [what]}
    return dict(json.loads(lines[-1]))


def table(found: list[dict]) -> str:
    """Markdown."""
    rows = [
        "| kind | files | refused | accepted, and whole | fooled | longest, ms | MB |",
        "|---|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {x['kind']} | {x['files']:,} | {x['refused']:,} | {x['accepted']:,} | "
        f"{len(x['wrong'])} | {x.get('longest_ms', '-')} | {x.get('memory_mb', '-')} |"
        for x in found
    ]
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--files", type=int, default=WHOLE, help="of each kind (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the spoiling (%(default)s)"
    )
    given = parser.parse_args()
    found = []
    for kind in (*corpus.KINDS, "bombs"):
        found.append(one(kind, given.files, given.seed))
        arms.say(json.dumps(found[-1]))
    print(table(found))
    if given.files >= WHOLE:
        arms.record_lines(HERE, found)
    expected = [given.files] * len(corpus.KINDS) + [len(bombs.BOMBS)]
    short = [x["kind"] for x, n in zip(found, expected, strict=True) if x["files"] < n]
    return 1 if short or any(x["wrong"] for x in found) else 0


if __name__ == "__main__":
    sys.exit(main())
