"""Convolutional nets by torchvision's names, and timm's where they differ, both ways.

Such files have no config: what a net is, its tensors' names and shapes tell. A file is
`.pth` (`torch_files`) or safetensors.
"""

import dataclasses
import functools
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from fmjax.interop import names, safetensors, torch_files
from fmjax.interop.names import Entry, Report
from fmjax.interop.torchvision_names import FAMILIES, Family, Layer, Shapes

log = logging.getLogger(__name__)

NAMING = ("torchvision", "timm")


def load(
    path: str | os.PathLike[str], *, key: jax.Array | None = None, **fields: Any
) -> tuple[Any, dict[str, Any]]:
    """(net, variables) of a file, or of a directory with model.safetensors.

    fields: of the model, over what the tensors tell; transform_input=True for
    torchvision's own Inception weights, say, or classes=7 with a `key`, which
    initialises the fresh head. Variables are `params` and `batch_stats`, float32, in
    host memory. Raises FileNotFoundError; ValueError naming a tensor that is
    missing (where there is no key), unknown, or of another shape.
    """
    net, variables, report = read(path, key=key, **fields)
    if report.unknown:
        raise ValueError(
            f"{path} has tensors that {type(net).__module__} does not know: "
            f"{', '.join(report.unknown)}; torchvision.read leaves them out knowingly"
        )
    log.info("%s: %s", path, report)
    return net, variables


def read(
    path: str | os.PathLike[str], *, key: jax.Array | None = None, **fields: Any
) -> tuple[Any, dict[str, Any], Report]:
    """As `load`, with the report; unknown tensors are reported and not refused."""
    tensors = tensors_of(path)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    try:
        family, naming = _family_of(shapes)
        net = family.model(**family.fields(shapes) | fields)
        stem = next(name for name in family.stems if name in shapes)
        wanted = _wanted(net, family.side, shapes[stem][1])
        layers, rest = family.names(net, naming)
        fresh = {
            entry.name
            for entry in rest
            if key is not None
            and entry.path.startswith("params/classify/")
            and shapes.get(entry.name, (net.classes,))[0] != net.classes
        }
        values, report = names.assign(
            {name: tensor for name, tensor in tensors.items() if name not in fresh},
            entries(layers, rest),
            {path: leaf.shape for path, leaf in wanted.items()},
            canonical=lambda name: name,
            other=lambda name: name.startswith("AuxLogits."),
            buffers=_counts,
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    report = dataclasses.replace(report, unused=(*report.unused, *sorted(fresh)))
    if report.missing:
        if key is None:
            raise ValueError(
                f"{path} has no tensors for {', '.join(report.missing)}; give key= to "
                "initialise them"
            )
        log.warning("%s: initialised afresh: %s", path, ", ".join(report.missing))
        inputs = np.zeros((1, family.side, family.side, shapes[stem][1]), np.float32)
        made = names.flatten(jax.jit(net.init)(key, inputs))
        values |= {name: np.asarray(made[name]) for name in report.missing}
    return net, names.unflatten(values), report


def save(
    path: str | os.PathLike[str],
    net: nn.Module,
    variables: Mapping[str, Any],
    *,
    naming: str = "torchvision",
) -> None:
    """Writes one safetensors file whose tensors torchvision's or timm's model takes.

    naming: 'timm' differs for MobileNetV2 alone. Raises ValueError where the net's
    family or naming is not known here, and where variables are not the net's.
    """
    if naming not in NAMING:
        raise ValueError(f"naming is one of {', '.join(NAMING)}, not {naming!r}")
    family = next((f for f in FAMILIES if isinstance(net, f.model)), None)
    if family is None:
        raise ValueError(f"{type(net).__module__} has no names in torchvision here")
    values = {k: np.asarray(v) for k, v in names.flatten(variables).items()}
    stem = values.get(f"params/{family.path}/kernel", np.zeros((1, 1, 3, 1)))
    wanted = {k: v.shape for k, v in _wanted(net, family.side, stem.shape[2]).items()}
    found = {name: value.shape for name, value in values.items()}
    if wrong := sorted(
        name for name in wanted | found if wanted.get(name) != found.get(name)
    ):
        raise ValueError(f"variables do not fit the net, see {', '.join(wrong[:5])}")
    layers, rest = family.names(net, naming)
    tensors = names.collect(values, entries(layers, rest))
    # torch counts batches, and wants the counts though nothing here depends on them.
    count = np.zeros((), np.int64)
    tensors |= {f"{norm}.num_batches_tracked": count for _, norm, _ in layers}
    safetensors.write(Path(path), tensors)


def tensors_of(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All tensors of a .safetensors or torch file, or of a directory with one of them.

    Raises FileNotFoundError where there is none, or a directory has several.
    """
    path = Path(path)
    if path.is_dir():
        there = [*path.glob("*.safetensors"), *path.glob("*.pth"), *path.glob("*.bin")]
        if len(there) != 1:
            some = ", ".join(sorted(p.name for p in there)) or "neither"
            raise FileNotFoundError(
                f"{path} should have one file of tensors, .safetensors, .pth or .bin, "
                f"beside no config.json; it has {some}"
            )
        path = there[0]
    read = safetensors.read if path.suffix == ".safetensors" else torch_files.read
    return read(path)


def entries(layers: list[Layer], rest: list[Entry]) -> list[Entry]:
    """All tensors: those of convolutions with norms, and the rest."""
    found = []
    for conv, norm, path in layers:
        found += names.conv(conv, f"params/{path}/conv", bias=False)
        found += names.norm(norm, f"params/{path}/norm")
        for theirs, ours in (("mean", "mean"), ("var", "var")):
            running = f"{norm}.running_{theirs}"
            found.append(Entry(running, f"batch_stats/{path}/norm/{ours}"))
    return found + rest


def _counts(name: str, tensor: np.ndarray) -> bool:
    """Is this the number of batches that a norm has seen, which nothing depends on?"""
    if not name.endswith(".num_batches_tracked"):
        return False
    if tensor.shape not in ((), (1,)) or tensor.dtype.kind != "i":
        raise ValueError(f"{name} is {tensor.dtype} {tensor.shape}, not one number")
    return True


def _family_of(shapes: Shapes) -> tuple[Family, str]:
    """The family, and whose names they are."""
    for family in FAMILIES:
        for naming, marks in family.marks.items():
            if all(mark in shapes for mark in marks):
                return family, naming
    some = ", ".join(list(shapes)[:5])
    known = ", ".join(family.model.__module__.split(".")[-1] for family in FAMILIES)
    raise ValueError(f"tensors {some}, ... are of none of {known}")


@functools.lru_cache(maxsize=8)
def _wanted(net: Any, side: int, channels: int) -> dict[str, Any]:
    """Shapes of the net's variables by path."""
    inputs = jax.ShapeDtypeStruct((1, side, side, channels), np.float32)
    init = functools.partial(net.init, jax.random.key(0))
    return names.flatten(jax.eval_shape(init, inputs))
