"""What a run starts from: its own checkpoints, then `init_from`, then chance."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from fmjax import checkpoint, optim, report, transfer
from fmjax.step import State

FRESH = {"best": None, "best_step": 0, "worse": 0, "evaluated": 0}


def kept(setup: Any, params: Any) -> Any:
    """Those of the parameters that a checkpoint holds."""
    return (
        transfer.thin(params, setup.trainable) if setup.saving.trained_only else params
    )


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
            return made, dict(FRESH)
    abstract = setup.state._replace(params=kept(setup, setup.state.params))
    found, progress = store.restore(abstract)
    if thinned:
        found = found._replace(params=transfer.fill(made.params, found.params))
    return found, progress


def initial(setup: Any, workdir: pathlib.Path, settings: Mapping[str, Any]) -> State:
    """A state of no steps, which says in init_from.json what it took from where."""
    places = jax.tree.map(lambda x: x.sharding, setup.state)
    made = jax.jit(setup.create, out_shardings=places)(jax.random.key(settings["seed"]))
    if init_from := settings["init_from"]:
        params, loaded = transfer.begin(made.params, setup.parts, init_from)
        made = made._replace(
            params=params, opt_state=optim.restart(made.opt_state, params)
        )
        for name, extras in made.extras.items():  # batch statistics come along
            more, loaded[name] = transfer.begin(extras, setup.parts, init_from, name)
            made = made._replace(extras=made.extras | {name: more})
        report.write_json(workdir / "init_from.json", loaded)
    if setup.saving.trained_only:
        transfer.check(workdir, made.params, setup.trainable)
    return made
