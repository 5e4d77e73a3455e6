"""What the loop adds to a step, and for how long saving stops it.

    pip install -e '.[experiments]'
    python -m experiments.speed.loop [--part loop --part saving]

loop: `train.train` over 2,580 steps on Fashion-MNIST or 60 on made-up text, with its
input pipeline, metrics and records, in turns with the bare step of `train_step` (by
hand) and fmjax's, on one batch, and with the input pipeline alone; all are in seconds
of the processor, all threads together. Where another core makes the input, what is left
is the loop's. saving: how long the loop stands still for a checkpoint. A line each goes
to loop.jsonl beside this file, or to --output.
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
import types
from collections.abc import Callable
from typing import Any

from experiments.speed import generation, train_step
from fmjax import memory

ROOT = pathlib.Path(__file__).parents[2]
ARMS = ("by hand", "step", "input", "loop")
# Documents to cut into windows: to find a row's place in a shuffled epoch takes grain
# some 75 us where there are 256, and 2 us of 60,000.
DOCUMENTS = 60_000
CASES = ("small CNN, 64 x 28 x 28", "GPT-2 2x128, 8 x 128", "BERT 2x128, 32 x 64")
LOOPS = {
    CASES[0]: train_step.CASES[CASES[0]],
    CASES[1]: train_step.Case(
        "configs/gpt/language_model.py", {"model.vocab_size": 4096}, "", {}
    ),
    CASES[2]: train_step.Case(
        "configs/bert/pretrain.py", {"model.vocab_size": 4096}, "", {}
    ),
}
BIG = (
    *("--config", "configs/gpt/language_model.py:tiny", "--config.model.depth=6"),
    *("--config.model.width=384", "--config.model.mlp_width=1536"),
    *("--config.evaluate=none", "--config.checkpoint.every=5"),
)


def loop(name: str, turns: int) -> dict[str, Any]:
    """Processor seconds of a step by hand, ours and in the loop, and of its input."""
    from fmjax import config, report
    from fmjax.costs import clock
    from fmjax.train import prepare, train

    case = LOOPS[name]
    step, bare, _ = train_step.ours(case)
    for _ in range(2):  # what it returns is placed otherwise than what it was given
        bare()
        step()
    made = train_step.settings(case)
    if corpus := made["data"].get("corpus"):
        made["data"] |= {"corpus": corpus | {"size": DOCUMENTS}}
        steps = 60
    else:  # three passes over Fashion-MNIST: rows are decoded in the first
        made["data"] = config.load(case.config)["data"]
        steps = 3 * 860
    made |= {"steps": steps, "log": {"every": steps // 3}, "evaluate": None}
    made["checkpoint"] = {"every": 10 * steps}
    whole = {"guard": None, "transforms": None, "init_from": None, "accum": 1}
    coming = prepare(whole | {"seed": 0} | made).train_set
    # The loop's own clock, of the processor: other work on the machine is left out.
    clock.time = types.SimpleNamespace(monotonic=time.process_time, time=time.time)  # type: ignore[assignment]
    took: dict[str, list[float]] = {arm: [] for arm in ARMS}

    def turn(arm: str, once: Callable[[int], Any]) -> None:
        began = time.process_time()
        for number in range(steps):
            once(number)
        took[arm].append((time.process_time() - began) / steps)

    try:
        for _ in range(turns):
            turn("by hand", lambda _: bare())
            turn("step", lambda _: step())
            turn("input", coming.at)
            with tempfile.TemporaryDirectory() as folder:
                train(folder, **made)
                # The first record has the first steps, with what is set up once.
                lines = [x for x in report.read(folder) if "lr" in x][1:]
            rates = [x["examples_per_second"] / made["batch_size"] for x in lines]
            took["loop"].append(1 / statistics.median(rates))
    finally:
        clock.time = time
    return {"steps": steps, "seconds": took}


def table(lines: list[dict[str, Any]]) -> str:
    """The lines of the loop as Markdown, for README.md."""
    heads: tuple[str, ...] = ("in the loop", *(f"{arm}, ms" for arm in ARMS))
    heads += ("step / by hand", "loop / by hand", "without the input")
    rows = [heads, ("---",) * len(heads)]
    for line in lines:
        seconds = [line["seconds"][arm] for arm in ARMS]
        turns = list(zip(*seconds, strict=True))
        ratios = (
            [step / bare for bare, step, _, _ in turns],
            [loop / bare for bare, _, _, loop in turns],
            [(loop - coming) / bare for bare, _, coming, loop in turns],
        )
        rows.append(
            (
                line["case"],
                *(f"{1e3 * statistics.median(arm):.1f}" for arm in seconds),
                *(
                    f"{statistics.median(found):.2f} "
                    f"[{min(found):.2f}, {max(found):.2f}]"
                    for found in ratios
                ),
            )
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def saving(saves: int = 6) -> dict[str, Any]:
    """Seconds that the loop stands still for each save of a GPT of 6 x 384."""
    from fmjax.costs import clock

    with tempfile.TemporaryDirectory() as room:
        words = [sys.executable, "-m", "fmjax.train", *BIG]
        words += ["--workdir", f"{room}/run", f"--config.steps={5 * saves}"]
        environment = os.environ | {"XDG_CACHE_HOME": room, "PYTHONPATH": str(ROOT)}
        subprocess.run(
            words, env=environment, cwd=ROOT, check=True, capture_output=True
        )
        (line,) = clock.read(pathlib.Path(room, "run", "attempts.jsonl"))
        files = list(pathlib.Path(room, "run/checkpoints").rglob("*"))
        size = sum(p.stat().st_size for p in files if p.is_file())
    found = {"steps": 5 * saves, "saves": saves, "seconds": line["seconds"]}
    found["stall_seconds"] = line["seconds"]["checkpoint"] / saves
    return found | {"bytes_of_those_kept": size}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = pathlib.Path(__file__).parent
    parser.add_argument("--output", type=pathlib.Path, default=here / "loop.jsonl")
    parser.add_argument("--turns", type=int, default=3)
    parts = ("loop", "saving")
    parser.add_argument("--part", action="append", choices=parts)
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    memory.keep()  # as every verb does

    def record(what: str, told: dict[str, Any]) -> None:
        line = {"part": what} | told | generation.conditions(cores)
        print(json.dumps(line), flush=True)
        with open(given.output, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    chosen = given.part or parts
    if "loop" in chosen:
        import jax

        with tempfile.TemporaryDirectory() as cache:  # each loop is compiled once
            jax.config.update("jax_compilation_cache_dir", cache)
            for name in CASES:
                record("loop", {"case": name} | loop(name, given.turns))
    if "saving" in chosen:
        record("saving", saving())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
