"""The verbs, and parsers with the flags that each has."""

from __future__ import annotations

import argparse
import pathlib
import sys

VERBS = {
    "train": "train a config, or go on with an interrupted run",
    "evaluate": "evaluate a run on a split",
    "predict": "predict for texts, files or standard input",
    "generate": "write text from prompts, or for a split, with metrics",
    "convert": "turn a public checkpoint into a run, or a run into one",
    "fsck": "check every checkpoint of a run for damage",
    "compile": "compile a config for a TPU slice, and say what it costs",
    "report": "write a run's HTML report",
    "reproduce": "train a run's first steps again and compare bit for bit",
    "sweep": "search a config's fields for the best value of the watched metric",
}


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the flags that every verb has: those of a run of many processes."""
    made = bare_parser(doc)
    many = made.add_argument_group(
        "several processes (the same command on each, but for --process)"
    )
    many.add_argument(
        "--coordinator", default="", help="host:port of process 0; without, one process"
    )
    many.add_argument(
        "--processes", type=int, default=0, help="how many there are in all"
    )
    many.add_argument(
        "--process", type=int, default=-1, help="this one's number, from 0"
    )
    return made


def bare_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose usage line is the command that was given."""
    file = pathlib.Path(sys.argv[0])
    module = file.suffix == ".py" and file.stem in VERBS
    return argparse.ArgumentParser(
        prog=f"python -m fmjax.{file.stem}" if module else None,
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
