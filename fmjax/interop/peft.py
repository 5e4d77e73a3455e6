"""LoRA and DoRA adapters in the format of Hugging Face's `peft`, both ways.

A folder of adapter_config.json and adapter_model.safetensors. Where a public tensor
holds several of our maps side by side (GPT-2's c_attn), their additions are one of
blocks on the way out, and each has its columns of B on the way in.
"""

# D in, E out, R rank

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import linen as nn

from fmjax import files, interop
from fmjax.interop import names, safetensors, settings
from fmjax.transforms import lora

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."

# What would change the mathematics; only these values are what `transforms.lora` does.
REQUIRED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layer_replication": (None,),
    "lora_bias": (False, None),
    "target_parameters": (None, []),
    "trainable_token_indices": (None,),
    "alora_invocation_tokens": (None,),
    "use_qalora": (False, None),
    "use_bdlora": (None, False),
    "velora_config": (None,),
    "monteclora_config": (None,),
    "arrow_config": (None,),
    "kasa_config": (None,),
    "megatron_config": (None,),
}


def save(
    directory: str | os.PathLike[str],
    net: lora.Lora,
    params: Mapping[str, Any],
    *,
    whole: str | None = None,
    base: str = "",
) -> None:
    """Writes the adapter, which `peft.PeftModel.from_pretrained` loads on its base.

    params: the transformed net's, or the adapter's alone. whole: a pattern over paths
    of the net's own parameters that were trained too (a head), which peft calls
    modules_to_save. base: the public name of the model that was adapted.
    Raises ValueError where the net's family has no public format here, or a map has no
    public name.
    """
    family = interop.family_of(net.net)
    flat = {k: np.asarray(v) for k, v in names.flatten(params).items()}
    entries = list(family.entries(net.net))
    shapes = interop.shapes_of(net.net, family)
    tensors: dict[str, np.ndarray] = {}
    modules: list[str] = []
    kept: set[str] = set()
    done: set[str] = set()
    ranks: set[int] = set()
    for entry in entries:
        ats = [path.rpartition("/")[0] for path in entry.paths]
        public = family.public(net.net, entry.name)
        module = public.rpartition(".")[0]
        if entry.path.endswith("/kernel") and any(
            f"{at}/{lora.A}" in flat for at in ats
        ):
            a, b, magnitude = _joined(net, flat, ats, shapes)
            tensors[f"{PREFIX}{module}.lora_A.weight"] = a.T
            tensors[f"{PREFIX}{module}.lora_B.weight"] = b.T
            if magnitude is not None:
                tensors[f"{PREFIX}{module}.lora_magnitude_vector"] = magnitude
            modules.append(module)
            ranks.add(a.shape[1])
            done |= {f"{at}/{lora.A}" for at in ats}
        if whole and any(re.search(whole, path) for path in entry.paths):
            tensors[PREFIX + public] = names.collect(flat, [entry])[entry.name]
            kept.add(module.rpartition(".")[2])
    if left := sorted({p for p in flat if p.endswith(f"/{lora.A}")} - done):
        raise ValueError(f"these maps have no public name: {', '.join(left)}")
    if len(ranks) != 1:
        raise ValueError(
            f"the public maps would have ranks {sorted(ranks)}, and one is written: "
            "adapt all or none of the maps that share a tensor"
        )
    (rank,) = ranks
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": net.scale * rank,
        "lora_dropout": net.dropout,
        "target_modules": sorted(modules),
        "modules_to_save": sorted(kept) or None,
        "use_dora": net.dora,
        "use_rslora": False,
        "fan_in_fan_out": any(not e.transpose for e in entries if e.rest),
        "bias": "none",
        "inference_mode": True,
    }
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    safetensors.write(directory / WEIGHTS, tensors)
    files.write_json(directory / CONFIG, config)


def load(
    directory: str | os.PathLike[str], net: nn.Module
) -> tuple[lora.Lora, dict[str, Any]]:
    """(net with LoRA, its added parameters, and those saved whole) from a folder.

    `transforms.join` them with the net's own, of which `names.flatten` shows the paths.
    Raises ValueError for settings that would change the mathematics, tensors that the
    net has no place for, and wrong shapes, each by name.
    """
    directory = Path(directory)
    config = interop.config_of(directory, CONFIG)
    settings.require(config, REQUIRED)
    rank = settings.integer(config, "r", 100_000)
    alpha = settings.number(config, "lora_alpha", below=1e9)
    family = interop.family_of(net)
    tensors = dict(safetensors.read(directory / WEIGHTS))
    by_module = {
        family.public(net, entry.name).rpartition(".")[0]: entry
        for entry in family.entries(net)
        if entry.path.endswith("/kernel")
    }
    whole = {family.public(net, e.name): e for e in family.entries(net)}
    shapes = interop.shapes_of(net, family)
    params: dict[str, np.ndarray] = {}
    for name in sorted(tensors):
        module, _, kind = name.removeprefix(PREFIX).partition(".lora_")
        if not name.startswith(PREFIX) or (kind and module not in by_module):
            raise ValueError(f"{directory}: {type(net).__module__} has no {name}")
        if not kind:
            _put_whole(params, name, tensors[name], whole, shapes)
        elif kind in ("A.weight", "B.weight", "magnitude_vector"):
            _put(params, kind, name, tensors[name], by_module[module], shapes, rank)
        else:
            raise ValueError(f"{directory}: {name} is no part of LoRA that is known")
    targets = sorted({p.rpartition("/")[0] for p in params if p.endswith(lora.A)})
    if not targets:
        raise ValueError(f"{directory} adapts nothing")
    adapted = lora.transform(
        net,
        target="^(" + "|".join(map(re.escape, targets)) + ")$",
        rank=rank,
        alpha=alpha,
        dropout=settings.number(config, "lora_dropout", below=1)
        if "lora_dropout" in config
        else 0.0,
        rank_stabilised=bool(config.get("use_rslora", False)),
        dora=bool(config.get("use_dora", False)),
    )
    return adapted, names.unflatten(params)


def _joined(net: lora.Lora, flat: Mapping[str, np.ndarray], ats: list[str], shapes):
    """A [D, R'], B [R', E'] and lengths [E'] of maps that share a tensor."""
    parts = [(flat.get(f"{at}/{lora.A}"), flat.get(f"{at}/{lora.B}")) for at in ats]
    if len(ats) == 1:
        a, b = parts[0]
        return a, b, flat.get(f"{ats[0]}/{lora.MAGNITUDE}")
    widths = [shapes[f"{at}/kernel"][1] for at in ats]
    a = np.concatenate([a for a, _ in parts if a is not None], axis=1)
    b = np.zeros((a.shape[1], sum(widths)), np.float32)
    row = column = 0
    for (one, two), width in zip(parts, widths, strict=True):
        if one is not None:
            b[row : row + one.shape[1], column : column + width] = two
            row += one.shape[1]
        column += width
    if net.dora:
        lengths = [flat.get(f"{at}/{lora.MAGNITUDE}") for at in ats]
        if any(x is None for x in lengths):
            raise ValueError(
                f"DoRA on some of {', '.join(ats)}, which share a tensor: adapt all"
            )
        return a, b, np.concatenate([x for x in lengths if x is not None])
    return a, b, None


def _put(params, kind, name, tensor, entry, shapes, rank) -> None:
    """The parameters that one tensor of LoRA gives."""
    kernels = [shapes[path] for path in entry.paths]
    widths = [shape[1] for shape in kernels]
    expected = {
        "A.weight": (rank, kernels[0][0]),
        "B.weight": (sum(widths), rank),
        "magnitude_vector": (sum(widths),),
    }[kind]
    if tensor.shape != expected:
        raise ValueError(f"{name} has shape {tensor.shape}, expected {expected}")
    value = np.asarray(tensor, np.float32).T
    parts = [value] * len(widths)
    if kind != "A.weight":
        parts = np.split(value, np.cumsum(widths)[:-1], axis=-1)
    ours = {"A": lora.A, "B": lora.B, "m": lora.MAGNITUDE}[kind[0]]
    for path, part in zip(entry.paths, parts, strict=True):
        params[f"{path.rpartition('/')[0]}/{ours}"] = np.ascontiguousarray(part)


def _put_whole(params, name, tensor, whole, shapes) -> None:
    """The parameters that a tensor saved whole gives."""
    # Older files keep peft's own wrapper in the name.
    public = name.removeprefix(PREFIX).replace(".modules_to_save.default", "")
    if public not in whole:
        raise ValueError(f"{name}: the net has no such tensor")
    params.update(names.convert(name, tensor, whole[public], shapes))
