"""Inputs of several tasks on one encoder, each row's own made as its task says."""

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from fmjax.data.source import Row

# What inputs of one text or one image read: it tells the shapes of a task's targets.
_SAMPLE: Row = {"id": "sample", "text": "a", "label": 0, "words": ["a"], "tags": [0]}


def make(
    *,
    tasks: Mapping[str, Mapping[str, Any]],
    tokenizer: Tokenizer,
    classes: Sequence[str] = (),
) -> Callable[[Row, np.random.Generator | None], dict[str, Any]]:
    """Make each row's example by the inputs of its `task`, in one shape for all.

    tasks: name -> a file of fmjax/data/inputs with its fields, such as {'name': 'text',
        'length': 64}. classes: 'task/class', of which each has its own.

    Returns inputs as those of the tasks, which must have the same shapes (`types` may
    be absent, which means zeros), and tasks {name: {what its inputs give beside
    `inputs`, mask float32}}: mask is 1 and the rest is the row's own for its task, and
    zeros elsewhere. A row without a task (prediction) is an example of all.
    Raises ValueError for shapes that differ, and inputs that can't be mixed.
    """
    makers = {
        name: _maker(name, spec, tokenizer, _own(name, classes))
        for name, spec in tasks.items()
    }
    samples = {name: _sample(name, made) for name, made in makers.items()}
    shapes = {name: _shapes(one["inputs"]) for name, one in samples.items()}
    if len({str(shape) for shape in shapes.values()}) != 1:
        raise ValueError(f"the tasks' inputs have unlike shapes: {shapes}")
    zeros = {name: _zeros(one) for name, one in samples.items()}

    def inputs(row: Row, rng: np.random.Generator | None = None) -> dict[str, Any]:
        own = row.get("task")
        if own is not None and own not in makers:
            raise ValueError(
                f"row {row.get('id', '(no id)')}: task {own!r}; inputs.tasks has "
                f"{', '.join(makers)}"
            )
        chosen = makers if own is None else {own: makers[own]}
        made = {name: maker(row, rng) for name, maker in chosen.items()}
        filled = {name: {**one, "mask": np.float32(0)} for name, one in zeros.items()}
        for name, one in made.items():
            targets = {key: value for key, value in one.items() if key != "inputs"}
            filled[name] |= {**targets, "mask": np.float32(1)}
        return {"inputs": _with_types(next(iter(made.values()))["inputs"])} | {
            "tasks": filled
        }

    return inputs


def _own(task: str, classes: Sequence[str]) -> tuple[str, ...]:
    parts = [name.partition("/") for name in classes]
    return tuple(name for owner, _, name in parts if owner == task)


def _maker(
    task: str, spec: Mapping[str, Any], tokenizer: Tokenizer, classes: tuple[str, ...]
) -> Callable:
    fields = dict(spec)
    name = str(fields.pop("name", ""))
    module = f"fmjax.data.inputs.{name}"
    if not name.isidentifier() or importlib.util.find_spec(module) is None:
        raise ValueError(f"tasks.{task}: no inputs named {name!r}")
    make = importlib.import_module(module).make
    known = inspect.signature(make).parameters
    if unknown := sorted(set(fields) - set(known)):
        raise ValueError(
            f"tasks.{task}: {name} has no {', '.join(unknown)}; it has "
            f"{', '.join(known)}"
        )
    given = {"tokenizer": tokenizer, "classes": classes}
    filled = {key: value for key, value in given.items() if key in known} | fields
    bare = {key for key, one in known.items() if one.default is one.empty}
    if missing := sorted(bare - set(filled)):
        raise ValueError(f"tasks.{task}: {name} needs {', '.join(missing)}")
    made: Callable = make(**filled)
    return made


def _sample(task: str, maker: Callable) -> dict[str, Any]:
    try:
        made: dict[str, Any] = maker(_SAMPLE, None)
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"tasks.{task}: only inputs of one text can be mixed: {error}"
        ) from error
    return made | {"inputs": _with_types(made["inputs"])}


def _with_types(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"types": np.zeros_like(inputs["tokens"]), **inputs}


def _shapes(inputs: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(inputs[name]) for name in sorted(inputs)}


def _zeros(example: Mapping[str, Any]) -> dict[str, Any]:
    targets = {key: value for key, value in example.items() if key != "inputs"}
    return {key: np.zeros_like(value) for key, value in targets.items()}
