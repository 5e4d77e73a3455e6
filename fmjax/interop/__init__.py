"""Public checkpoints in and out: directories of config.json and safetensors."""

import dataclasses
import importlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from fmjax.interop import names, safetensors
from fmjax.interop.names import Report

__all__ = ["Loaded", "Report", "load", "read", "save"]

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

    A file, and a directory without config.json, is what `interop.torchvision` reads.

    head: of the model family, or None for the bare encoder; 'auto' takes what the
    config's `architectures` names. classes: of a classification head, in place of the
    config's. key: initialises parameters which the file lacks (a fresh head).
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
    directory = Path(directory)
    if not (directory / "config.json").exists() and directory.exists():
        from fmjax.interop import torchvision

        given = {} if classes is None else {"classes": classes}
        return Loaded(*torchvision.read(directory, key=key, **given))
    config = _config(directory / "config.json")
    family = _family(config)
    if head == "auto":
        own = getattr(family, "head", None)
        head = own(config) if own else _head(config, family.ARCHITECTURES)
    tensors = safetensors.read_directory(directory)
    net = family.Model(**family.fields(config, head, classes, tensors.keys()))
    shapes = _shapes(net, family)
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
    if report.missing:
        params |= _fresh(directory, net, family, report, key)
    return Loaded(net, {"params": names.unflatten(params)}, report)


def save(
    directory: str | os.PathLike[str],
    net: nn.Module,
    variables: Mapping[str, Any],
    *,
    shard_bytes: int = safetensors.SHARD_BYTES,
    settings: Mapping[str, Any] = MappingProxyType({}),
    library: str = "transformers",
) -> None:
    """Writes config.json and model.safetensors, which `library` loads unchanged.

    The directory is made where absent; files of these names are replaced. What is more
    than `shard_bytes` is written as several files and an index.
    settings: further keys of config.json, such as a tokenizer's eos_token_id, or
        id2label. BERT's head 'embed' is written as an encoder without a pooler.
    library: 'transformers', or 'timm' for its names and its config.
    Raises ValueError where the net's family has no public format here, or variables
    are not the net's: missing, unknown or misshapen parameters, by name.
    """
    family = _family_of(net, library)
    if extras := sorted(set(variables) - {"params"}):
        raise ValueError(f"variables beside params have no public names: {extras}")
    params = {k: np.asarray(v) for k, v in names.flatten(variables["params"]).items()}
    shapes = _shapes(net, family)
    if wrong := sorted(set(shapes) ^ set(params)):
        raise ValueError(f"variables do not fit the net, see {', '.join(wrong[:5])}")
    for path, value in params.items():
        if value.shape != shapes[path]:
            raise ValueError(f"{path} is {value.shape}, the net's is {shapes[path]}")

    config = family.config(net) | dict(settings)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = names.collect(params, family.entries(net))
    if hasattr(family, "constants"):
        tensors |= family.constants(net)  # which are no parameters here
    named = {family.public(net, name): value for name, value in tensors.items()}
    safetensors.write_directory(directory, named, shard_bytes)
    text = json.dumps(config, indent=2, allow_nan=False)
    (directory / "config.json").write_text(text + "\n", encoding="utf-8")


def _config(path: Path) -> dict[str, Any]:
    if path.stat().st_size > CONFIG_LIMIT:
        raise ValueError(f"{path} is larger than {CONFIG_LIMIT:,} bytes")
    try:
        config = safetensors.parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} is not a JSON object")
    return config


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


def _family_of(net: nn.Module, library: str) -> Any:
    own = type(net).__module__.removeprefix("fmjax.models.")
    if library == "timm" and own in TIMM:
        return importlib.import_module(f"fmjax.interop.{TIMM[own]}")
    if library != "transformers":
        raise ValueError(
            f"library={library!r} has no format for {own} here "
            f"(timm: {', '.join(TIMM)}; transformers: {', '.join(FAMILIES.values())})"
        )
    for family in FAMILIES.values():
        if own == family:
            return importlib.import_module(f"fmjax.interop.{family}")
    known = ", ".join(f"fmjax.models.{family}" for family in FAMILIES.values())
    raise ValueError(
        f"{type(net).__module__} has no public format here (known: {known})"
    )


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


def _shapes(net: nn.Module, family: Any) -> dict[str, tuple[int, ...]]:
    variables = jax.eval_shape(net.init, jax.random.key(0), _inputs(net, family))
    return {k: v.shape for k, v in names.flatten(variables["params"]).items()}


def _inputs(net: nn.Module, family: Any) -> Any:
    """The least that traces a net: INPUTS, or a family's function of the net."""
    return family.INPUTS(net) if callable(family.INPUTS) else family.INPUTS


def _fresh(
    directory: Path, net: nn.Module, family: Any, report: Report, key: jax.Array | None
) -> dict[str, np.ndarray]:
    if key is None:
        raise ValueError(
            f"{directory} has no tensors for {', '.join(report.missing)}; give key= to "
            "initialise them, or another head="
        )
    log.warning("%s: initialised afresh: %s", directory, ", ".join(report.missing))
    fresh = names.flatten(net.init(key, _inputs(net, family))["params"])
    return {path: np.asarray(fresh[path]) for path in report.missing}
