"""What a run survives: faults injected by the hundred, counted.

    python -m experiments.faults.run [--trials 1.0] [--only flips kills ...]

`--trials` scales every count. Leaves runs/faults (--workdir) and its results.jsonl, a
line a fault: trials, survived, lost, and a figure where there is one to give.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import shutil
import time
from collections.abc import Callable
from typing import Any

from experiments.arms import record_lines, say
from experiments.faults import determinism, hurt, running, saving
from fmjax import cli

FAULTS: dict[str, tuple[Callable[..., dict[str, Any]], int]] = {
    "kills": (hurt.kills, 100),
    "flips": (hurt.flips, 200),
    "files": (hurt.files, 4),
    "all": (hurt.all_damaged, 10),
    "disk": (hurt.disk_full, 5),
    "locks": (hurt.locks, 10),
    "blocking": (saving.blocking, 5),
    "resumed": (running.resumed, len(running.FAMILIES)),
    "ledger": (running.ledger, 4),
    "bits": (determinism.bits, len(determinism.FAMILIES)),
    "signals": (running.signals, 20),
    "long": (running.long, 20_000),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--workdir",
        default="runs/faults",
        type=pathlib.Path,
        help="where runs and the report go (%(default)s)",
    )
    parser.add_argument(
        "--trials",
        default=1.0,
        type=float,
        help="a factor for all counts (%(default)s)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=FAULTS,
        default=list(FAULTS),
        help="these faults; all by default",
    )
    given = parser.parse_args()
    cache = given.workdir.absolute() / "measured.json"
    given.workdir.mkdir(parents=True, exist_ok=True)
    known = json.loads(cache.read_text()) if cache.exists() else {}
    for name in given.only:
        trial, count = FAULTS[name]
        room = given.workdir.absolute() / name
        shutil.rmtree(room, ignore_errors=True)
        room.mkdir()
        began = time.monotonic()
        found = trial(room, max(round(count * given.trials), 1), random.Random(0))
        known[name] = found | {"seconds": round(time.monotonic() - began, 1)}
        say(f"{name}: {json.dumps(known[name])}")
        cache.write_text(json.dumps(known))
    record_lines(given.workdir, [known[name] for name in FAULTS if name in known])
    for name in known:
        line = known[name]
        print(
            f"| {line['fault']} | {line['trials']} | {line['survived']} | "
            f"{line['lost']} | {line['figure']} |"
        )
    return int(any(line["lost"] for line in known.values()))


if __name__ == "__main__":
    cli.run(main)
