"""Trains the first steps of a run again and compares all numbers bit for bit.

python -m fmjax.reproduce runs/x [--steps 20] [--json]

The recorded config is trained in a temporary folder, on the devices that are here. Exit
status 0: every number is the same; 1: some differ, and what else differs is said
(versions, devices, commit, data); 2: there is nothing to compare.
"""

from __future__ import annotations

import json
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from fmjax import cli, config, flags, report, train
from fmjax import workdir as workdirs

STEPS = 20  # as many as are run again by default, where a record ends there
TIMED = ("step", "examples_per_second", "input_wait", "window", "mfu")  # of the clock


def reproduce(workdir: str | pathlib.Path, steps: int | None = None) -> dict[str, Any]:
    """Trains `steps` steps again; what was compared, and what differs.

    steps: None is the last recorded step up to STEPS, or the first one.
    Returns steps, `compared` (numbers), `records`, `left_out` (records over other
    windows, as those around an interruption), `differences` ({step, name, recorded,
    now}) and `changed` ({what: [then, now]}). Raises ConfigError where there is no run,
    or no record within `steps`.
    """
    folder = pathlib.Path(workdir)
    if not (folder / "config.json").is_file():
        raise config.ConfigError(f"{workdir} is no workdir of a run: no config.json")
    if not (folder / "metrics.jsonl").is_file():
        raise config.ConfigError(f"{workdir} holds no records of a training")
    then = json.loads((folder / "config.json").read_text("utf-8"))
    lines = report.read(folder)
    steps = choose(workdir, [x["step"] for x in lines if "lr" in x], steps)
    with tempfile.TemporaryDirectory(prefix="fmjax-reproduce-") as scratch:
        again = pathlib.Path(scratch, "run")
        train.train(again, **then["config"], stop_at=steps)
        now = json.loads((again / "config.json").read_text("utf-8"))
        found = compare(lines, report.read(again), steps)
        found["changed"] = changed(then, now) | files(folder, again)
    if not found["records"]:
        raise config.ConfigError(
            f"{workdir}: no record up to step {steps} is over the same steps as those "
            "of an uninterrupted run; give more --steps"
        )
    return {"steps": steps} | found


def choose(workdir: Any, recorded: Sequence[int], steps: int | None) -> int:
    """How many steps to run. Raises ConfigError where no record falls within them."""
    if not recorded:
        raise config.ConfigError(f"{workdir} has no record of a training step")
    if steps is None:
        return max([x for x in recorded if x <= STEPS], default=recorded[0])
    if steps < recorded[0]:
        raise config.ConfigError(
            f"--steps {steps}: the first record of {workdir} is of step {recorded[0]}"
        )
    return min(steps, recorded[-1])


def compare(
    recorded: Sequence[Mapping], again: Sequence[Mapping], steps: int
) -> dict[str, Any]:
    """Lines of metrics.jsonl up to a step, number by number, but for times."""
    key = lambda line: (line["step"], line.get("window"))  # noqa: E731
    known = {key(line): line for line in again}
    differences, records, left_out, numbers = [], 0, 0, 0
    for line in recorded:
        names = [x for x in line if x not in TIMED and not x.startswith("event/")]
        names = [x for x in names if not x.endswith("/step_seconds")]
        # Evaluations at the very last step are not run again.
        if (
            line["step"] > steps
            or not names
            or ("lr" not in line and key(line) not in known)
        ):
            continue
        if key(line) not in known:
            left_out += 1
            continue
        records += 1
        for name in names:
            numbers += 1
            now = known[key(line)].get(name)
            if line[name] != now:
                differences.append(
                    {"step": line["step"], "name": name}
                    | {"recorded": line[name], "now": now}
                )
    return {
        "compared": numbers,
        "records": records,
        "left_out": left_out,
        "differences": differences,
    }


def changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list]:
    """{what: [then, now]} of all that two config.json say differently of their runs."""
    skip = ("command", "time", "uncommitted")
    one, other = (
        workdirs.flat(
            {k: record.get(k) for k in ("model", "data", "rows")}
            | {k: v for k, v in record["runs"][at].items() if k not in skip}
        )
        for record, at in ((then, 0), (now, -1))
    )
    names = [name for name in dict.fromkeys([*one, *other]) if name != "changes.file"]
    return {
        name: [one.get(name), other.get(name)]
        for name in names
        if one.get(name) != other.get(name)
    }


def files(then: pathlib.Path, now: pathlib.Path) -> dict[str, list]:
    """The same of the tokenizer and of the parameters that training began with."""
    found = {}
    for name in ("tokenizer.json", "init_from.json"):
        one, other = (
            path.read_bytes() if (path := folder / name).is_file() else None
            for folder in (then, now)
        )
        if one != other:
            found[name] = [x and f"{len(x):,} bytes" for x in (one, other)]
    return found


def tell(workdir: str, found: Mapping[str, Any]) -> str:
    """The outcome in words."""
    differences, changes = found["differences"], found["changed"]
    equal = "differ" if differences else "equal, bit for bit"
    count = len(differences) or found["compared"]
    lines = [
        f"{workdir}, steps 1 to {found['steps']}: {count} of {found['compared']} "
        f"numbers in {found['records']} records {equal}"
    ]
    if found["left_out"]:
        lines.append(
            f"{found['left_out']} records were left out: the run was interrupted there"
        )
    lines += [
        f"  step {x['step']}: {x['name']} was {x['recorded']!r}, is {x['now']!r}"
        for x in differences[:10]
    ]
    if len(differences) > 10:
        lines.append(f"  and {len(differences) - 10} more")
    if changes:
        lines.append("what else is not as it was:")
        lines += [
            f"  {name}: was {old!r:.120}, is {new!r:.120}"
            for name, (old, new) in changes.items()
        ]
    elif differences:
        lines.append("nothing else that was recorded is other than it was")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.parser(__doc__)
    parser.add_argument("workdir", help="a run's folder")
    parser.add_argument(
        "--steps", type=int, help="how many to train again (20 at most)"
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    given = cli.parse(parser, argv)
    found = reproduce(given.workdir, given.steps)
    print(json.dumps(found) if given.json else tell(given.workdir, found))
    return int(bool(found["differences"]))


if __name__ == "__main__":
    cli.run(main)
