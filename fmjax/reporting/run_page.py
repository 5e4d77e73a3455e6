"""A run's page: its curves and last numbers, what it looks at, its time, its config."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from fmjax.config import ConfigError
from fmjax.costs import clock
from fmjax.reporting import figures, looking, page

WORDS = {
    "steps": "steps: the goodput",
    "input": "waiting for input",
    "evaluate": "evaluation",
    "checkpoint": "checkpoints",
    "compile": "compiling",
    "start": "restoring, and other things before the first step",
    "lost": "steps that were done again after a crash or a rollback",
}


def write(workdir: str | pathlib.Path, lines: list[dict[str, Any]]) -> pathlib.Path:
    """Writes a run's report.html and report.json; lines: its records (`report.read`).

    Raises ConfigError where there are none.
    """
    folder = pathlib.Path(workdir)
    if not lines:
        raise ConfigError(f"{workdir} has no records yet in metrics.jsonl")
    record = json.loads((folder / "config.json").read_text("utf-8"))
    found = dict.fromkeys(k for line in lines for k in line)
    names = [name for name in found if name not in ("step", "window")]
    values = {
        name: [(x["step"], x[name]) for x in lines if x.get(name) is not None]
        for name in names
    }
    values = {name: found for name, found in values.items() if found}
    kinds = dict.fromkeys(name.rpartition("/")[2] for name in values)
    drawn = []
    for kind in kinds:
        same = {
            name: [([x for x, _ in points], [y for _, y in points])]
            for name, points in values.items()
            if name.rpartition("/")[2] == kind
        }
        drawn.append(page.figure(figures.curves(same, "step", kind), kind))
    last = [{"name": n, "step": v[-1][0], "value": v[-1][1]} for n, v in values.items()]
    sections = [
        page.section("Curves", *drawn),
        page.section(
            "Last values",
            page.table(
                last, ["name", "step", page.column("value", "", ".5g")], "By name"
            ),
        ),
    ]
    if "image" in record.get("shapes", {}) and (seen := looking.section(folder)):
        sections.append(seen)
    if attempts := clock.read(folder / "attempts.jsonl"):
        rows = [row | {"kind": WORDS[row["kind"]]} for row in clock.shares(attempts)]
        columns: list[str | page.Column] = ["kind", page.column("seconds", "", ".1f")]
        columns += [page.column("share", "", ".1%")]
        title = f"Wall time of {len(attempts)} attempt(s)"
        sections.append(page.section("Time", page.table(rows, columns, title)))
    sections.append(page.section("Config", page.code(json.dumps(record, indent=1))))
    return page.write(folder / "report.html", str(workdir), sections, data=record)
