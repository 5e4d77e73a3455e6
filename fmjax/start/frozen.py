"""Frozen parameters, which need not be in every checkpoint of a run.

With `checkpoint.trained_only` a checkpoint holds what is trained (an adapter, a head)
and the optimizer's state of it. The rest is got again from where it came, `init_from`
or the seed, and must then have the digest that the run wrote down at its start.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from fmjax import config, files, parallel, transforms, trees
from fmjax.start import init_from as initial


def begin(
    params: Any,
    parts: config.Parts,
    init_from: Mapping | None,
    collection: str = "params",
) -> tuple[Any, dict]:
    """(parameters as a run begins with, what befell each) from freshly made ones.

    parts: whose net has them. collection: which variables they are, 'batch_stats' for
    one.
    """
    if not init_from:
        return params, {}
    net, own = parts.net, {"tokenizer": parts.tokenizer}
    bound = config.bind("init_from", initial.init_from, init_from, **own)
    params, loaded = bound(params, transforms.plain(net), collection)
    counts = ", ".join(f"{len(paths)} {what}" for what, paths in loaded.items())
    if jax.process_index() == 0:
        print(f"init_from ({collection}): {counts}", file=sys.stderr)
    if isinstance(net, transforms.Transformed) and collection == "params":
        places = jax.tree.map(lambda x: x.sharding, params)
        settle = lambda p: net.settle(p, frozenset(loaded["fresh"]))  # noqa: E731
        params = jax.jit(settle, out_shardings=places)(params)
    return params, loaded


def thin(params: Any, trainable: Any) -> dict[str, Any]:
    """The trained parameters alone. Raises ConfigError where that is all or none."""
    if trainable is None or all(jax.tree.leaves(trainable)):
        raise config.ConfigError(
            "checkpoint.trained_only: every parameter is trained; set optim.train or "
            "optim.freeze, or leave it out"
        )
    on = traverse_util.flatten_dict(trainable, sep="/")
    flat = traverse_util.flatten_dict(dict(params), sep="/")
    kept = {path: value for path, value in flat.items() if on[path]}
    return traverse_util.unflatten_dict(kept, sep="/")


def fill(params: Any, trained: Mapping[str, Any]) -> Any:
    """`params` with the values of `trained` where it has any."""
    flat = traverse_util.flatten_dict(dict(params), sep="/")
    flat |= traverse_util.flatten_dict(dict(trained), sep="/")
    return traverse_util.unflatten_dict(flat, sep="/")


def digest(params: Any, trainable: Any) -> str:
    """SHA-256 over the paths, shapes and bits of the frozen parameters."""
    found = hashlib.sha256()
    leaves = zip(jax.tree.leaves(params), jax.tree.leaves(trainable), strict=True)
    for path, (leaf, on) in zip(trees.paths(params), leaves, strict=True):
        if not on:
            value = np.ascontiguousarray(parallel.gather(leaf))
            found.update(f"{path} {value.dtype} {value.shape}".encode())
            found.update(value.tobytes())
    return found.hexdigest()


def check(workdir: pathlib.Path, params: Any, trainable: Any) -> None:
    """Writes the digest of the frozen parameters, or compares with the one there.

    Raises ConfigError where they are not those that the run began with.
    """
    path = pathlib.Path(workdir) / "frozen.json"
    now = digest(params, trainable)
    if not path.is_file():
        if jax.process_index() == 0:
            files.write_json(path, {"sha256": now})
        return
    if json.loads(path.read_text("utf-8"))["sha256"] != now:
        raise config.ConfigError(
            f"{workdir} was trained on other frozen parameters than init_from gives "
            "now (see frozen.json); give the original checkpoint back to its place"
        )


def base(
    init: Callable, parts: config.Parts, settings: Mapping[str, Any], abstract: Any
) -> Any:
    """The parameters that a run with these settings began with.

    init: key -> variables; abstract: the parameters' shapes with shardings.
    """
    key = jax.random.split(jax.random.key(settings["seed"]))[0]
    places = jax.tree.map(lambda x: x.sharding, abstract)
    make = jax.jit(lambda k: init(k)["params"], out_shardings=places)
    return begin(make(key), parts, settings["init_from"])[0]
