"""Read a public config.json as data: typed, bounded, refused where not understood."""

import difflib
import logging
from collections.abc import Iterable, Mapping
from typing import Any

log = logging.getLogger(__name__)

# Keys that change no output of a forward or backward pass, by the reason why not.
_REASONS = {
    "where the file comes from": (
        *("_name_or_path", "_commit_hash", "transformers_version", "finetuning_task"),
        *("architectures", "model_type", "auto_map", "language", "directionality"),
    ),
    "how numbers are kept or computed, which is the caller's to say": (
        *("dtype", "torch_dtype", "torchscript", "use_bfloat16", "use_cache"),
        *("gradient_checkpointing", "chunk_size_feed_forward"),
        *("attn_implementation", "_attn_implementation"),
    ),
    "what transformers' calls return": (
        *("output_attentions", "output_hidden_states", "output_past", "return_dict"),
    ),
    "how fresh parameters are drawn": ("initializer_range",),
    "which loss transformers computes by itself": (
        "problem_type",
        "keys_to_ignore_at_inference",
    ),
    "which ids stand for what: the tokenizer's, and generation's, to say": (
        *("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id"),
        *("decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id"),
        *("tokenizer_class", "prefix", "task_specific_params"),
    ),
    "how texts are generated": (
        *("max_length", "min_length", "do_sample", "early_stopping", "num_beams"),
        *("num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p"),
        *("typical_p", "repetition_penalty", "length_penalty", "bad_words_ids"),
        *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "suppress_tokens"),
        *("begin_suppress_tokens", "num_return_sequences", "output_scores"),
        *("return_dict_in_generate", "remove_invalid_values", "tf_legacy_loss"),
        *("exponential_decay_length_penalty",),
    ),
    "of a pooler which Google's files name and no code reads": (
        *("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers"),
        *("pooler_size_per_head", "pooler_type"),
    ),
    "of a width that is read from cross-attention, which is refused": (
        "cross_attention_hidden_size",
    ),
}
HARMLESS = {key: why for why, keys in _REASONS.items() for key in keys}
LABELS = ("id2label", "label2id", "num_labels")  # the names of a classifier's classes
LIMIT = 10_000_000  # classes

# What transformers calls an activation, and its name in `layers/activation.py`.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
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


def renamed(config: Mapping[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    """A config with a family's own names where transformers takes a second one, too.

    aliases: the second name of a key -> the family's own (a config class's
    `attribute_map`). Raises ValueError where a config has both, and they differ.
    """
    out = {key: value for key, value in config.items() if key not in aliases}
    for key, own in aliases.items():
        if key in config and out.setdefault(own, config[key]) != config[key]:
            raise ValueError(
                f"config.json: {key} = {config[key]!r:.80}, which is another name of "
                f"{own} = {out[own]!r:.80}; make them equal, or leave one out"
            )
    return out


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
    """How many classes a classifier has: num_labels, else as many as id2label, else 2.

    As transformers, which where the two differ takes num_labels, with a warning, and
    gives id2label's names up.
    """
    labels, number = config.get("id2label"), config.get("num_labels")
    if labels is None:
        return integer({"num_labels": 2, **config}, "num_labels", LIMIT)
    if not isinstance(labels, dict) or not 1 <= len(labels) <= LIMIT:
        raise ValueError("config.json: id2label must map class numbers to names")
    if number is None:
        return len(labels)
    if integer(config, "num_labels", LIMIT) != len(labels):
        log.warning(
            "config.json: num_labels = %d, but id2label names %d classes; the former "
            "is taken, as transformers does, and the names are not",
            number,
            len(labels),
        )
    return int(number)
