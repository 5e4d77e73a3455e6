"""Public checkpoints in and out: directories of config.json and safetensors."""

import dataclasses
import functools
import importlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from fmjax import files
from fmjax.data import hub, weights
from fmjax.interop import names, safetensors, sentence_folder, tokenizer_folder
from fmjax.interop.names import Report

__all__ = [
    *("Loaded", "Report", "load", "read", "read_for", "save"),
    *("sentence_length", "tokenizer"),
]

log = logging.getLogger(__name__)

# config.json's model_type -> the file both here and in fmjax/models. A downloaded
# config can name nothing else.
FAMILIES = {
    "bert": "bert",
    "gpt2": "gpt",
    "t5": "t5",
    "marian": "transformer",
    "vit": "vit",
    "vit_mae": "mae",
    "clip": "clip",
}

# timm's config.json has an `architecture` in place of a model_type.
TIMM = {"vit": "vit_timm"}  # the word before the first _ -> the file here

DTYPES = ("float32", "bfloat16", "float16")
CONFIG_LIMIT = 16_000_000  # bytes


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A module, its variables on the host, and what befell each tensor."""

    net: nn.Module
    variables: dict[str, Any]
    report: Report


def load(
    directory: str | os.PathLike[str],
    *,
    head: str | None = "auto",
    classes: int | None = None,
    key: jax.Array | None = None,
) -> tuple[Any, dict[str, Any]]:
    """(net, variables) of a checkpoint directory; variables are float32 in host memory.

    directory: a folder, the name of published weights, or a repository of the Hugging
    Face hub as 'hf:org/name' or 'hf:org/name@revision' (`fmjax.data.weights`); where
    neither the folder nor its parent is there, 'org/name' will do too.
    A file, and a folder without config.json, is what `interop.torchvision` reads.
    head: of the model family, or None for the bare encoder; 'auto' takes what the
    config's `architectures` names. classes: of a classification head, in place of the
    config's. key: initialises parameters which the file lacks (a fresh head).
    GPT2Model, T5Model and MarianModel are read as the language model whose output map
    is their table; `save` writes either. Texts for the head 'embed' are to be cut at
    `sentence_length`.
    net.clone(dtype='bfloat16', dropout=0.0) changes what weights do not depend on.

    Raises FileNotFoundError where files are absent; ValueError where the config asks
    for mathematics not implemented, a shape is wrong, a tensor is unknown to the
    family, or parameters are missing and there is no key: each names the thing.
    """
    loaded = read(directory, head=head, classes=classes, key=key)
    if unknown := loaded.report.unknown:
        raise ValueError(
            f"{directory} has tensors that {type(loaded.net).__module__} does not "
            f"know: {', '.join(unknown)}; interop.read leaves them out knowingly"
        )
    log.info("%s: %s", directory, loaded.report)
    return loaded.net, loaded.variables


def read(
    directory: str | os.PathLike[str],
    *,
    head: str | None = "auto",
    classes: int | None = None,
    key: jax.Array | None = None,
) -> Loaded:
    """As `load`, with the report; unknown tensors are reported and not refused."""
    directory = _directory(directory)
    if not (directory / "config.json").exists():
        from fmjax.interop import torchvision

        given = {} if classes is None else {"classes": classes}
        return Loaded(*torchvision.read(directory, key=key, **given))
    config = config_of(directory)
    family = _family(config)
    if head == "auto":
        head = auto_head(config)
    if head == "embed" and hasattr(family, "check_embed"):
        family.check_embed(directory)
    loaded = _read(directory, config, family, head, classes)
    if not loaded.report.missing:
        return loaded
    params = names.flatten(loaded.variables["params"])
    params |= _fresh(directory, loaded.net, family, loaded.report, key)
    return Loaded(loaded.net, {"params": names.unflatten(params)}, loaded.report)


def read_for(net: nn.Module, directory: str | os.PathLike[str]) -> Loaded:
    """What a checkpoint has for `net`, also where the two have unlike heads.

    The result's parameters are those of the checkpoint's own sizes, and its report's
    `missing` those that it has not: what to do about either is the caller's to say.
    Raises ValueError where the families differ, or fields that no shape shows and that
    change the outputs (heads, activations, ...), and else as `load`.
    """
    directory = _directory(directory)
    if not (directory / "config.json").exists():
        loaded = read(directory)
        _alike(directory, type(loaded.net), net)
        return loaded
    config = config_of(directory)
    family = _family(config)
    _alike(directory, family.Model, net)
    read_as = getattr(family, "read_as", lambda config, head: None)
    head = read_as(config, getattr(net, "head", None))
    loaded = _read(directory, config, family, head, None)
    if unknown := loaded.report.unknown:
        raise ValueError(f"{directory} has unknown tensors: {', '.join(unknown)}")
    theirs, ours = family.config(loaded.net), family.config(net)
    for field in family.UNSEEN:
        if _at(theirs, field) != _at(ours, field):
            raise ValueError(
                f"{directory}: config.json has {field} = {_at(theirs, field)!r}, this "
                f"model would have {_at(ours, field)!r}; its outputs would be others. "
                "Set the model's field alike"
            )
    return loaded


def tokenizer(directory: str | os.PathLike[str]) -> Any:
    """The tokenizer of a checkpoint directory (as in `load`), which fits its config.

    See `fmjax.data.tokenizer.load` for the files that are read. Raises ValueError,
    naming the id, where it has ids beyond the config's vocabulary, or lacks one that
    the config names for the end, padding or another role; else as the former.
    """
    directory = _directory(directory)
    return tokenizer_folder.read(directory, config_of(directory))


def sentence_length(directory: str | os.PathLike[str]) -> int:
    """At how many pieces, specials included, a sentence is cut for its vector.

    Of a checkpoint directory (as in `load`) for head 'embed': what `inputs.length` is
    to be for sentence-transformers' vectors of long texts. Raises ValueError where the
    family has no such head, or a length in the folder's files is none.
    """
    directory = _directory(directory)
    config = config_of(directory)
    if not hasattr(_family(config), "check_embed"):
        raise ValueError(f"{directory}: {config['model_type']} has no head 'embed'")
    return sentence_folder.limit(directory, config)


def _alike(directory: Path, model: type, net: nn.Module) -> None:
    """Raises ValueError where a checkpoint is of another family than the net."""
    if not isinstance(net, model):
        raise ValueError(
            f"{directory} is of {model.__module__}, the model to begin is of "
            f"{type(net).__module__}"
        )


def _at(config: Any, field: str) -> Any:
    """A config's value at 'a.b'."""
    for key in field.split("."):
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def _read(
    directory: Path,
    config: Mapping[str, Any],
    family: Any,
    head: str | None,
    classes: int | None,
) -> Loaded:
    """Without parameters that the file lacks."""
    tensors = _tensors(directory)
    around = names.wrapper(tensors)
    found = {name.removeprefix(around) for name in tensors}
    net = family.Model(**family.fields(config, head, classes, found))
    shapes = shapes_of(net, family)
    try:
        params, report = names.assign(
            tensors,
            family.entries(net),
            shapes,
            canonical=family.canonical(net),
            other=family.other,
            buffers=family.buffers,
        )
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from None
    zeros = set(report.missing) & set(getattr(family, "ZEROS", ()))
    params |= {path: np.zeros(shapes[path], np.float32) for path in zeros}
    report = dataclasses.replace(
        report,
        settings=family.unread(config),
        missing=tuple(path for path in report.missing if path not in zeros),
    )
    return Loaded(net, {"params": names.unflatten(params)}, report)


def _tensors(directory: Path) -> dict[str, np.ndarray]:
    """All tensors of a folder: safetensors, else torch's own file."""
    older = directory / "pytorch_model.bin"
    if older.exists() and not any(directory.glob("model.safetensors*")):
        from fmjax.interop import torch_files

        return torch_files.read(older)
    return safetensors.read_directory(directory)


def save(
    directory: str | os.PathLike[str],
    net: nn.Module,
    variables: Mapping[str, Any],
    *,
    dtype: str = "float32",
    shard_bytes: int = safetensors.SHARD_BYTES,
    settings: Mapping[str, Any] = MappingProxyType({}),
    library: str = "transformers",
) -> None:
    """Writes config.json and model.safetensors, which `library` loads unchanged.

    The directory is made where absent; files of these names are replaced. What is more
    than `shard_bytes` is written as several files and an index.
    dtype: of the tensors, one of DTYPES. settings: further keys of config.json, such as
    a tokenizer's eos_token_id, or id2label. Where they name GPT2Model, T5Model or
    MarianModel in architectures, it is written, without a head.
    library: 'transformers', or 'timm' for its names and its config.
    BERT's head 'embed' is written as an encoder without a pooler, and a Transformer
    with sines and cosines by turns as the same function with Marian's order.
    Raises ValueError where the net's family has no public format here, variables are
    not the net's (missing, unknown or misshapen parameters, by name), a number is too
    large for `dtype`, or a head would be lost.
    """
    family = family_of(net, library)
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}; it is {', '.join(DTYPES)}")
    if extras := sorted(set(variables) - {"params"}):
        raise ValueError(f"variables beside params have no public names: {extras}")
    params = {k: np.asarray(v) for k, v in names.flatten(variables["params"]).items()}
    shapes = shapes_of(net, family)
    if wrong := sorted(set(shapes) ^ set(params)):
        raise ValueError(f"variables do not fit the net, see {', '.join(wrong[:5])}")
    for path, value in params.items():
        if value.shape != shapes[path]:
            raise ValueError(f"{path} is {value.shape}, the net's is {shapes[path]}")

    net, params = getattr(family, "standard", lambda *same: same)(net, params)
    config = family.config(net) | {"dtype": dtype} | dict(settings)
    params = {path: _cast(path, value, dtype) for path, value in params.items()}
    tensors = names.collect(params, family.entries(net))
    if hasattr(family, "constants"):
        tensors |= family.constants(net)  # which are no parameters here
    named = {family.public(net, name): value for name, value in tensors.items()}
    if bare := _bare(config, family):
        named = bare.of(net, named)
        named = {name: _cast(name, value, dtype) for name, value in named.items()}
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    safetensors.write_directory(directory, named, shard_bytes)
    files.write_json(directory / "config.json", config)


def config_of(directory: Path, name: str = "config.json") -> dict[str, Any]:
    """A folder's config.json as data. Raises ValueError where it is no JSON object."""
    path = directory / name
    if path.stat().st_size > CONFIG_LIMIT:
        raise ValueError(f"{path} is larger than {CONFIG_LIMIT:,} bytes")
    try:
        config = safetensors.parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} is not a JSON object")
    return config


def _cast(path: str, value: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        cast = value.astype(jax.dtypes.canonicalize_dtype(dtype))
    if not np.isfinite(cast).all() and np.isfinite(value).all():
        raise ValueError(
            f"{path} has numbers up to {np.abs(value).max():.3g}, too large for {dtype}"
        )
    return cast


def _directory(path: str | os.PathLike[str]) -> Path:
    """The folder or file that a path or name means; see `load`."""
    name = os.fspath(path)
    if isinstance(path, str) and hub.is_name(name) and not Path(name).parent.exists():
        name = hub.PREFIX + name
    found = weights.directory(name)
    if not found.exists():
        raise FileNotFoundError(weights.missing(name))
    return found


def _family(config: Mapping[str, Any]) -> Any:
    kind = config.get("model_type")
    architecture = config.get("architecture")
    if kind is None and isinstance(architecture, str):
        kind = architecture.partition("_")[0]
        if kind not in TIMM:
            raise ValueError(
                f"config.json: timm's architecture {architecture!r:.80} is not known "
                f"here (known: {', '.join(f'{name}_...' for name in TIMM)})"
            )
        return importlib.import_module(f"fmjax.interop.{TIMM[kind]}")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(
            f"config.json: model_type {kind!r:.80} is not known here "
            f"(known: {', '.join(FAMILIES)})"
        )
    return importlib.import_module(f"fmjax.interop.{FAMILIES[kind]}")


def kind_of(net: nn.Module) -> str:
    """config.json's model_type for a net. Raises ValueError where there is none."""
    for kind, family in FAMILIES.items():
        if type(net).__module__ == f"fmjax.models.{family}":
            return kind
    known = ", ".join(f"fmjax.models.{family}" for family in FAMILIES.values())
    raise ValueError(
        f"{type(net).__module__} has no public format here (known: {known})"
    )


def family_of(net: nn.Module, library: str = "transformers") -> Any:
    """The file of this folder for a net. Raises ValueError where there is none."""
    own = type(net).__module__.removeprefix("fmjax.models.")
    if library == "timm" and own in TIMM:
        return importlib.import_module(f"fmjax.interop.{TIMM[own]}")
    if library != "transformers":
        raise ValueError(
            f"library={library!r} has no format for {own} here "
            f"(timm: {', '.join(TIMM)}; transformers: {', '.join(FAMILIES.values())})"
        )
    return importlib.import_module(f"fmjax.interop.{FAMILIES[kind_of(net)]}")


def _head(
    config: Mapping[str, Any], architectures: Mapping[str, str | None]
) -> str | None:
    named = config.get("architectures")
    for architecture in named if isinstance(named, list) else []:
        if isinstance(architecture, str) and architecture in architectures:
            return architectures[architecture]
    raise ValueError(
        f"config.json: architectures {named!r:.120} names none of "
        f"{', '.join(architectures)}; give head=, head=None for the bare encoder"
    )


def auto_head(config: Mapping[str, Any]) -> str | None:
    """The head that config.json names. Raises ValueError where it names none known."""
    family = _family(config)
    own = getattr(family, "head", None)
    head: str | None = own(config) if own else _head(config, family.ARCHITECTURES)
    return head


def is_bare(config: Mapping[str, Any]) -> bool:
    """Does a config.json name a class without a head, which is read as having one."""
    return _bare(config, _family(config)) is not None


def _bare(config: Mapping[str, Any], family: Any) -> names.Bare | None:
    bare: names.Bare | None = getattr(family, "BARE", None)
    return bare if bare and config.get("architectures") == [bare.name] else None


@functools.lru_cache(maxsize=16)  # tracing a net takes longer than reading it
def shapes_of(net: nn.Module, family: Any) -> Mapping[str, tuple[int, ...]]:
    """Each parameter's shape by its path."""
    variables = jax.eval_shape(net.init, jax.random.key(0), _inputs(net, family))
    shapes = {k: v.shape for k, v in names.flatten(variables["params"]).items()}
    return MappingProxyType(shapes)


def _inputs(net: nn.Module, family: Any) -> Any:
    """The least that traces a net: INPUTS, or a family's function of the net."""
    return family.INPUTS(net) if callable(family.INPUTS) else family.INPUTS


def _fresh(
    directory: Path, net: nn.Module, family: Any, report: Report, key: jax.Array | None
) -> dict[str, np.ndarray]:
    if key is None:
        raise ValueError(
            f"{directory} has no tensors for {', '.join(report.missing)}; read it with "
            "another head=, or begin them afresh: give key=, in training "
            "init_from.missing"
        )
    log.warning("%s: initialised afresh: %s", directory, ", ".join(report.missing))
    fresh = names.flatten(net.init(key, _inputs(net, family))["params"])
    return {path: np.asarray(fresh[path]) for path in report.missing}
