"""What a run starts from: its own checkpoints, then `init_from`, then chance."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental import multihost_utils

from fmjax import checkpoint, copies, files, offload
from fmjax.config import ConfigError
from fmjax.keeping import digests, guard
from fmjax.keeping.digests import Damaged
from fmjax.start import frozen
from fmjax.step import State

FRESH = {"best": None, "best_step": 0, "worse": 0, "evaluated": 0}


def kept(setup: Any, params: Any) -> Any:
    """Those of the parameters that a checkpoint holds."""
    return frozen.thin(params, setup.trainable) if setup.saving.trained_only else params


def state(
    setup: Any,
    store: checkpoint.Checkpoints,
    workdir: pathlib.Path,
    settings: Mapping[str, Any],
) -> tuple[State, dict[str, Any]]:
    """(state, progress) to go on from; setup: train.Setup.

    Raises ConfigError where there are checkpoints and none is as it was written.
    """
    thinned, saved = setup.saving.trained_only, store.step() is not None
    if thinned or not saved:
        made = initial(setup, workdir, settings)
        if not saved:
            # Compiled by now, so that the first save is no slower than the others.
            digests.start(made._replace(params=kept(setup, made.params)))
            return made, dict(FRESH)
    abstract = setup.state._replace(params=kept(setup, setup.state.params))
    found, progress = newest(store, abstract)
    if thinned:
        found = found._replace(params=frozen.fill(made.params, found.params))
    return found, progress


def newest(store: checkpoint.Checkpoints, abstract: Any) -> tuple[Any, dict[str, Any]]:
    """(state, progress) of the newest good step, on `abstract`'s shapes and places.

    Any number of devices may have saved it. Damaged steps that are newer, and a damaged
    best one, are put aside, into the workdir's folder damaged/, and told in
    `store.damaged`. Raises ConfigError where every step is damaged, and where
    parameters differ by name or shape from the saved ones.
    """
    bad = []
    for step in store.steps():
        folder = store.root / "checkpoints" / str(step)
        try:
            found, progress = checkpoint.read(folder, abstract)
            break
        except Damaged as error:
            bad.append(folder)
            store.damaged.append(f"{folder}: {error}")
    else:
        raise ConfigError(
            "every step is damaged, and nothing is started over them: give back a "
            f"copy, or take another --workdir. {'; '.join(store.damaged)}"
        )
    if (best := store.best_step()) is not None:
        folder = store.root / "best" / str(best)
        try:
            digests.agreed(folder)
        except Damaged as error:
            bad.append(folder)
            store.damaged.append(f"{folder}: {error}; the best is looked for anew")
            progress = progress | {"best": None, "best_step": 0}
    if bad:
        if jax.process_index() == 0:
            for folder in bad:
                digests.put_aside(folder)
        multihost_utils.sync_global_devices("damaged steps are put aside")
        store.reload()
    return found, progress


def quickly(platform: str) -> dict[str, Any] | None:
    """Options of XLA's for a program that is run once, where the user has set none.

    A CPU's compiler takes longer over a hundred random arrays than they take to be
    made; at its first level it makes the same bits as at its usual one.
    """
    if platform != "cpu" or "xla_backend_opt" in os.environ.get("XLA_FLAGS", ""):
        return None
    return {"xla_backend_optimization_level": 1}


def initial(setup: Any, workdir: pathlib.Path, settings: Mapping[str, Any]) -> State:
    """A state of no steps, which says in init_from.json what it took from where."""
    places = jax.tree.map(lambda x: x.sharding, setup.state)
    options = quickly(setup.plan.mesh.devices.flat[0].platform)
    create = jax.jit(setup.create, out_shardings=places, compiler_options=options)
    made = create(jax.random.key(settings["seed"]))
    # Where there is no room, to wait for some of its arrays alone would never end.
    jax.block_until_ready(made)
    if init_from := settings["init_from"]:
        near = offload.near(made.opt_state)
        whole = copies.averaged(near, made.params)  # not rounded before it is
        whole, loaded = frozen.begin(whole, setup.parts, init_from)
        narrow = lambda new, old: new.astype(old.dtype)  # noqa: E731
        made = made._replace(
            params=jax.tree.map(narrow, whole, made.params),
            opt_state=offload.away(copies.restart(near, whole), places.opt_state),
        )
        for name, extras in made.extras.items():  # batch statistics come along
            more, loaded[name] = frozen.begin(extras, setup.parts, init_from, name)
            made = made._replace(extras=made.extras | {name: more})
        files.write_json(workdir / "init_from.json", loaded)
    if setup.saving.trained_only:
        frozen.check(workdir, copies.full(made.params), setup.trainable)
    return made


def go_back(workdir: pathlib.Path, setup: Any, bad: int) -> None:
    """Prepares a rollback to the newest checkpoint; batches up to `bad` are left out.

    Raises guard.NonFinite after guard.limit rollbacks.
    """
    store = checkpoint.Checkpoints(workdir)
    to = store.step() or 0
    store.close()
    guard.go_back(workdir, bad - 1, to, setup.guard.limit)
    print(
        f"fmjax: back from step {bad} to {to}; batches between are left out",
        file=sys.stderr,
    )
