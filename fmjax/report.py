"""What a run leaves to read: JSON lines always, a console, trackers where asked."""

from __future__ import annotations

import json
import math
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from fmjax import files
from fmjax import step as stepping
from fmjax.costs import clock as clocks
from fmjax.reporting import trackers
from fmjax.step import Sums


class Report:
    """Writes a run's numbers; only process 0 leaves anything behind."""

    def __init__(
        self,
        workdir: str | pathlib.Path,
        log: Any,
        every: int,
        total: int,
        start: int,
        evaluated: int,
        settings: Mapping[str, Any],
        cost: Mapping[str, Any],
        clock: clocks.Clock,
    ):
        """log: train.Log. A tracker that fails is reported once and left alone.

        Lines of metrics.jsonl that the run will write again are taken back: those past
        step `start`, where it goes on, and evaluations past step `evaluated`. Events
        stay.
        """
        self.lead = jax.process_index() == 0
        self.path = pathlib.Path(workdir) / "metrics.jsonl"
        self.title, self.total, self.every = str(workdir), total, every
        self.window: list[Sums] = []
        self.said, self.clock, self.at = 0.0, clock, start
        clock.open(start, cost)
        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        self.trackers: list[Any] = []
        self.endings: list[Any] = []
        if not self.lead:
            return
        lines = read(workdir) if self.path.exists() else []
        last = lambda line: start if "lr" in line else min(start, evaluated)  # noqa: E731
        event = lambda line: any(key.startswith("event/") for key in line)  # noqa: E731
        kept = [json.dumps(x) + "\n" for x in lines if event(x) or x["step"] <= last(x)]
        files.replace(self.path, "".join(kept))
        opened = trackers.start(log, workdir, settings, self.say)
        self.trackers = [track for track, _ in opened]
        self.endings = [end for _, end in opened]
        self.file = self.path.open("a", encoding="utf-8")
        if self.console.is_terminal:
            columns = [TextColumn("{task.description}"), BarColumn()]
            columns += [MofNCompleteColumn(), TimeRemainingColumn()]
            columns += [TextColumn("{task.fields[note]}")]
            self.bar = Progress(*columns, console=self.console)
            self.task = self.bar.add_task(
                self.title, total=total, completed=start, note=""
            )
            self.bar.start()

    def wait(self, coming: Iterator[Any]) -> Any:
        """The next batch; the time until it is there counts as waiting for input."""
        self.clock.mark("steps")
        batch = next(coming)
        self.clock.mark("input")
        return batch

    def train(self, step: int, sums: Sums, rows: int, lr: float, flush: bool) -> Sums:
        """A step's sums, brought to the host; writes a record if one is due."""
        self.window.append(sums := jax.device_get(sums))
        self.clock.lap()
        self.at = step
        if step % self.every and not flush:
            return sums
        means = stepping.means(stepping.add_sums(self.window))
        speed = self.clock.record(rows)
        speed["window"] = len(self.window)  # steps that the means are over
        numbers = {f"train/{name}": value for name, value in means.items()}
        self.write(step, numbers | {"lr": lr} | speed)
        self.step(step, f"loss {means['loss']:.4f}")
        self.window.clear()
        if self.lead:
            self.clock.save(step)
        return sums

    def evaluation(self, step: int, numbers: Mapping[str, float]) -> None:
        self.write(step, numbers)
        losses = [f"{k} {v:.4f}" for k, v in numbers.items() if k.endswith("/loss")]
        self.say(f"{self.title} {step}/{self.total} {', '.join(losses)}")

    def step(self, step: int, note: str) -> None:
        """Moves the progress bar; where there is no terminal, a line now and then."""
        if self.bar:
            self.bar.update(self.task, completed=step, note=note)
        elif time.monotonic() - self.said > 10:
            self.said = time.monotonic()
            self.say(f"{self.title} {step}/{self.total} {note}")

    def say(self, text: str) -> None:
        """A line on the console (stderr)."""
        if self.lead:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def event(self, step: int, name: str, text: str) -> None:
        """Something went wrong: said, and recorded also in words, in events.jsonl."""
        self.say(f"{self.title} {step}/{self.total} {name}: {text}")
        self.write(step, {f"event/{name}": 1.0})
        if self.lead:
            line = {"step": step, "event": name, "text": text, "time": time.time()}
            with self.path.with_name("events.jsonl").open(
                "a", encoding="utf-8"
            ) as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Records numbers at a step; nan and inf are written as null."""
        if not self.lead:
            return
        clean = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
        self.file.write(json.dumps({"step": step} | clean) + "\n")
        self.file.flush()
        finite = {k: v for k, v in clean.items() if v is not None}
        for tracker in list(self.trackers):
            if not self._try(tracker, step, finite):
                self.trackers.remove(tracker)

    def _try(self, call: Any, *values: Any) -> bool:
        """A tracker must never end a run: what it raises is said."""
        try:
            call(*values)
        except Exception as error:
            self.say(f"tracker left out from here on: {error!r}")
            return False
        return True

    def close(self) -> None:
        if self.bar:
            self.bar.stop()
        for end in self.endings:
            self._try(end)
        self.clock.mark("checkpoint")  # the last one is waited for
        if self.lead:
            self.file.close()
            self.clock.save(self.at)


def read(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, but for a last one that a kill cut short."""
    lines = []
    for text in (
        (pathlib.Path(workdir) / "metrics.jsonl").read_text("utf-8").splitlines()
    ):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    from fmjax import cli, flags
    from fmjax.reporting import run_page

    parser = flags.parser(
        "Writes a run's report.html and report.json into its workdir."
    )
    parser.add_argument("--workdir", required=True, help="a run's folder")
    workdir = cli.parse(parser, argv).workdir
    print(run_page.write(workdir, read(workdir)))
    return 0


if __name__ == "__main__":
    from fmjax import cli

    cli.run(main)
