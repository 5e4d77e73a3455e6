"""All of the configuration machinery: parts by file name, overrides, durations.

A config is a plain nested dict made by `get_config(arg)` in a file under `configs/`. A
signature is its schema: `train(workdir, **config)` and, for every part, the keyword
fields of the function or module that the part's `name` finds.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import importlib
import importlib.util
import inspect
import math
import pathlib
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

PARTS = {  # kind -> (package, the attribute that builds the part)
    "model": ("fmjax.models", "Model"),
    "objective": ("fmjax.objectives", "objective"),
    "data": ("fmjax.data.sources", "load"),
    "inputs": ("fmjax.data.inputs", "make"),
    "metrics": ("fmjax.metrics", "compute"),
    "transforms": ("fmjax.transforms", "transform"),
}

# What may be an int or a text.
DURATIONS = ("steps", "every", "warmup", "cooldown", "start", "finish")


class ConfigError(ValueError):
    """A setting is wrong; the message names it and the remedy."""


def suggest(word: str, words) -> str:
    """'did you mean ...?' followed by all the valid words."""
    words = sorted(words)
    near = difflib.get_close_matches(word, words, n=1)
    return (
        f"did you mean {near[0]!r}? " if near else ""
    ) + f"known: {', '.join(words)}"


def find(kind: str, name: str) -> ModuleType:
    """Imports the file that `name` means: ('model', 'bert') is fmjax/models/bert.py.

    Raises ConfigError, listing the names there are, where there is no such file.
    """
    package = importlib.import_module(PARTS[kind][0])
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    if name not in names:
        raise ConfigError(f"no {kind} named {name!r}; {suggest(str(name), names)}")
    return importlib.import_module(f"{package.__name__}.{name}")


def fields(function: Callable) -> set[str]:
    """The names that a config may set: keyword-only ones, or a module's fields."""
    parameters = inspect.signature(function).parameters.values()
    if inspect.isclass(function):
        return {p.name for p in parameters} - {"parent", "name"}
    return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}


def required(function: Callable) -> set[str]:
    """Those of `fields` that have no default."""
    parameters = inspect.signature(function).parameters.values()
    bare = {p.name for p in parameters if p.default is p.empty}
    return bare & fields(function)


def bind(where: str, function: Callable, spec: Mapping | None, **given) -> Callable:
    """`function` with the fields of `spec` filled in.

    `given` are values the house has to offer (a tokenizer, say): each is passed where
    the function has a field of that name. Raises ConfigError for an unknown field and
    for a missing one.
    """
    valid, spec = fields(function), dict(spec or {})
    for key in spec:
        if key not in valid:
            raise ConfigError(f"unknown setting {where}.{key}; {suggest(key, valid)}")
    filled = {key: value for key, value in given.items() if key in valid} | spec
    for name in sorted(required(function) - set(filled)):
        raise ConfigError(f"{where} needs the setting {where}.{name}")
    return functools.partial(function, **filled)


def part(kind: str, spec: Mapping, **given) -> Callable:
    """The builder that `spec` (`name` and its fields) means, ready to be called."""
    if "name" not in spec:
        raise ConfigError(f"{kind} needs the setting {kind}.name")
    settings = {key: value for key, value in spec.items() if key != "name"}
    builder = getattr(find(kind, spec["name"]), PARTS[kind][1])
    return bind(kind, builder, settings, **given)


def duration(
    text: int | str | None,
    where: str,
    *,
    batch_size: int = 0,
    examples: int = 0,
    total: int | None = None,
) -> int:
    """A number of steps from '3 epochs', '500 steps', '1e6 examples', '10%' or an int.

    A percentage is of `total` steps. Fractions round up, None and 0 are 0. Raises
    ConfigError for an unknown unit and for one that has no meaning at that place.
    """
    if text is None or (isinstance(text, int) and text >= 0):
        return text or 0
    number = r"(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:e\d\d?)?"
    unit = r"(?:step|example|epoch)s?|%"
    match = re.fullmatch(rf"\s*({number})\s*({unit})?\s*", str(text))
    units = {
        "step": 1.0,
        "example": 1 / batch_size if batch_size else None,
        "epoch": examples / batch_size if batch_size and examples else None,
        "%": total / 100 if total is not None else None,
    }
    unit = (match[2] or "step").rstrip("s") if match else ""
    if not match or units.get(unit) is None:
        known = ", ".join(f"'{7} {k}s'" for k, v in units.items() if v and k != "%")
        percent = ", '7%'" if total is not None else ""
        raise ConfigError(f"{where}={text!r} is no duration; write {known}{percent}")
    return math.ceil(float(match[1]) * units[unit] - 1e-9)  # type: ignore[operator]


def load(path: str, overrides: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Runs `get_config(arg)` of 'file.py:arg' and applies dotted overrides in order.

    Where an override changes a part's `name`, the fields which the new part does not
    have are dropped with a notice; every other unknown field is an error at start.
    """
    file, _, arg = path.partition(":")
    if not pathlib.Path(file).is_file():
        there = [str(p) for p in pathlib.Path("configs").glob("*/*.py")]
        raise ConfigError(f"no config file {file!r}; {suggest(file, there)}")
    spec = importlib.util.spec_from_file_location(pathlib.Path(file).stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = (module.get_config(arg) if arg else module.get_config()).to_dict()
    config = {"guard": None} | config  # which no recipe needs to mention
    for key, text in (overrides or {}).items():
        override(config, key, text)
    return config


def override(config: dict[str, Any], key: str, text: str) -> None:
    """Sets config['a']['b'] for key 'a.b'; the text is a Python literal or a string."""
    *parents, last = key.split(".")
    node = config
    for depth, parent in enumerate(parents):
        if parent not in node:
            path = ".".join([*parents[:depth], parent])
            raise ConfigError(f"unknown setting {path}; {suggest(parent, node)}")
        if node[parent] is None:
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict):
            raise ConfigError(f"--config.{key}: {parent} holds {node!r}, not settings")
    value: Any
    try:
        value = {"true": True, "false": False, "none": None}[text.lower()]
    except KeyError:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
    old = node.get(last)
    if isinstance(old, float) and isinstance(value, int) and value is not True:
        value = float(value)
    same = type(value) is type(old) or {type(value), type(old)} <= {list, tuple}
    # '3 epochs' and 300 both serve.
    durations = last in DURATIONS and {type(value), type(old)} <= {int, str}
    if old is not None and value is not None and not same and not durations:
        raise ConfigError(
            f"--config.{key}={text}: takes a {type(old).__name__} like {old!r}"
        )
    kind = {"corpus": "data"}.get(parents[-1], parents[-1]) if parents else ""
    if last == "name" and kind in PARTS and value != old:
        valid = fields(getattr(find(kind, value), PARTS[kind][1]))
        for gone in [k for k in node if k not in valid and k != "name"]:
            print(f"{kind}: {value!r} has no {gone!r}; dropped", file=sys.stderr)
            del node[gone]
    node[last] = value


@contextlib.contextmanager
def blaming(where: str):
    """A part's own ValueError is the config's fault: a ConfigError naming the part."""
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, LookupError, OSError, RuntimeError) as error:
        raise ConfigError(f"{where}: {error}") from error


class Parts(NamedTuple):
    """What a config names, found and checked; `data` is a function of the split."""

    net: Any
    objective: Callable
    predict: Callable | None
    data: Callable
    inputs: Callable
    tokenizer: Any
    model: dict[str, Any]  # the model's fields, filled in


def assemble(
    settings: Mapping[str, Any], classes: Sequence[str] | None = None
) -> Parts:
    """Finds and checks every part before any work is done, then builds them.

    A model's `size` names a row of its SIZES. Its `classes` or `vocab_size`, where they
    are None, are taken from the data's labels or from the tokenizer. classes: the names
    of the labels, for inputs that write them; None: the data's, which is then read.
    """
    model, data = dict(settings["model"]), settings["data"]
    inputs, objective = settings["inputs"], settings["objective"]
    module = find("model", model.get("name", ""))
    size = model.pop("size", None)
    if size is not None:
        if size not in module.SIZES:
            known = suggest(str(size), module.SIZES)
            raise ConfigError(f"no model.size {size!r} of {model['name']}; {known}")
        model = module.SIZES[size] | model
    part("model", model)
    part("data", data, tokenizer=None)
    part("inputs", inputs, tokenizer=None)
    objective_fn = part("objective", objective)
    tokenizer = None
    if settings.get("tokenizer"):
        from fmjax.data import tokenizer as tokenizers

        # Unless the config says otherwise, words are learnt from what is trained on.
        spec, own = settings["tokenizer"], {}
        if "corpus" in data and not spec.get("path"):
            own = {"corpus": data["corpus"]}
        bound = bind("tokenizer", tokenizers.get, spec, **own)
        with blaming("tokenizer"):
            tokenizer = bound()
    read = part("data", data, tokenizer=tokenizer)

    @functools.cache
    def load_split(split: str) -> Any:
        with blaming(f"data ({data['name']}, {split})"):
            return read(split)

    words = tokenizer.get_vocab_size() if tokenizer else 0
    if "vocab_size" in model and model["vocab_size"] is None:
        model["vocab_size"] = words
    if "classes" in model and model["classes"] is None:
        model["classes"] = len(load_split("train").classes)
    for key in ("vocab_size", "classes"):
        if key in model and not model[key]:
            raise ConfigError(f"set model.{key}; {data['name']} does not tell it")
    if words > model.get("vocab_size", words):
        raise ConfigError(
            f"model.vocab_size is {model['vocab_size']}, fewer than the "
            f"tokenizer's {words} words"
        )

    def names(kind: str, name: str) -> dict[str, Any]:  # read where they are asked for
        if "classes" not in fields(getattr(find(kind, name), PARTS[kind][1])):
            return {}
        known = load_split("train").classes if classes is None else classes
        return {"classes": known}

    given = {"tokenizer": tokenizer} | names("inputs", inputs["name"])
    with blaming("inputs"):
        make_inputs = part("inputs", inputs, **given)()
    net = part("model", model)()
    for name, spec in (settings.get("transforms") or {}).items():
        spec = {"name": name} | dict(spec or {})
        with blaming("transforms"):
            net = part("transforms", spec, **names("transforms", name))(net)
    predict = getattr(find("objective", objective["name"]), "predict", None)
    if predict:
        own = {key: objective[key] for key in fields(predict) & set(objective)}
        predict = functools.partial(predict, **own) if own else predict
    return Parts(
        net=net,
        objective=objective_fn,
        predict=predict,
        data=load_split,
        inputs=make_inputs,
        tokenizer=tokenizer,
        model=model,
    )
