"""Trees of parameters by path: each leaf has a name, and a pattern chooses some."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax

from fmjax.config import ConfigError


def paths(tree: Any) -> list[str]:
    """The paths of a tree's leaves, in the order of `jax.tree.leaves`."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in flat]


def by_path(function: Callable[[str], Any], tree: Any) -> Any:
    """A tree like `tree` that holds function(path) for each leaf."""
    return jax.tree.unflatten(jax.tree.structure(tree), map(function, paths(tree)))


def matches(pattern: str, tree: Any, where: str) -> Any:
    """A tree of bools: does the path match? Raises ConfigError where none does."""
    try:
        found = by_path(lambda path: bool(re.search(pattern, path)), tree)
    except re.error as error:
        raise ConfigError(f"{where}: {pattern!r} is no pattern: {error}") from error
    if not any(jax.tree.leaves(found)):
        some = ", ".join(paths(tree)[:6])
        raise ConfigError(
            f"{where}: no parameter matches {pattern!r}; parameters are {some}, ..."
        )
    return found
