"""Checkpoints: the only file that imports orbax.

A workdir holds `checkpoints/STEP` (whole states, the last few, each with a small
`progress` record) and `best/STEP` (the weights, averaged ones where the run averages,
that were best by the watched metric). A save is asynchronous and atomic: a step's
folder has its final name only once it is whole.
"""

from __future__ import annotations

import logging
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from fmjax import optim
from fmjax.config import ConfigError, blaming, suggest
from fmjax.layers import patches


class Checkpoints:
    """The checkpoints of one workdir; close() waits for what is being written."""

    def __init__(self, workdir: str | pathlib.Path, *, keep: int = 2):
        root = pathlib.Path(workdir).absolute()
        options = ocp.CheckpointManagerOptions
        last, best = options(max_to_keep=keep), options(max_to_keep=1)
        self.last = ocp.CheckpointManager(root / "checkpoints", options=last)
        self.best = ocp.CheckpointManager(root / "best", options=best)

    def step(self) -> int | None:
        """The newest step that is whole, or None."""
        return self.last.latest_step()

    def best_step(self) -> int | None:
        return self.best.latest_step()

    def save(self, step: int, state: Any, progress: dict) -> None:
        """Starts writing a state; a step that is there already is left as it is."""
        if self.step() == step:
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress)
        )
        self.best.wait_until_finished()  # progress must not tell of a best that is not
        self.last.save(step, args=items, force=True)

    def save_best(self, step: int, params: Any, extras: Any) -> None:
        """Starts writing the weights to evaluate and to predict with."""
        if self.best_step() != step:
            weights = {"params": params, "extras": extras}
            items = ocp.args.Composite(weights=ocp.args.StandardSave(weights))
            # Processes meet at barriers in the order in which saves finish; two at a
            # time could finish in unlike orders and wait for each other for ever.
            if jax.process_count() > 1:
                self.last.wait_until_finished()
            self.best.save(step, args=items, force=True)

    def restore(self, abstract: Any) -> tuple[Any, dict]:
        """(state, progress) of the newest step, on `abstract`'s shapes and shardings.

        Any number of devices may have saved it. Raises ConfigError where parameters
        differ by name or shape from the saved ones.
        """
        step = self.step()
        check(self.last.directory / str(step) / "state", abstract.params)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()
        )
        found = self.last.restore(step, args=items)
        return found["state"], found["progress"]

    def close(self) -> None:
        for manager in (self.last, self.best):
            manager.wait_until_finished()
            manager.close()


def shapes_of(folder: pathlib.Path) -> Any:
    """The tree of what is saved in a folder, its leaves' shapes and dtypes."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)  # orbax warns of an optional file that is not there
    try:
        with ocp.StandardCheckpointer() as reader:
            metadata = reader.metadata(folder)
    finally:
        absl.setLevel(level)
    return getattr(metadata, "item_metadata", metadata).tree


def check(folder: pathlib.Path, params: Any) -> None:
    """Raises ConfigError naming the first parameter that the saved ones don't match."""
    saved = shapes_of(folder)["params"]
    there, here = (
        dict(zip(optim.paths(tree), jax.tree.leaves(tree), strict=True))
        for tree in (saved, params)
    )
    for path in sorted(set(there) | set(here)):
        shapes = [tuple(x[path].shape) if path in x else None for x in (there, here)]
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"{folder} does not fit this config: {path} is {shapes[0]} there and "
                f"{shapes[1]} here (None: absent); was it made with another config?"
            )


def weights(workdir: str | pathlib.Path, abstract: Any = None) -> dict[str, Any]:
    """{'params', 'extras'} of a run's best step, on `abstract`'s shardings if given.

    Without them every device of this process's world holds a copy, whatever saved it.

    Raises ConfigError where the run has none yet, and where it does not fit.
    """
    root = pathlib.Path(workdir).absolute() / "best"
    steps = [int(p.name) for p in root.glob("*") if p.name.isdigit()]
    if not steps:
        raise ConfigError(f"{workdir} holds no trained weights (no step in best/)")
    folder = root / str(max(steps)) / "weights"
    if abstract is None:
        mesh = jax.make_mesh((jax.device_count(),), ("all",))
        whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole)  # noqa: E731
        abstract = jax.tree.map(place, shapes_of(folder))
    else:
        check(folder, abstract["params"])
    with ocp.StandardCheckpointer() as reader:
        return reader.restore(folder, abstract)


def init_from(
    params: Any,
    collection: str = "params",
    *,
    path: str,
    rename: Sequence[tuple[str, str]] = (),
    skip: str | None = None,
    missing: str | None = None,
    resample: str | None = None,
) -> tuple[Any, dict[str, list[str]]]:
    """(params with the values found at `path`, what befell each parameter).

    collection: which variables these are, 'batch_stats' for one. path: a workdir of
    fmjax, a file or directory that `fmjax.interop` reads, or a name in
    `fmjax.data.weights`. `skip` leaves out found paths that it matches, `rename`
    rewrites the rest by regular expressions in order, `missing` says which parameters
    may keep their fresh values. `resample` says which are positions on a square grid,
    to be interpolated where this model's images have another size. What was found but
    not used is in the report. Raises ConfigError naming a parameter that is missing,
    both shapes where one does not fit, and a rename that gives two parameters one name.
    """
    if (pathlib.Path(path) / "best").is_dir():
        saved = weights(path)
        tree = {"params": saved["params"], **saved["extras"]}
    else:
        from fmjax import interop
        from fmjax.data import weights as published

        tree = interop.load(published.directory(path), head=None)[1]
    tree = tree.get(collection, {})
    found = dict(zip(optim.paths(tree), jax.tree.leaves(tree), strict=True))
    if skip:
        found = {path: v for path, v in found.items() if not re.search(skip, path)}
    for pattern, new in rename:
        names = {path: re.sub(pattern, new, path) for path in found}
        if len(set(names.values())) < len(names):
            raise ConfigError(
                f"init_from.rename ({pattern!r}, {new!r}) gives two parameters one "
                "name; leave one of them out by init_from.skip"
            )
        found = {names[path]: value for path, value in found.items()}
    own, leaves = optim.paths(params), []
    report: dict[str, list[str]] = {"loaded": [], "fresh": []}
    for name, leaf in zip(own, jax.tree.leaves(params), strict=True):
        if name in found:
            if resample and re.search(resample, name):
                with blaming(f"init_from.resample, {name}"):
                    found[name] = patches.fit(found[name], len(leaf))
            if found[name].shape != leaf.shape:
                raise ConfigError(
                    f"init_from: {name} is {found[name].shape} in {path} and "
                    f"{leaf.shape} here"
                )
            report["loaded"].append(name)
            value = np.asarray(found[name], leaf.dtype)
            leaves.append(jax.device_put(value, leaf.sharding))
        elif missing and re.search(missing, name):
            report["fresh"].append(name)
            leaves.append(leaf)
        else:
            raise ConfigError(
                f"init_from: {path} has no parameter {name}; {suggest(name, found)}; "
                f"to begin it afresh, set init_from.missing={name.split('/')[0]!r}"
            )
    report["unused"] = sorted(set(found) - set(own))
    return jax.tree.unflatten(jax.tree.structure(params), leaves), report
