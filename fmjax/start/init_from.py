"""Variables to begin with: of another run, or of a public checkpoint."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fmjax import checkpoint, trees
from fmjax.config import ConfigError, blaming, suggest
from fmjax.layers import patches
from fmjax.start import resize


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
    positions: str | None = None,
    vocabulary: str | None = None,
    old_tokenizer: str | None = None,
    misshaped: str | None = None,
    tokenizer: Any = None,
) -> tuple[Any, dict[str, Any]]:
    """(params with the values found at `path`, what befell each parameter).

    net: the module that has these params. collection: which variables these are,
    'batch_stats' for one. path: a workdir of fmjax, or a public checkpoint of the net's
    family: a folder, a file of torch, a name in `fmjax.data.weights`, or
    'hf:org/name@revision'. Of a public one all that the net has is taken, heads
    included where both have the same.
    `skip` leaves out found paths that it matches, `rename` rewrites the rest by regular
    expressions in order, `missing` says which parameters may keep their fresh values.

    Further patterns say which may have another shape there:
    `resample`: positions on a square grid, interpolated where this model's images have
        another size;
    `positions`: positions in a text: the first rows are taken; if there are more here,
        the rest stay fresh;
    `vocabulary`: rows (or columns) by token: those of tokens that both tokenizers have
        are taken, also where they have other numbers; the rest stay fresh. tokenizer:
        this run's. old_tokenizer: a path as of `fmjax.data.tokenizer`; None: the one
        that lies at `path`;
    `misshaped`: stay fresh where the shape is another (a head for other classes).

    The report: `loaded` and `fresh` paths, together all; of the loaded ones `renamed`
    {path: path there} and `resized` {path: how}; of the fresh ones `misshaped` {path:
    shapes there and here}; `unused`, found and not used, also a public checkpoint's
    tensors by their own names.
    Raises ConfigError naming all that are missing or do not fit, a rename that gives
    two parameters one name, and a setting in which a public checkpoint's model computes
    otherwise.
    """
    tree, left = read(net, path)
    tree = tree.get(collection, {})
    found = dict(zip(trees.paths(tree), jax.tree.leaves(tree), strict=True))
    if skip:
        found = {path: v for path, v in found.items() if not re.search(skip, path)}
    found, origin = renamed(found, rename)
    rows = None
    if vocabulary and collection == "params":
        rows = resize.Rows(net, tokenizer, old_tokenizer or path)

    own, leaves = trees.paths(params), []
    wrong: list[str] = []
    report: dict[str, Any] = {"loaded": [], "fresh": []}
    report |= {"renamed": {}, "resized": {}, "misshaped": {}}
    for name, leaf in zip(own, jax.tree.leaves(params), strict=True):
        part = name.split("/")[0]
        value, how = found.get(name), ""
        if value is None:
            if missing and re.search(missing, name):
                report["fresh"].append(name)
            else:
                hint = f"; {suggest(name, found)}" if not wrong else ""
                wrong.append(
                    f"{path} has no parameter {name}{hint}; to begin it afresh, set "
                    f"init_from.missing={part!r}"
                )
            leaves.append(leaf)
            continue
        if vocabulary and rows and re.search(vocabulary, name):
            with blaming(f"init_from.vocabulary, {name}"):
                value, how = rows.fit(name, value, leaf)
        elif resample and re.search(resample, name):
            with blaming(f"init_from.resample, {name}"):
                how = "" if len(value) == len(leaf) else f"resampled from {len(value)}"
                if how:
                    resize.square(net)
                value = patches.fit(value, len(leaf))
        elif positions and re.search(positions, name):
            value, how = resize.truncate(value, leaf)
        if value.shape == leaf.shape:
            report["loaded"].append(name)
            report["resized"] |= {name: how} if how else {}
            report["renamed"] |= {name: origin[name]} if origin[name] != name else {}
            value = jax.device_put(np.asarray(value, leaf.dtype), leaf.sharding)
        elif misshaped and re.search(misshaped, name):
            report["fresh"].append(name)
            report["misshaped"][name] = [list(value.shape), list(leaf.shape)]
            value = leaf
        else:
            wrong.append(
                f"{name} is {value.shape} in {path} and {leaf.shape} here; to begin it "
                f"afresh, set init_from.misshaped='^{part}/'"
            )
        leaves.append(value)
    if wrong:
        more = [f"and {len(wrong) - 8} more"] if len(wrong) > 8 else []
        if thin(path):
            more.append(
                f"{path} holds what it trained alone (checkpoint.trained_only); begin "
                "with what it began with, see its config.json"
            )
        raise ConfigError("init_from: " + "\n  ".join([*wrong[:8], *more]))
    report["unused"] = sorted({*found} - {*own}) + sorted(left)
    return jax.tree.unflatten(jax.tree.structure(params), leaves), report


def read(net: Any, path: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """({'params', 'batch_stats', ...} of a run or checkpoint, tensors left out of it).

    Raises ConfigError where there is neither, or it is of another family.
    """
    folder = pathlib.Path(path)
    if (folder / "best").is_dir() or (folder / "checkpoints").is_dir():
        saved = checkpoint.weights(path)
        return {"params": saved["params"], **saved["extras"]}, ()
    from fmjax import interop
    from fmjax.data import weights as published

    with blaming("init_from"):
        loaded = interop.read_for(net, published.directory(path))
    return loaded.variables, loaded.report.unused


def thin(path: str) -> bool:
    """Does a run hold only what it trained?"""
    record = pathlib.Path(path) / "config.json"
    known = json.loads(record.read_text("utf-8")) if record.is_file() else {}
    settings = known.get("config") if isinstance(known, dict) else None
    checkpoints = (settings or {}).get("checkpoint") or {}
    return bool(checkpoints.get("trained_only"))


def renamed(
    found: dict[str, Any], rename: Sequence[tuple[str, str]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """(values by their new paths, {new path: old path}).

    Raises ConfigError where two get one path, and for a pattern that is none or idle.
    """
    origin = {path: path for path in found}
    for pattern, new in rename:
        try:
            names = {path: re.sub(pattern, new, path) for path in origin}
        except (re.error, IndexError) as error:
            raise ConfigError(
                f"init_from.rename ({pattern!r}, {new!r}): {error}"
            ) from error
        if len(set(names.values())) < len(names):
            raise ConfigError(
                f"init_from.rename ({pattern!r}, {new!r}) gives two parameters one "
                "name; leave one of them out by init_from.skip"
            )
        origin = {names[path]: old for path, old in origin.items()}
    return {path: found[old] for path, old in origin.items()}, origin
