"""Several tasks' objectives on one encoder (Caruana 1997), in one step."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax


def objective(
    apply,
    params,
    extras,
    batch,
    key,
    *,
    tasks: Mapping[str, Any],
    weights: Mapping[str, float] | None = None,
):
    """The sums of all tasks, named 'TASK' or 'TASK_TERM' and 'TASK_METRIC'.

    The model returns {task: outputs} (the transform `heads`). tasks: name -> a file of
    fmjax/objectives, or {'name': it, and its fields}. batch: inputs, mask float32 [B],
    and tasks {name: the arrays of its objective, mask float32 [B], 0 in rows of other
    tasks}. The encoder is computed once.
    Each term keeps a weight of its own, so that a task's loss is the mean over its own
    rows of the batch, however many they are; `weights` multiply a task's loss (1).
    Raises ValueError for unknown tasks and for an objective that couples rows.
    """
    said, extras = apply(params, extras, batch["inputs"], key=key)
    if unknown := sorted(set(weights or {}) - set(tasks)):
        raise ValueError(f"weights of {', '.join(unknown)}: no such task")
    losses: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    for task, spec in tasks.items():
        own = _part(task, spec, "objective")
        rows, told = _of(task, batch, said)
        terms, measured, _ = own(told, params, extras, rows, key)
        factor = (weights or {}).get(task, 1.0)
        for term, (total, weight) in terms.items():
            name = task if len(terms) == 1 else f"{task}_{term}"
            losses[name] = (factor * total, weight)
        metrics |= {f"{task}_{name}": pair for name, pair in measured.items()}
    return losses, metrics, extras


def predict(
    apply, params, extras, batch, *, tasks: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """What each task's objective predicts, for every row, as 'TASK_NAME'."""
    said, _ = apply(params, extras, batch["inputs"])
    found: dict[str, jax.Array] = {}
    for task, spec in tasks.items():
        rows, told = _of(task, batch, said)
        made = _part(task, spec, "predict")(told, params, extras, rows)
        found |= {f"{task}_{name}": array for name, array in made.items()}
    return found


def _of(task: str, batch: Mapping, said: Mapping) -> tuple[dict[str, Any], Callable]:
    """(a task's batch, an `apply` that gives its outputs)."""
    if task not in batch["tasks"] or task not in said:
        raise ValueError(
            f"task {task!r}: inputs have {', '.join(batch['tasks'])}, the model's "
            f"heads are {', '.join(said)}; name them alike"
        )
    own = batch["tasks"][task]
    mask = own["mask"] * batch["mask"]
    rows = {**own, "inputs": batch["inputs"], "mask": mask}

    def told(params, extras, inputs, key=None):
        return said[task], extras

    return rows, told


def _part(task: str, spec: Any, what: str) -> Callable:
    fields = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = str(fields.pop("name", ""))
    module = f"fmjax.objectives.{name}"
    if not name.isidentifier() or importlib.util.find_spec(module) is None:
        raise ValueError(f"tasks.{task}: no objective named {name!r}")
    found = getattr(importlib.import_module(module), what)
    known = inspect.signature(found).parameters
    if "axis" in known:
        raise ValueError(f"tasks.{task}: {name} compares the rows of a batch")
    if what == "predict":  # which has fewer fields, or none
        fields = {key: value for key, value in fields.items() if key in known}
    if unknown := sorted(set(fields) - set(known)):
        raise ValueError(f"tasks.{task}: {name} has no {', '.join(unknown)}")
    return functools.partial(found, **fields)
