"""Out of memory: which arrays are large, and what would make a step smaller."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fmjax import config, sharding
from fmjax.costs import flops
from fmjax.trees import paths


class OutOfMemory(RuntimeError):
    """A run does not fit; the message names the largest arrays, and remedies."""


@contextlib.contextmanager
def explained(settings: Mapping[str, Any], setup: Any) -> Iterator[None]:
    """Within, a device's lack of memory is raised as OutOfMemory; setup: train.Setup.

    Other errors pass as they are.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemory(words(settings, setup, str(error))) from error


def words(settings: Mapping[str, Any], setup: Any, error: str, top: int = 3) -> str:
    """What is large in a run that `error` says does not fit, and its remedies."""
    size = lambda row: f"{row['dtype']}{row['shape']} {row['bytes'] / 2**20:,.1f} MiB"  # noqa: E731
    state = [f"{x['path']} {size(x)}" for x in largest(setup.state, top)]
    platform = setup.plan.mesh.devices.flat[0].platform
    made = values(setup.step, (setup.state, setup.sample), top, platform)
    step = [f"{size(x)} (by {', '.join(x['made by'][:3])})" for x in made]
    flag = lambda key, value: f"--config.{key}={json.dumps(value)}"  # noqa: E731
    changes = [
        f"{what} ({' '.join(flag(*one) for one in change.items())})"
        for what, change in remedies(settings, setup.plan.mesh.size, platform)
    ]
    return (
        f"a device is out of memory: {error.splitlines()[0]}\n"
        f"The state's largest arrays on a device: {'; '.join(state)}.\n"
        f"The step's largest, of all devices together: {'; '.join(step)}.\n"
        f"It would be smaller with: {'; '.join(changes)}. `fmjax compile` says by how "
        "much, before anything is run"
    )


def local(leaf: Any) -> int:
    """Bytes of an array on one device, or in its host's memory for it."""
    size = 8 if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else None
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * (
        size or leaf.dtype.itemsize
    )


def away(leaf: Any) -> bool:
    """Whether an array is in the host's memory, and none of it on the device."""
    return leaf.sharding.memory_kind == sharding.HOST


def largest(state: Any, top: int) -> list[dict[str, Any]]:
    """The arrays of a state that take most on one device, with where they live."""
    found: list[dict[str, Any]] = [
        {
            "path": path,
            "shape": list(leaf.shape),
            "dtype": str(leaf.dtype),
            "sharding": (", ".join(map(str, leaf.sharding.spec)) or "whole")
            + (", on the host" if away(leaf) else ""),
            "bytes": local(leaf),
        }
        for path, leaf in zip(paths(state), jax.tree.leaves(state), strict=True)
    ]
    return sorted(found, key=lambda row: -row["bytes"])[:top]


def values(
    function: Callable, args: Sequence[Any], top: int, platform: str
) -> list[dict[str, Any]]:
    """The largest arrays that a function computes, of all devices together.

    platform: theirs; what is computed on others alone is left out.

    Many of them are never stored whole: what is fused, or cut into parts. They tell
    where to look.
    """
    found: dict[tuple, dict[str, Any]] = {}
    todo = [jax.make_jaxpr(function)(*args).jaxpr]
    while todo:
        for eqn in todo.pop().eqns:
            given = dict(eqn.params)
            if of := given.get("branches_platforms"):  # None: of all that are not named
                pairs = zip(given["branches"], of, strict=True)
                here = (b for b, names in pairs if names is None or platform in names)
                given["branches"] = next(here)
            inner = [sub for p in given.values() for sub in flops.jaxprs(p)]
            todo += inner
            for var in eqn.outvars:
                shape, dtype = getattr(var.aval, "shape", None), var.aval.dtype
                if inner or shape is None or not jnp.issubdtype(dtype, jnp.number):
                    continue
                row = found.setdefault(
                    (shape, dtype),
                    {"shape": list(shape), "dtype": str(dtype), "made by": [], "of": 0}
                    | {"bytes": math.prod(shape) * dtype.itemsize},
                )
                row["of"] += 1
                if eqn.primitive.name not in row["made by"]:
                    row["made by"].append(eqn.primitive.name)
    return sorted(found.values(), key=lambda row: -row["bytes"])[:top]


def remedies(
    settings: Mapping[str, Any],
    devices: int | None = None,
    platform: str | None = None,
) -> list[tuple[str, dict[str, str]]]:
    """Changes that make a step smaller, the cheapest first: (in words, overrides).

    devices: nothing is cut over one, nor in 4 over what 4 does not divide; None: many.
    platform: theirs; a TPU has a kernel for attention (`fmjax.flash`).
    """
    model, laid = settings["model"], settings.get("parallel") or {}
    kind, aim = config.find("model", model["name"]), settings["objective"]
    fields = config.fields(kind.Model)
    sized = kind.SIZES.get(model.get("size"), {}) | model
    found = []
    if laid.get("params", "replicate") == "replicate" and devices != 1:
        found.append(("parameters cut", {"parallel.params": "fsdp"}))
    if "dtype" in fields and sized.get("dtype", "float32") == "float32":
        found.append(("computed in bfloat16", {"model.dtype": "bfloat16"}))
    # It drops no weights, has no biases, as T5 has (and no rate for weights alone), and
    # knows whole rows only.
    rate = sized.get("attention_dropout", getattr(kind.Model, "attention_dropout", 1.0))
    served = platform == "tpu" and "sequence" not in str(laid.get("mesh"))
    if served and not rate and sized.get("implementation") != "flash":
        found.append(("attention by a kernel", {"model.implementation": "flash"}))
    if "remat" in fields and sized.get("remat") != "full":
        found.append(("remat", {"model.remat": "full"}))
    if "scan" in fields and not sized.get("scan"):
        found.append(("scan over depth", {"model.scan": "true"}))
    scored = config.fields(config.find("objective", aim["name"]).objective)
    if "chunk" in scored and not aim.get("chunk"):
        found.append(("logits of 128 tokens at a time", {"objective.chunk": "128"}))
    accum, size = settings.get("accum", 1), settings["batch_size"]
    found.append((f"{2 * accum} microbatches", {"accum": str(2 * accum)}))
    found.append((f"{8 * accum} microbatches", {"accum": str(8 * accum)}))
    tensor = "tensor" in str(laid.get("params")) or (devices or 4) % 4
    if not tensor and "heads" in fields:
        cut = {"parallel.params": "fsdp+tensor"}
        cut["parallel.mesh"] = "(('data', -1), ('model', 4))"
        found.append(("tensor parallelism of 4", cut))
    if size >= 8:
        found.append((f"a batch of {size // 8}", {"batch_size": str(size // 8)}))
    return found
