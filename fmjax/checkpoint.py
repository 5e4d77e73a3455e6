"""Checkpoints: the only file that imports orbax.

A workdir holds `checkpoints/STEP` (whole states, the last few, each with a small
`progress` record) and `best/STEP` (the weights, averaged ones where the run averages,
that were best by the watched metric). A save is asynchronous and atomic: a step's
folder has its final name only once it is whole, with the digests of all it holds. A
step that is not as it was written is never used: the newest good one is.
"""

from __future__ import annotations

import logging
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from fmjax import trees
from fmjax.config import ConfigError
from fmjax.keeping import digests
from fmjax.keeping.digests import Damaged

SMALL = 2**20  # bytes


def _once(tree: Any) -> Any:
    """A tree whose small arrays, of which every device has a copy, are the first's.

    Orbax would cut each of them over all devices, by a program a shape and a device.
    """

    def one(x):
        copies = isinstance(x, jax.Array) and jax.process_count() == 1
        copies = copies and x.is_fully_replicated and x.nbytes < SMALL
        return x.addressable_shards[0].data if copies else x

    return jax.tree.map(one, tree)


class Checkpoints:
    """The checkpoints of one workdir; close() waits for what is being written."""

    def __init__(self, workdir: str | pathlib.Path, *, keep: int = 2):
        self.root = pathlib.Path(workdir).absolute()
        self.noted: dict[str, tuple] = {}  # of what is being saved, by folder
        self.unsettled: set[str] = set()  # folders whose last save `check` has not seen
        self.damaged: list[str] = []  # steps that were passed over, and why
        kept = {"checkpoints": keep, "best": 1}
        self.named = {name: self._manager(name, many) for name, many in kept.items()}
        self.last, self.best = self.named.values()

    def _manager(self, name: str, keep: int) -> ocp.CheckpointManager:
        def complete():  # called when all files are there, before the final renaming
            step = self.noted[name][0]
            halves = (self.root / name).glob(f"{step}.orbax-checkpoint-tmp*")
            newest = max(halves, key=lambda path: path.stat().st_mtime)
            digests.write(newest, *self.noted[name])

        told = ocp.AsyncOptions(post_finalization_callback=complete)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, async_options=told)
        return ocp.CheckpointManager(self.root / name, options=options)

    def _save(self, name: str, step: int, tree: Any, items: Any, progress=None) -> None:
        manager = self.named[name]
        manager.wait_until_finished()
        self.noted[name] = step, digests.start(tree), progress
        mark = {digests.MARK: True}
        self.unsettled.add(name)
        manager.save(step, args=items, custom_metadata=mark, force=True)

    def step(self) -> int | None:
        """The newest step that is whole, or None."""
        return self.last.latest_step()

    def steps(self) -> list[int]:
        """All steps, the newest first."""
        return sorted(self.last.all_steps(), reverse=True)

    def best_step(self) -> int | None:
        return self.best.latest_step()

    def save(self, step: int, state: Any, progress: dict) -> None:
        """Starts writing a state; a step that is there already is left as it is."""
        if self.step() == step:
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(_once(state)),
            progress=ocp.args.JsonSave(progress),
        )
        self.best.wait_until_finished()  # progress must not tell of a best that is not
        self._save("checkpoints", step, state, items, digests.of_json(progress))

    def save_best(self, step: int, params: Any, extras: Any) -> None:
        """Starts writing the weights to evaluate and to predict with."""
        weights = {"params": params, "extras": extras}
        items = ocp.args.Composite(weights=ocp.args.StandardSave(_once(weights)))
        # Processes meet at barriers in the order in which saves finish; two at a time
        # could finish in unlike orders and wait for each other for ever.
        if jax.process_count() > 1:
            self.last.wait_until_finished()
        self.best.wait_until_finished()
        # A run that was killed, or rolled back, may have left some further on.
        for left in [old for old in self.best.all_steps() if old >= step]:
            self.best.delete(left)
        self._save("best", step, weights, items)

    def check(self) -> None:
        """Raises what went wrong in saves that have ended, such as a full disk.

        Costs nothing where none has been begun since: the loop asks at every step.
        """
        for name in sorted(self.unsettled):
            manager = self.named[name]
            if manager.is_saving_in_progress():
                continue
            self.unsettled.discard(name)
            try:
                manager.wait_until_finished()
            except Exception as error:
                raise RuntimeError(
                    "a checkpoint could not be written; those before are as they were, "
                    f"and the same command goes on from them: {error}"
                ) from error

    def reload(self) -> None:
        """Looks again at what there is."""
        for manager in self.named.values():
            manager.reload()

    def close(self) -> None:
        for manager in self.named.values():
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
        dict(zip(trees.paths(tree), jax.tree.leaves(tree), strict=True))
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
    folder = root / str(max(steps))
    try:
        return read(folder, abstract)[0]
    except Damaged as error:
        raise ConfigError(f"{folder} is damaged, give back a copy: {error}") from None


def verify(folder: pathlib.Path) -> bool:
    """Reads a whole step; were there digests to compare with? Raises Damaged."""
    read(folder)
    return (folder / digests.FILE).exists()


def read(folder: pathlib.Path, abstract: Any = None) -> tuple[Any, Any]:
    """(arrays, progress) of a step's folder, if they are what was written.

    Without `abstract` every device holds a whole copy. Raises Damaged where they are
    not, and ConfigError where parameters differ from `abstract`'s.
    """
    known, progress = digests.agreed(folder), None
    inside = folder / ("state" if folder.parent.name == "checkpoints" else "weights")
    try:
        if abstract is None:
            mesh = jax.make_mesh((jax.device_count(),), ("all",))
            whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
            place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole)  # noqa: E731
            abstract = jax.tree.map(place, shapes_of(inside))
        else:
            named = (
                abstract["params"] if isinstance(abstract, dict) else abstract.params
            )
            check(inside, named)
        with ocp.StandardCheckpointer() as reader:
            tree = reader.restore(inside, abstract)
        if inside.name == "state":
            with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
                progress = reader.restore(folder / "progress")
    except ConfigError:
        raise
    except Exception as error:
        if known is not None:  # the files are sound: something else went wrong
            raise
        raise Damaged(f"it does not read: {error}") from error
    if known is None:
        logging.getLogger("absl").warning("%s has no digests: not verified", folder)
    else:
        digests.check(known, tree, progress)
    return tree, progress
