"""The methods that are compared, as settings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fmjax import config

CONFIG = "configs/bert/peft.py"
# Name -> (variant of the config, what is changed in its transforms).
METHODS: dict[str, tuple[str, Mapping[str, Mapping]]] = {
    "full": ("full", {}),
    "top layer": ("top", {}),
    "probe": ("probe", {}),
    "BitFit": ("bitfit", {}),
    "Houlsby adapter": ("houlsby", {}),
    "Pfeiffer adapter": ("pfeiffer", {}),
    "LoRA r 1": ("lora", {"lora": {"rank": 1}}),
    "LoRA r 4": ("lora", {"lora": {"rank": 4}}),
    "LoRA r 16": ("lora", {"lora": {"rank": 16}}),
    "DoRA r 4": ("dora", {}),
    "AdaLoRA": ("adalora", {}),
    "(IA)^3": ("ia3", {}),
    "prefix": ("prefix", {}),
    "prompt": ("prompt", {}),
}
# Those that take the learning rate, as their papers do, of a near relative.
RELATIVES = {
    "LoRA r 1": "LoRA r 4",
    "LoRA r 16": "LoRA r 4",
    "DoRA r 4": "LoRA r 4",
    "Pfeiffer adapter": "Houlsby adapter",
}
BATCH_SIZE, LENGTH = 16, 24  # snippets a step, the first pieces of each


def settings(
    name: str,
    *,
    steps: int = 64,
    factor: float = 1.0,
    seed: int = 0,
    shots: int | None = None,
    judged: bool = True,
    tiny: bool = False,
) -> dict[str, Any]:
    """A run of a method, of so many steps.

    factor: the learning rate is so many times the config's; shots: training examples a
    class, None is all; seed: of the run, and the episode of few shots; judged: with a
    look at the validation split, at the end, by which the rate is chosen; tiny: the
    same method on made-up data.
    """
    variant, changes = METHODS[name]
    found = config.load(f"{CONFIG}:{variant}")
    if tiny:
        small = config.load(f"{CONFIG}:tiny")
        same = ("model", "tokenizer", "data", "inputs", "init_from", "batch_size")
        found |= {key: small[key] for key in (*same, "steps")}
        found["model"]["max_length"] = 64  # room for a prompt
        found["parallel"] = {"devices": 1}
    else:
        found |= {"steps": f"{steps} steps", "batch_size": BATCH_SIZE}
        found["inputs"]["length"] = LENGTH
        # No example is seen twice in 64 steps: there is nothing to regularise.
        found["model"]["dropout"] = found["model"]["attention_dropout"] = 0.0
    found["seed"] = seed
    found["optim"]["lr"] *= factor
    for transform, fields in changes.items():
        found["transforms"][transform] |= fields
    found["evaluate"] |= {"every": "100%", "patience": None}
    if not judged:
        found["evaluate"] = None
    found["checkpoint"]["every"] = "100%"
    found["log"]["every"] = "8 steps"
    if shots is not None:
        found["data"] = {
            "name": "few_shot",
            "corpus": found["data"],
            "per_class": shots,
            "episode": seed,
        }
    return found
