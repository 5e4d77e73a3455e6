"""A trained run on other data than its own: transfer from domain to domain."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fmjax import config
from fmjax.data.source import Mapped, Row, Source
from fmjax.workdir import Run


def on(run: Run, changes: Mapping[str, str], same: Mapping[str, str]) -> Run:
    """The run with the data that `changes` of its `data` settings mean.

    changes: {'name': 'csv', 'path': 'other.csv'}, texts as of flags; fields that a new
    source does not have are dropped with a notice. same: names of classes there -> of
    the run's. Labels get the run's numbers by their names. Raises ConfigError for an
    unknown setting and, when a split is read, for a class that the run does not have.
    """
    settings = copy.deepcopy(run.settings)
    for key, text in changes.items():
        config.override(settings, f"data.{key}", text)
    spec = settings["data"]
    read = config.part("data", spec, tokenizer=run.parts.tokenizer)

    @functools.cache
    def data(split: str) -> Source:
        with config.blaming(f"data ({spec['name']}, {split})"):
            return renumbered(read(split), run.classes, same)

    return run._replace(parts=run.parts._replace(data=data))


def renumbered(
    source: Source, classes: Sequence[str], same: Mapping[str, str]
) -> Source:
    """The source with its labels, tags and masks as numbers of `classes`, by name.

    Raises ConfigError for a class that is none of them, and for an idle rename.
    """
    if idle := sorted(set(same) - set(source.classes)):
        raise config.ConfigError(
            f"--same {', '.join(idle)}: the data's classes are "
            f"{', '.join(source.classes) or 'not named'}"
        )
    names = [same.get(name, name) for name in source.classes]
    if not classes or names == list(classes):
        return source
    if strange := [name for name in names if name not in classes]:
        raise config.ConfigError(
            f"the data's class {strange[0]!r} is none that the run was trained on "
            f"({', '.join(classes)}); say which it is: --same {strange[0]}=..."
        )
    numbers = [classes.index(name) for name in names]

    def change(row: Row) -> Row:
        found: dict[str, Any] = dict(row)
        if found.get("label") is not None:
            found["label"] = numbers[int(found["label"])]
        if found.get("tags") is not None:
            found["tags"] = [numbers[int(tag)] for tag in found["tags"]]
        if found.get("mask") is not None:
            table = np.arange(256, dtype=np.uint8)  # 255, which is no class, stays
            table[: len(numbers)] = numbers
            found["mask"] = table[found["mask"]]
        return found

    return Source(Mapped(source.rows, change), tuple(classes), source.facts)
