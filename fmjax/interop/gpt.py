"""GPT-2 in Hugging Face's format (transformers' GPT2LMHeadModel)."""

from collections.abc import Callable, Mapping, Set
from typing import Any

import numpy as np

from fmjax.interop import names, settings
from fmjax.interop.names import Entry
from fmjax.interop.settings import ACTIVATIONS, integer, number
from fmjax.models import gpt

Model = gpt.Model
ARCHITECTURES: dict[str, str | None] = {"GPT2LMHeadModel": None, "GPT2Model": None}
BARE = names.Bare("GPT2Model", "transformer.", ("lm_head.weight",))

# What transformers takes where config.json is silent (GPT2Config's signature).
DEFAULTS: dict[str, Any] = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "activation_function": "gelu_new",
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
}

# Second names that transformers takes for keys (GPT2Config's attribute_map).
ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}

# Each would change the mathematics; only these values are what `models/gpt.py` does.
REQUIRED: dict[str, tuple[Any, ...]] = {
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
}

# Of heads that are not read here, of a size that the tables have already, and of a
# precision: softmax is in float32 here always.
UNUSED = {
    *("n_ctx", "reorder_and_upcast_attn", "summary_activation", "summary_type"),
    *("summary_first_dropout", "summary_proj_to_labels", "summary_use_proj"),
    *settings.LABELS,
}

# What changes the outputs and no shape shows.
UNSEEN = ("n_head", "activation_function", "layer_norm_epsilon", "tie_word_embeddings")

# The least that traces a net.
INPUTS = {"tokens": np.zeros((1, 1), np.int32)}


def fields(
    config: Mapping[str, Any],
    head: str | None,
    classes: int | None,
    found: Set[str] = frozenset(),
) -> dict[str, Any]:
    """Fields of `models.gpt.Model` for a config.json, checked as hostile input."""
    settings.headless(head, classes)
    settings.require(config, REQUIRED)
    c = DEFAULTS | settings.renamed(config, ALIASES)
    width = integer(c, "n_embd", 1_000_000)
    inner = c["n_inner"]
    return {
        "vocab_size": integer(c, "vocab_size", 100_000_000),
        "width": width,
        "depth": integer(c, "n_layer", 1_000),
        "heads": integer(c, "n_head", 10_000),
        "mlp_width": 4 * width if inner is None else integer(c, "n_inner", 10_000_000),
        "max_length": integer(c, "n_positions", 100_000_000),
        "dropout": number(c, "resid_pdrop", below=1),
        "attention_dropout": number(c, "attn_pdrop", below=1),
        "embed_dropout": number(c, "embd_pdrop", below=1),
        "activation": settings.choice(c, "activation_function", ACTIVATIONS),
        "eps": number(c, "layer_norm_epsilon", below=1),
        "tied": settings.switch(c, "tie_word_embeddings"),
    }


def config(net: gpt.Model) -> dict[str, Any]:
    """config.json for a net: the inverse of `fields`."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": net.vocab_size,
        "n_positions": net.max_length,
        "n_embd": net.width,
        "n_layer": net.depth,
        "n_head": net.heads,
        "n_inner": net.mlp_width,
        "activation_function": settings.PUBLIC[net.activation],
        "resid_pdrop": net.dropout,
        "embd_pdrop": net.embed_dropout,
        "attn_pdrop": net.attention_dropout,
        "layer_norm_epsilon": net.eps,
        "initializer_range": 0.02,
        "tie_word_embeddings": net.tied,
        # The defaults are GPT-2's own ids, which another vocabulary may not have.
        "bos_token_id": net.vocab_size - 1,
        "eos_token_id": net.vocab_size - 1,
        "dtype": "float32",
    }


def unread(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of a config.json which neither this file nor any computation knows."""
    known = {*DEFAULTS, *ALIASES, *REQUIRED, *UNUSED, *settings.HARMLESS}
    return tuple(sorted(key for key in config if key not in known))


def entries(net: gpt.Model) -> list[Entry]:
    """Every tensor of a net, as transformers writes it."""
    table = [
        *names.embedding("transformer.wte", "embed/tokens"),
        *names.embedding("transformer.wpe", "embed/positions"),
        *names.norm("transformer.ln_f", "norm"),
    ]
    for i in range(net.depth):
        theirs, ours = f"transformer.h.{i}.", f"layer{i}/"
        parts = (f"{ours}attention/{part}" for part in ("query", "key", "value"))
        table += [
            *names.norm(theirs + "ln_1", ours + "attention_norm"),
            *names.conv1d(theirs + "attn.c_attn", *parts),
            *names.conv1d(theirs + "attn.c_proj", ours + "attention/out"),
            *names.norm(theirs + "ln_2", ours + "mlp_norm"),
            *names.conv1d(theirs + "mlp.c_fc", ours + "mlp/up"),
            *names.conv1d(theirs + "mlp.c_proj", ours + "mlp/down"),
        ]
    return table if net.tied else table + names.linear("lm_head", "head", bias=False)


def canonical(net: gpt.Model) -> Callable[[str], str]:
    """Names as files have them, to names as in `entries`.

    The published files have no `transformer.`; tied ones may hold the table under the
    name of the output map, or both.
    """

    def rename(name: str) -> str:
        if name.startswith(("wte.", "wpe.", "h.", "ln_f.")):
            name = "transformer." + name
        if net.tied and name == "lm_head.weight":
            return "transformer.wte.weight"
        return name

    return rename


def other(name: str) -> bool:
    """Does a canonical name belong to a head that is not the language model's."""
    return name.startswith(("score.", "classifier.", "multiple_choice_head."))


def buffers(name: str, tensor: np.ndarray) -> bool:
    """Buffers which old files carry; raises ValueError where one is not the usual."""
    if name.endswith(".attn.masked_bias"):
        return tensor.size == 1
    if name.startswith("transformer.h.") and name.endswith(".attn.bias"):
        size = tensor.shape[-1]
        if not np.array_equal(tensor.reshape(-1, size) != 0, np.tri(size) != 0):
            raise ValueError(f"{name} is no causal mask: other masks are refused")
        return True
    return False


def public(net: gpt.Model, name: str) -> str:
    """The name for writing."""
    return name
