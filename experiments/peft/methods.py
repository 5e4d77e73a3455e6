"""The tasks, and the methods that are compared on each, as settings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fmjax import config

# Name -> (variant of the config, what is changed in its transforms).
Methods = Mapping[str, tuple[str, Mapping[str, Mapping]]]


class Task(NamedTuple):
    """A pre-trained net, data, and methods to adapt the one to the other."""

    title: str
    config: str
    methods: Methods
    steps: int
    changes: Mapping[str, Any]  # of the config's settings, for every method
    shots: tuple[int, ...]  # examples a class with which `FEW` are trained too
    tiny: Mapping[str, Any]  # what made-up data are like


LORA: Methods = {
    "LoRA r 1": ("lora", {"lora": {"rank": 1}}),
    "LoRA r 4": ("lora", {"lora": {"rank": 4}}),
    "LoRA r 16": ("lora", {"lora": {"rank": 16}}),
    "DoRA r 4": ("dora", {}),
    "AdaLoRA": ("adalora", {}),
    "(IA)^3": ("ia3", {}),
}
BASE: Methods = {
    "full": ("full", {}),
    "top layer": ("top", {}),
    "probe": ("probe", {}),
    "BitFit": ("bitfit", {}),
}
TEXT: Methods = {
    **BASE,
    "Houlsby adapter": ("houlsby", {}),
    "Pfeiffer adapter": ("pfeiffer", {}),
    **LORA,
    "prefix": ("prefix", {}),
    "prompt": ("prompt", {}),
}
IMAGES: Methods = {**BASE, "adapter": ("adapter", {}), **LORA}
# Those that take the learning rate, as their papers do, of a near relative.
RELATIVES = {
    "LoRA r 1": "LoRA r 4",
    "LoRA r 16": "LoRA r 4",
    "DoRA r 4": "LoRA r 4",
    "Pfeiffer adapter": "Houlsby adapter",
}
FEW = ("full", "LoRA r 4", "probe")
# No example is seen twice, or hardly: there is nothing to regularise.
PLAIN = {"dropout": 0.0, "attention_dropout": 0.0}
TASKS = {
    "sentiment": Task(
        "MiniLM on movie sentiment",
        "configs/bert/peft.py",
        TEXT,
        steps=64,
        # Snippets a step, the first pieces of each.
        changes={"batch_size": 16, "inputs": {"length": 24}, "model": PLAIN},
        shots=(16, 64, 256),
        tiny={"model": {"max_length": 64}},  # room for a prompt
    ),
    "r52": Task(
        "MiniLM on R52's topics",
        "configs/bert/peft.py",
        TEXT,
        steps=128,
        changes={
            "data": {"name": "topics", "dataset": "r52"},
            "batch_size": 16,
            "inputs": {"length": 24},
            "model": PLAIN,
        },
        shots=(),  # half of the topics have fewer than 16 texts
        tiny={"model": {"max_length": 64}, "data": {"classes": 4}},
    ),
    "stamps": Task(
        "MobileNetV2 on categories of stamps",
        "configs/mobilenet/stamps.py",
        IMAGES,
        steps=32,  # of 32 stamps: twice all of them
        changes={},
        shots=(4, 16),  # categories have 22 stamps at least
        tiny={},
    ),
}


def settings(
    name: str,
    *,
    task: str = "sentiment",
    steps: int | None = None,
    factor: float = 1.0,
    seed: int = 0,
    shots: int | None = None,
    judged: bool = True,
    head: float | None = None,
    tiny: bool = False,
) -> dict[str, Any]:
    """A run of a method on a task, of so many steps; None: the task's.

    factor: the learning rate is so many times the config's; shots: training examples a
    class, None is all; seed: of the run, and the episode of few shots; judged: with a
    look at the validation split, at the end, by which the rate is chosen; head: the
    new head's own learning rate, which is otherwise all others'; tiny: the same method
    on made-up data.
    """
    given = TASKS[task]
    variant, changes = given.methods[name]
    found: dict[str, Any] = config.load(f"{given.config}:{variant}")
    if tiny:
        small = config.load(f"{given.config}:tiny")
        same = ("model", "tokenizer", "data", "inputs", "init_from", "batch_size")
        found |= {key: small[key] for key in (*same, "steps") if key in small}
        found["parallel"] = {"devices": 1}
    else:
        found["steps"] = f"{steps or given.steps} steps"
    for key, value in (given.tiny if tiny else given.changes).items():
        found[key] = found[key] | value if isinstance(value, Mapping) else value
    found["seed"] = seed
    found["optim"]["lr"] *= factor
    if head is not None:
        found["optim"]["groups"] = [("^classify/", {"lr": head})]
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
