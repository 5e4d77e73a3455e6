"""Checkpoints: the only file that imports orbax.

A workdir holds `checkpoints/STEP` (whole states, the last few, each with a small
`progress` record) and `best/STEP` (the weights, averaged ones where the run averages,
that were best by the watched metric). A save is asynchronous and atomic: a step's
folder has its final name only once it is whole.
"""

from __future__ import annotations

import logging
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from fmjax import optim
from fmjax.config import ConfigError


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
