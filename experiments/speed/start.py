"""How long a process takes until its first step is done, beside torch's.

    pip install -e '.[experiments,parity]'
    python -m experiments.speed.start [--rounds 3] [--only GPT-2]

The nets and batches of experiments.speed.train_step. Each way to start is a process of
its own, in turns: fmjax's train with an empty cache of compiled programs (`cold`), the
same with the initialisation compiled at XLA's usual level (`usual`), again with what
the first one left (`warm`), and a script that makes the public implementation's net in
torch and steps once. Time and processor seconds are those from the start of Python to
the first step's loss. A line a case goes to start.jsonl beside this file, or to
--output.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from experiments.speed import generation, train_step

WAYS = ("cold", "usual", "warm", "torch")


def child(way: str, name: str, folder: pathlib.Path, workdir: pathlib.Path) -> None:
    """One step, whose loss is a line of standard error with '1/1 loss'."""
    case = train_step.CASES[name]
    if way == "torch":
        with np.load(folder / "batch.npz") as kept:
            batch = train_step.nested(dict(kept))
        loss = train_step.torchs(case, batch)()
        print(f"1/1 loss {loss:.4f}", file=sys.stderr, flush=True)
        return
    from fmjax import cli, train

    cli.cache()
    given = train_step.settings(case) | {"steps": 1, "log": {"every": 1}}
    train.train(workdir, **given | {"evaluate": None, "checkpoint": None})


def busy(process: int) -> float:
    """Processor seconds that a process has taken, all its threads."""
    stat = pathlib.Path(f"/proc/{process}/stat").read_text("ascii")
    user, system = stat.rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def started(way: str, name: str, folder: pathlib.Path, turn: int) -> dict[str, float]:
    """Seconds by the clock and of the processor, and the first loss."""
    cache = folder / f"cache-{'usual' if way == 'usual' else 'ours'}-{turn}"
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    if way == "usual":  # as it is without a flag, but the user's choice
        flags = environment.get("XLA_FLAGS", "")
        environment["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=3"
    words = ["--child", way, "--only", name, "--folder", str(folder)]
    words += ["--workdir", str(folder / f"{way}-{turn}")]
    words = [sys.executable, "-m", "experiments.speed.start", *words]
    said, found = [], None
    began = time.perf_counter()
    with subprocess.Popen(
        words,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if "1/1 loss" in line:
                took = time.perf_counter() - began
                found = {"seconds": took, "processor_seconds": busy(process.pid)}
                found["loss"] = float(line.split()[-1])
    if process.returncode or found is None:
        raise RuntimeError(f"{name}, {way}: {''.join(said[-20:])}")
    return found


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Medians of each way, and each way's ratio to a cold start, turn by turn."""
    turns: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as made:
        folder = pathlib.Path(made)
        np.savez(folder / "batch.npz", **train_step.batch_of(name))  # type: ignore[arg-type]
        for turn in range(rounds):
            for way in WAYS:
                turns[way].append(started(way, name, folder, turn))
    found: dict[str, Any] = {}
    for way, each in turns.items():
        for key in ("seconds", "processor_seconds"):
            found.setdefault(way, {})[key] = statistics.median(x[key] for x in each)
        pairs = zip(each, turns["cold"], strict=True)
        ratios = [a["processor_seconds"] / b["processor_seconds"] for a, b in pairs]
        found[f"{way} / cold"] = statistics.median(ratios)
        found[f"{way} / cold, by turn"] = sorted(ratios)
    losses = {way: each[0]["loss"] for way, each in turns.items()}
    return found | {"first_losses": losses}


def table(lines: list[dict[str, Any]]) -> str:
    """The lines as Markdown, for README.md."""
    heads: tuple[str, ...] = (
        "net, batch",
        "cold, s",
        "usual, s",
        "warm, s",
        "torch, s",
    )
    heads += ("usual / cold", "warm / cold", "torch / cold")
    rows = [heads, ("---",) * len(heads)]
    for line in lines:
        took = [
            f"{line[way]['processor_seconds']:.1f} ({line[way]['seconds']:.1f})"
            for way in WAYS
        ]
        ratios = [
            f"{line[f'{way} / cold']:.2f} [{line[f'{way} / cold, by turn'][0]:.2f}, "
            f"{line[f'{way} / cold, by turn'][-1]:.2f}]"
            for way in WAYS[1:]
        ]
        rows.append((line["case"], *took, *ratios))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = pathlib.Path(__file__).parent
    parser.add_argument("--output", type=pathlib.Path, default=here / "start.jsonl")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose name has this")
    for flag in ("--child", "--folder", "--workdir"):
        parser.add_argument(flag, default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        folders = (pathlib.Path(x) for x in (given.folder, given.workdir))
        child(given.child, given.only, *folders)
        return 0
    threads = len(os.sched_getaffinity(0))
    lines = []
    for name in train_step.CASES:
        if given.only not in name:
            continue
        at = generation.conditions(threads)
        line = {"case": name, **measure(name, given.rounds), "rounds": given.rounds}
        lines.append(line | at | {"load_after": os.getloadavg()[0]})
        with open(given.output, "a", encoding="utf-8") as file:
            file.write(json.dumps(lines[-1]) + "\n")
        print(table(lines[-1:]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
