"""What a sweep may choose for a config's fields: `get_sweep(arg)` beside `get_config`.

('log', 1e-5, 1e-3)     a number, uniform in its logarithm
('uniform', 0.0, 0.3)   a number
('int', 2, 12)          a whole number, both ends included
('int_log', 8, 512)     likewise, uniform in its logarithm
(2, 4, 6)               any other tuple or list: one of these values

As a flag: --search.optim.lr=log:1e-5:1e-3 --search.model.depth=2,4,6
"""

from __future__ import annotations

import ast
import runpy
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from fmjax.config import ConfigError, suggest

KINDS = ("log", "uniform", "int", "int_log")
CHOICE = "choice"


class Range(NamedTuple):
    """One field's range; `values` are its two ends, or all the choices."""

    kind: str
    values: tuple[Any, ...]

    def suggest(self, trial: Any, key: str) -> Any:
        """The value an Optuna trial has, or is now given, for the field."""
        if self.kind == CHOICE:
            # Optuna takes what JSON has as it is; the rest is known by its text.
            known = {_token(value): value for value in self.values}
            return known[trial.suggest_categorical(key, list(known))]
        whole = self.kind.startswith("int")
        ask = trial.suggest_int if whole else trial.suggest_float
        return ask(key, *self.values, log=self.kind.endswith("log"))


def _token(value: Any) -> Any:
    plain = value is None or isinstance(value, bool | int | float | str)
    return value if plain else repr(value)


def parse(key: str, spec: Any) -> Range:
    """A field's range. Raises ConfigError, naming the field, for what is none."""
    where = f"the range of {key}"
    if not isinstance(spec, tuple | list) or not spec:
        raise ConfigError(
            f"{where} is {spec!r}; write ('log', 1e-5, 1e-3) or values, as (2, 4, 6)"
        )
    kind, *values = spec
    if kind not in KINDS:
        if len({repr(_token(value)) for value in spec}) < max(len(spec), 2):
            raise ConfigError(f"{where} needs two values or more, none twice: {spec!r}")
        if len({_token(value) for value in spec}) < len(spec):
            raise ConfigError(f"{where}: {spec!r} has equal values of unlike types")
        return Range(CHOICE, tuple(spec))
    types = int if kind.startswith("int") else (int, float)
    if len(values) != 2 or not all(
        isinstance(v, types) and not isinstance(v, bool) for v in values
    ):
        what = "whole numbers" if types is int else "numbers"
        raise ConfigError(f"{where}: {kind!r} needs two {what}, a low and a high")
    low, high = values if types is int else map(float, values)
    if not low < high or (kind.endswith("log") and low <= 0):
        bound = "0 < low < high" if kind.endswith("log") else "low < high"
        raise ConfigError(f"{where}: {kind!r} from {low} to {high}; it needs {bound}")
    return Range(kind, (low, high))


def from_text(key: str, text: str) -> Range:
    """A flag's range: 'log:1e-5:1e-3', '2,4,6' or a Python literal."""
    kind, colon, rest = text.partition(":")
    if colon and kind.isidentifier():
        if kind not in KINDS:
            known = suggest(kind, KINDS)
            raise ConfigError(f"the range of {key}: no kind {kind!r}; {known}")
        return parse(key, (kind, *map(_literal, rest.split(":"))))
    whole = _literal(text)
    if not isinstance(whole, tuple | list):
        whole = tuple(map(_literal, text.split(",")))
    return parse(key, whole)


def _literal(text: str) -> Any:
    named = {"true": True, "false": False, "none": None}
    if text.strip().lower() in named:
        return named[text.strip().lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text.strip()


def of_config(path: str) -> dict[str, Any]:
    """What `get_sweep(arg)` of 'file.py:arg' gives; {} where there is none."""
    file, _, arg = path.partition(":")
    found = runpy.run_path(file).get("get_sweep")
    if found is None:
        return {}
    return dict(found(arg) if arg else found())


def collect(
    path: str, flags: Mapping[str, str], fixed: Collection[str] = ()
) -> dict[str, Range]:
    """{field: range} of a config file, and of flags, which win.

    fixed: fields set by other flags, which are then not searched. Raises ConfigError
    where nothing is left, for what is no range, and for a flag of both kinds.
    """
    if twice := sorted(set(flags) & set(fixed)):
        raise ConfigError(f"{', '.join(twice)}: both set and searched; do one of them")
    own = {key: spec for key, spec in of_config(path).items() if key not in fixed}
    found = {key: parse(key, spec) for key, spec in own.items()}
    found |= {key: from_text(key, text) for key, text in flags.items()}
    if not found:
        raise ConfigError(
            f"nothing to search: {path} has no get_sweep(arg), and there is no flag "
            "such as --search.optim.lr=log:1e-5:1e-3"
        )
    return found
