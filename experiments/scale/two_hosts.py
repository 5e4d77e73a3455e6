"""Two processes make one run, and one of them is lost.

    python -m experiments.scale.two_hosts [--workdir runs/two_hosts] [--lose KILL]

Each has two devices of its own and talks to the other through `jax.distributed` and
gloo alone. In the middle of the run one is lost (--lose KILL: at once; STOP: it hangs,
as behind a network that is cut). What the other one does is timed; then the same
command goes on, on both again, and the run is held against one that nobody disturbed.
Writes two_hosts.json beside this file, or to --output.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from experiments.arms import say
from fmjax import report
from fmjax.costs import clock

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = "configs/cnn/fashion_mnist.py:tiny"
STEPS, SAVE, SILENT = 400, 20, 10  # steps; steps between saves; seconds
FLAGS = (
    f"--config.steps={STEPS}",
    f"--config.evaluate.every={STEPS}",
    f"--config.checkpoint.every={SAVE}",
    "--config.log.every=1",
    "--config.parallel.params=fsdp",
    f"--config.guard.peer_seconds={SILENT}",
)


def start(workdir: pathlib.Path) -> list[subprocess.Popen]:
    """Both processes of a run, each with a log beside the workdir."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    argv = [sys.executable, "-m", "fmjax.train", "--config", CONFIG]
    argv += ["--workdir", str(workdir.absolute()), *FLAGS]
    argv += ["--coordinator", f"localhost:{port}", "--processes", "2"]
    found = []
    for rank in range(2):
        with open(workdir.parent / f"{workdir.name}-{rank}.log", "a") as log:
            words = [*argv, "--process", str(rank)]
            found.append(
                subprocess.Popen(
                    words, env=environment, cwd=ROOT, stdout=log, stderr=log
                )
            )
    return found


def ended(pair: Sequence[subprocess.Popen]) -> list[int]:
    """Their exit codes."""
    return [process.wait(timeout=600) for process in pair]


def steps(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Records of training so far."""
    if not (workdir / "metrics.jsonl").exists():
        return []
    return [line for line in report.read(workdir) if "lr" in line]


def lose(workdir: pathlib.Path, how: str, rank: int = 1) -> dict[str, Any]:
    """Starts a run, loses a process half-way; what the other one does."""
    pair = start(workdir)
    lost, other = pair[rank], pair[1 - rank]
    while len(steps(workdir)) < STEPS // 2:
        if other.poll() is not None or lost.poll() is not None:
            raise RuntimeError(f"ended before it was hurt: see {workdir}-*.log")
        time.sleep(0.05)
    began = time.monotonic()
    lost.send_signal(getattr(signal, f"SIG{how}"))
    code = other.wait(timeout=600)
    seconds = time.monotonic() - began
    lost.kill()
    lost.wait()
    return {"exit_code": code, "seconds": seconds, "steps": steps(workdir)[-1]["step"]}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=pathlib.Path, default="runs/two_hosts")
    parser.add_argument("--lose", nargs="+", default=["KILL", "STOP"])
    here = pathlib.Path(__file__).parent
    parser.add_argument("--output", type=pathlib.Path, default=here / "two_hosts.json")
    given = parser.parse_args()
    shutil.rmtree(given.workdir, ignore_errors=True)
    given.workdir.mkdir(parents=True)
    straight = given.workdir / "straight"
    say("straight")
    if any(codes := ended(start(straight))):
        raise RuntimeError(f"exit codes {codes}: see {straight}-*.log")
    wanted = [line["train/loss"] for line in steps(straight)]
    found = []
    for how in given.lose:
        say(f"lost by SIG{how}")
        hurt = given.workdir / how.lower()
        line = {"lost by": f"SIG{how}", **lose(hurt, how)}
        line["exit_codes_of_the_resumed"] = ended(start(hurt))
        lines = steps(hurt)
        line["went_on_from"] = clock.read(hurt / "attempts.jsonl")[-1]["from"]
        line["steps_in_all"] = len(lines)
        line["equal"] = [x["train/loss"] for x in lines] == wanted
        found.append(line)
        say(json.dumps(line))
    result = {"steps": STEPS, "save_every": SAVE, "peer_seconds": SILENT}
    given.output.write_text(json.dumps(result | {"runs": found}, indent=1) + "\n")
    good = [x["equal"] and x["exit_code"] == 69 for x in found]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
