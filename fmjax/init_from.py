"""Variables to begin with: of another run, or of a public checkpoint."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fmjax import checkpoint, optim
from fmjax.config import ConfigError, blaming, suggest
from fmjax.layers import patches


def init_from(
    params: Any,
    net: Any,
    collection: str = "params",
    *,
    path: str,
    rename: Sequence[tuple[str, str]] = (),
    skip: str | None = None,
    missing: str | None = None,
    resample: str | None = None,
) -> tuple[Any, dict[str, list[str]]]:
    """(params with the values found at `path`, what befell each parameter).

    net: the module that has these params. collection: which variables these are,
    'batch_stats' for one. path: a workdir of fmjax, or a public checkpoint of the net's
    family: a folder, a file of torch, a name in `fmjax.data.weights`, or
    'hf:org/name@revision'. Of a public one all that the net has is taken, heads
    included where both have the same.
    `skip` leaves out found paths that it matches, `rename` rewrites the rest by regular
    expressions in order, `missing` says which parameters may keep their fresh values.
    `resample` says which are positions on a square grid, to be interpolated where this
    model's images have another size. The report's `unused` has what was found and not
    used, also a public checkpoint's tensors by their own names.
    Raises ConfigError naming a parameter that is missing, both shapes where one does
    not fit, a rename that gives two parameters one name, and a setting in which a
    public checkpoint's model computes otherwise.
    """
    left: tuple[str, ...] = ()
    folder = pathlib.Path(path)
    if (folder / "best").is_dir() or (folder / "checkpoints").is_dir():
        saved = checkpoint.weights(path)
        tree = {"params": saved["params"], **saved["extras"]}
    else:
        from fmjax import interop
        from fmjax.data import weights as published

        with blaming("init_from"):
            loaded = interop.read_for(net, published.directory(path))
        tree, left = loaded.variables, loaded.report.unused
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
        part = name.split("/")[0]
        if name in found:
            if resample and re.search(resample, name):
                with blaming(f"init_from.resample, {name}"):
                    found[name] = patches.fit(found[name], len(leaf))
            if found[name].shape != leaf.shape:
                raise ConfigError(
                    f"init_from: {name} is {found[name].shape} in {path} and "
                    f"{leaf.shape} here; to begin it afresh, set "
                    f"init_from.skip='^{part}/' and init_from.missing='^{part}/'"
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
                f"to begin it afresh, set init_from.missing={part!r}"
            )
    report["unused"] = sorted({*found} - {*own}) + sorted(left)
    return jax.tree.unflatten(jax.tree.structure(params), leaves), report
