"""Checks every step of a run's folder without changing anything.

python -m fmjax.fsck WORKDIR [--json]

Files and arrays of checkpoints/ and best/ are read and compared with the digests that
were written with them. The exit status is 0 where all is well, 1 where a step is
damaged, 2 where there is nothing to check.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from fmjax import checkpoint, cli, config, flags
from fmjax.keeping.digests import Damaged

ROOMS = ("checkpoints", "best")


def fsck(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
    """A record a step, newest last: where, `status`, and what is wrong with it.

    `status` is 'good', 'damaged', 'unverified' (readable, written without digests) or
    'unfinished' (a save that was cut short; nothing uses it). Raises ConfigError where
    the folder holds no step.
    """
    found = []
    for room in ROOMS:
        steps = (pathlib.Path(workdir).absolute() / room).glob("*")
        named = [path for path in steps if path.is_dir() and path.name[:1].isdigit()]
        for folder in sorted(named, key=lambda path: int(path.name.split(".")[0])):
            found.append({"where": f"{room}/{folder.name}"} | _check(folder))
    if not found:
        raise config.ConfigError(
            f"{workdir} holds no step in {' or '.join(ROOMS)}/: nothing to check"
        )
    return found


def _check(folder: pathlib.Path) -> dict[str, Any]:
    if not folder.name.isdigit():
        return {"status": "unfinished", "problem": None}
    try:
        good = checkpoint.verify(folder)
    except Damaged as error:
        return {"status": "damaged", "problem": str(error)}
    return {"status": "good" if good else "unverified", "problem": None}


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.parser(__doc__)
    parser.add_argument("workdir", help="a run's folder")
    parser.add_argument(
        "--json", action="store_true", help="print a JSON line for each step"
    )
    given = cli.parse(parser, argv)
    found = fsck(given.workdir)
    for step in found:
        problem = f": {step['problem']}" if step["problem"] else ""
        plain = f"{step['where']} is {step['status']}{problem}"
        print(json.dumps(step, ensure_ascii=False) if given.json else plain)
    return int(any(step["status"] == "damaged" for step in found))


if __name__ == "__main__":
    cli.run(main)
