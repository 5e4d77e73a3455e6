"""A run's folder: what a run writes there before its first step, and opening it again.

config.json      the config as given, the parts as resolved, and who ran it, when, how
tokenizer.json   where there is one
metrics.jsonl    a line a record
checkpoints/     whole states, to go on from
best/            the best weights, to evaluate, predict and start other runs with
provenance/      changes to the code that were not committed
init_from.json   where parameters came from, and which
ledger/          which rows each step was given, where log.ledger asks for it
events.jsonl     what went wrong: damage, numbers that were not finite, spikes
skipped.json     the batches that rollbacks have left out
damaged/         checkpoints that are not as they were written
lock             who is at work
watch/           how far each process is, where there are several
result.json      there once the run is done
maps/            of segmentation: what `fmjax predict` has drawn, unless told where
"""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fmjax import checkpoint, config, copies, files, optim, parallel, step
from fmjax.data import batches
from fmjax.keeping import provenance
from fmjax.start import frozen

MAY_CHANGE = (
    "parallel",
    "checkpoint",
    "log",
    "accum",
    "guard",
)  # the mathematics stays the same
# But for these, which the bits of the deterministic mode depend on.
MAY_NOT = ("parallel.determinism", "parallel.shards")


def claim(
    workdir: pathlib.Path, settings: Mapping[str, Any], parts: config.Parts
) -> dict[str, Any] | None:
    """Writes config.json, or checks that the run there has these very settings.

    Returns the result of a run that is done. Raises ConfigError listing the differences
    where a run that has saved something there has other settings.
    """
    path = workdir / "config.json"
    given = json.loads(json.dumps(settings))
    runs: list[dict] = []
    if path.is_file():
        old = json.loads(path.read_text("utf-8"))
        before, saved = flat(old["config"]), any(workdir.glob("checkpoints/*"))
        runs = old["runs"] if saved else runs
        changed = [
            f"{key}: {before.get(key)!r} there, {now!r} now"
            for key, now in (dict.fromkeys(before) | flat(given)).items()
            if before.get(key) != now
            and (key.split(".")[0] not in MAY_CHANGE or key in MAY_NOT)
        ]
        if changed and saved:
            raise config.ConfigError(
                f"{workdir} holds a run with other settings; use another --workdir, or "
                "give these back: " + "; ".join(changed)
            )
    if (workdir / "result.json").is_file():
        return json.loads((workdir / "result.json").read_text("utf-8"))
    if jax.process_index() != 0:
        return None
    source = parts.data("train")
    record = {
        "config": given,
        "model": parts.model,
        "classes": list(source.classes),
        "shapes": {k: np.shape(v) for k, v in source.rows[0].items() if np.ndim(v)},
        "data": source.facts,
        "rows": provenance.fingerprint(source.rows),
        "runs": [*runs, provenance.record(workdir)],
    }
    if parts.tokenizer is not None:
        files.replace(workdir / "tokenizer.json", parts.tokenizer.to_str(pretty=True))
    files.write_json(path, record)
    return None


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{'a.b': value} of nested dicts."""
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}.{key}" if prefix else key)
    return found


class Run(NamedTuple):
    """A trained run, opened."""

    folder: pathlib.Path
    settings: dict[str, Any]
    parts: config.Parts
    plan: parallel.Plan
    apply: Callable
    classes: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]  # of the arrays in a row of the training data

    def batches(self, rows: Any) -> batches.Batches:
        """Every row once, in order."""
        return batches.Batches(
            rows,
            self.parts.inputs,
            self.settings["batch_size"],
            seed=None,
            host=jax.process_index(),
            hosts=jax.process_count(),
        )

    def weights(self, example: Mapping[str, Any]) -> tuple[Any, Any]:
        """(params, extras) of the best step; `example`, a row's arrays, gives shape."""
        one = jax.eval_shape(
            lambda: jax.tree.map(lambda x: jnp.asarray(x)[None], example["inputs"])
        )
        init = functools.partial(step.init, self.parts.net, one)
        extras = dict(jax.eval_shape(init, jax.random.key(0)))
        tree = {"params": extras.pop("params"), "extras": extras}
        tree = parallel.abstract(
            tree, parallel.shardings(tree, tree["params"], self.plan)
        )
        params = tree["params"]
        thinned = (self.settings.get("checkpoint") or {}).get("trained_only", False)
        if thinned:
            optim_of = self.settings["optim"]
            on = optim.trained(params, optim_of.get("freeze"), optim_of.get("train"))
            tree = tree | {"params": frozen.thin(params, on)}
        found = checkpoint.weights(self.folder, tree)
        if thinned:
            base = frozen.base(init, self.parts, self.settings, params)
            if kind := self.settings["optim"].get("params_dtype"):
                base = copies.full(jax.tree.map(lambda p: p.astype(kind), base))
            frozen.check(self.folder, base, on)
            return frozen.fill(base, found["params"]), found["extras"]
        return found["params"], found["extras"]


def open_run(workdir: str | pathlib.Path) -> Run:
    """Opens a workdir to evaluate or predict; its data is not touched.

    Raises ConfigError where there is no run.
    """
    folder = pathlib.Path(workdir)
    if not (folder / "config.json").is_file():
        raise config.ConfigError(f"{workdir} is no workdir of a run: no config.json")
    record = json.loads((folder / "config.json").read_text("utf-8"))
    settings = record["config"]
    model = {"name": settings["model"]["name"]} | record["model"]
    asked = settings | {"model": model}
    if settings["tokenizer"]:
        asked["tokenizer"] = {"path": str(folder / "tokenizer.json")}
    classes = tuple(record["classes"])
    parts = config.assemble(asked, classes)
    plan = config.bind("parallel", parallel.plan, settings["parallel"])()
    shapes = {key: tuple(shape) for key, shape in record["shapes"].items()}
    return Run(folder, settings, parts, plan, step.pure(parts.net), classes, shapes)
