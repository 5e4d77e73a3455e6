"""Read a public config.json as data: typed, bounded, refused where not understood."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

# Keys that change no output of a forward or backward pass: provenance, what to return,
# generation, memory layout, and pooler_* which Google's files carry and no code reads.
HARMLESS = frozenset(
    (
        "_name_or_path",
        "architectures",
        "model_type",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "_commit_hash",
        "_attn_implementation",
        "attn_implementation",
        "torchscript",
        "use_bfloat16",
        "output_attentions",
        "output_hidden_states",
        "output_past",
        "return_dict",
        "use_cache",
        "gradient_checkpointing",
        "chunk_size_feed_forward",
        "initializer_range",
        "problem_type",
        "finetuning_task",
        "task_specific_params",
        "tokenizer_class",
        "prefix",
        "language",
        "directionality",
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",
        "sep_token_id",
        "decoder_start_token_id",
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
    )
)

# What transformers calls an activation, and its name in `layers/activation.py`.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "gelu_sigmoid",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
PUBLIC = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}


def require(config: Mapping[str, Any], required: Mapping[str, Iterable[Any]]) -> None:
    """Raises ValueError where a key that changes the mathematics has another value."""
    for key, values in required.items():
        values = tuple(values)
        if key in config and config[key] not in values:
            raise ValueError(
                f"config.json: {key} = {config[key]!r:.80} is not implemented here "
                f"(only {values[0]!r}); the outputs would be wrong, so it is refused"
            )


def integer(config: Mapping[str, Any], key: str, limit: int) -> int:
    """A whole number from 1 to `limit`; ValueError naming the key for anything else."""
    value = config[key]
    if type(value) is not int or not 1 <= value <= limit:
        raise ValueError(
            f"config.json: {key} must be a whole number from 1 to {limit:,}, "
            f"got {value!r:.80}"
        )
    return value


def number(config: Mapping[str, Any], key: str, *, below: float) -> float:
    """A number in [0, below); ValueError naming the key for anything else."""
    value = config[key]
    if type(value) not in (int, float) or not 0 <= value < below:
        raise ValueError(
            f"config.json: {key} must be a number in [0, {below}), got {value!r:.80}"
        )
    return float(value)


def switch(config: Mapping[str, Any], key: str) -> bool:
    """True or false; ValueError naming the key for anything else."""
    value = config[key]
    if not isinstance(value, bool):
        raise ValueError(f"config.json: {key} must be true or false, got {value!r:.80}")
    return value


def headless(head: str | None, classes: int | None) -> None:
    """Raises ValueError where a head is asked of a family that has one only."""
    if head is not None or classes is not None:
        raise ValueError(
            f"head={head!r}, classes={classes!r}: this family has its language model "
            "head only; leave them out"
        )


def choice(config: Mapping[str, Any], key: str, known: Mapping[str, str]) -> str:
    """What `known` has for the value; ValueError listing its keys for another one."""
    value = config[key]
    if not isinstance(value, str) or value not in known:
        near = difflib.get_close_matches(str(value)[:80], known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"config.json: {key} = {value!r:.80} is not implemented{hint} "
            f"(known: {', '.join(known)})"
        )
    return known[value]


def classes(config: Mapping[str, Any]) -> int:
    """How many classes a classifier has: id2label, else num_labels, else 2."""
    if config.get("id2label") is not None:
        labels = config["id2label"]
        if not isinstance(labels, dict) or not 1 <= len(labels) <= 10_000_000:
            raise ValueError("config.json: id2label must map class numbers to names")
        return len(labels)
    return integer({"num_labels": 2, **config}, "num_labels", 10_000_000)
