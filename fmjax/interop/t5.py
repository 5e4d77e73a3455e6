"""T5 in Hugging Face's format (transformers' T5ForConditionalGeneration)."""

from collections.abc import Callable, Mapping, Set
from typing import Any

import numpy as np

from fmjax.interop import names, settings
from fmjax.interop.names import Entry
from fmjax.interop.settings import ACTIVATIONS, integer, number
from fmjax.models import t5

Model = t5.Model
ARCHITECTURES: dict[str, str | None] = {
    "T5ForConditionalGeneration": None,
    "T5WithLMHeadModel": None,  # its name of old
    "T5Model": None,
}

# What transformers takes where config.json is silent (T5Config's signature);
# n_positions is of older files, and limits nothing there.
DEFAULTS: dict[str, Any] = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_decoder_layers": None,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
    "n_positions": 512,
    "tie_word_embeddings": True,
    "scale_decoder_outputs": None,
}

# Second names that transformers takes for keys (T5Config's attribute_map).
ALIASES = {
    "hidden_size": "d_model",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
    "head_dim": "d_kv",
}

# Each would change the mathematics; only these values are what `models/t5.py` does.
REQUIRED: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (True,),
    "is_decoder": (False,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
}

# Of heads and initialisers not used here.
UNUSED = {"classifier_dropout", "initializer_factor", *settings.LABELS}

# What follows from feed_forward_proj, and overrides it where it is another.
DERIVED = ("dense_act_fn", "is_gated_act")

# What changes the outputs and no shape shows.
UNSEEN = (
    *("relative_attention_max_distance", "feed_forward_proj", "layer_norm_epsilon"),
    *("tie_word_embeddings", "scale_decoder_outputs"),
)

# The least that traces a net.
INPUTS = {
    "tokens": np.zeros((1, 1), np.int32),
    "decoder_tokens": np.zeros((1, 1), np.int32),
}

HEAD = "lm_head.weight"
BARE = names.Bare("T5Model", head=(HEAD,))


def fields(
    config: Mapping[str, Any],
    head: str | None,
    classes: int | None,
    found: Set[str] = frozenset(),
) -> dict[str, Any]:
    """Fields of `models.t5.Model` for a config.json, checked as hostile input.

    found: names of the file's tensors. transformers 5 writes tie_word_embeddings=True
    for T5 1.1 too, whose files have an output map of their own.
    """
    settings.headless(head, classes)
    settings.require(config, REQUIRED)
    c = DEFAULTS | settings.renamed(config, ALIASES)
    depth = c["num_decoder_layers"]
    gated, act = _activation(c)
    scaled = c["scale_decoder_outputs"]
    tied = settings.switch(c, "tie_word_embeddings")
    if scaled is not None:
        scaled = settings.switch(c, "scale_decoder_outputs")
        tied = tied and (scaled or HEAD not in found)
    return {
        "vocab_size": integer(c, "vocab_size", 100_000_000),
        "width": integer(c, "d_model", 1_000_000),
        "depth": integer(c, "num_layers", 1_000),
        "decoder_depth": (
            None if depth is None else integer(c, "num_decoder_layers", 1_000)
        ),
        "heads": integer(c, "num_heads", 10_000),
        "head_width": integer(c, "d_kv", 100_000),
        "mlp_width": integer(c, "d_ff", 10_000_000),
        "buckets": integer(c, "relative_attention_num_buckets", 100_000),
        "max_distance": integer(c, "relative_attention_max_distance", 100_000_000),
        "max_length": integer(c, "n_positions", 100_000_000),
        "dropout": number(c, "dropout_rate", below=1),
        "activation": act,
        "gated": gated,
        "tied": tied,
        "scale_output": None if scaled == tied else scaled,
        "eps": number(c, "layer_norm_epsilon", below=1),
    }


def _activation(config: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the MLP is gated, and by what; 'gated-gelu' is the tanh form."""
    value = config["feed_forward_proj"]
    kind, _, name = value.rpartition("-") if isinstance(value, str) else ("", "", value)
    if kind not in ("", "gated"):
        raise ValueError(
            f"config.json: feed_forward_proj = {value!r:.80} is not implemented "
            "(known: an activation, or gated- and an activation)"
        )
    if (kind, name) == ("gated", "gelu"):
        name = "gelu_new"
    act = settings.choice({"feed_forward_proj": name}, "feed_forward_proj", ACTIVATIONS)
    settings.require(config, dict(zip(DERIVED, ((name,), (bool(kind),)), strict=True)))
    return kind == "gated", act


def config(net: t5.Model) -> dict[str, Any]:
    """config.json for a net: the inverse of `fields`."""
    act = settings.PUBLIC[net.activation]
    if net.gated:
        if net.activation == "gelu":
            raise ValueError(
                "a gated exact GELU has no public name: 'gated-gelu' is the tanh form, "
                "activation='gelu_tanh'"
            )
        act = "gated-" + ("gelu" if net.activation == "gelu_tanh" else act)
    depth = net.decoder_depth
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "vocab_size": net.vocab_size,
        "d_model": net.width,
        "d_kv": net.head_width,
        "d_ff": net.mlp_width,
        "num_layers": net.depth,
        "num_decoder_layers": net.depth if depth is None else depth,
        "num_heads": net.heads,
        "relative_attention_num_buckets": net.buckets,
        "relative_attention_max_distance": net.max_distance,
        "n_positions": net.max_length,
        "dropout_rate": net.dropout,
        "feed_forward_proj": act,
        "layer_norm_epsilon": net.eps,
        "is_encoder_decoder": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        **_ties(net),
        "dtype": "float32",
    }


def _ties(net: t5.Model) -> dict[str, bool]:
    scaled = net.tied if net.scale_output is None else net.scale_output
    if scaled and not net.tied:
        raise ValueError(
            "an output map of its own with scaled inputs (tied=False, "
            "scale_output=True) has no public format"
        )
    # transformers 5 reads "not scaled" from the first of these, and forgets the other.
    if scaled:
        return {"tie_word_embeddings": True}
    if not net.tied:
        return {"tie_word_embeddings": False}
    return {"tie_word_embeddings": True, "scale_decoder_outputs": False}


def unread(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of a config.json which neither this file nor any computation knows."""
    known = {*DEFAULTS, *ALIASES, *REQUIRED, *DERIVED, *UNUSED, *settings.HARMLESS}
    return tuple(sorted(key for key in config if key not in known))


def entries(net: t5.Model) -> list[Entry]:
    """Every tensor of a net, as transformers writes it."""
    table = names.embedding("shared", "embed")
    decoder_depth = net.depth if net.decoder_depth is None else net.decoder_depth
    for side, depth in (("encoder", net.depth), ("decoder", decoder_depth)):
        for i in range(depth):
            theirs, ours = f"{side}.block.{i}.layer.", f"{side}{i}/"
            table += _attention(theirs + "0.SelfAttention", ours + "attention")
            table += _norm(theirs + "0.layer_norm", ours + "attention_norm")
            last = 1
            if side == "decoder":
                table += _attention(
                    theirs + "1.EncDecAttention", ours + "cross_attention"
                )
                table += _norm(theirs + "1.layer_norm", ours + "cross_attention_norm")
                last = 2
            maps = {"wi_0": "gate", "wi_1": "up"} if net.gated else {"wi": "up"}
            for a, b in (maps | {"wo": "down"}).items():
                table += _linear(f"{theirs}{last}.DenseReluDense.{a}", f"{ours}mlp/{b}")
            table += _norm(f"{theirs}{last}.layer_norm", ours + "mlp_norm")
        first = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias"
        table += names.embedding(first, f"{side}_bias")
        table += _norm(f"{side}.final_layer_norm", f"{side}_norm")
    return table if net.tied else table + _linear("lm_head", "head")


def _linear(theirs: str, ours: str) -> list[Entry]:
    return names.linear(theirs, ours, bias=False)


def _norm(theirs: str, ours: str) -> list[Entry]:
    return names.norm(theirs, ours, bias=False)


def _attention(theirs: str, ours: str) -> list[Entry]:
    parts = {"q": "query", "k": "key", "v": "value", "o": "out"}
    return [
        e for a, b in parts.items() for e in _linear(f"{theirs}.{a}", f"{ours}/{b}")
    ]


def canonical(net: t5.Model) -> Callable[[str], str]:
    """Names as files have them, to names as in `entries`: one table, several names."""
    aliases = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    if net.tied:
        aliases.add(HEAD)
    return lambda name: "shared.weight" if name in aliases else name


def other(name: str) -> bool:
    """Does a canonical name belong to a head that is not the language model's."""
    return name.startswith(("classifier.", "classification_head.", "qa_outputs."))


def buffers(name: str, tensor: np.ndarray) -> bool:
    """A bias of the cross-attention, which the first files carry and nobody reads."""
    return name == (
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    )


def public(net: t5.Model, name: str) -> str:
    """The name for writing."""
    return name
