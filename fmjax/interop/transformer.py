"""The Transformer in Marian's format (transformers' MarianMTModel)."""

from collections.abc import Callable, Mapping, Set
from typing import Any

import jax.numpy as jnp
import numpy as np

from fmjax.interop import names, settings
from fmjax.interop.names import Entry
from fmjax.interop.settings import ACTIVATIONS, integer, number
from fmjax.models import transformer

Model = transformer.Model
ARCHITECTURES: dict[str, str | None] = {"MarianMTModel": None, "MarianModel": None}

# What transformers takes where config.json is silent (MarianConfig's signature).
DEFAULTS: dict[str, Any] = {
    "vocab_size": 58101,
    "max_position_embeddings": 1024,
    "encoder_layers": 12,
    "encoder_ffn_dim": 4096,
    "encoder_attention_heads": 16,
    "decoder_layers": 12,
    "decoder_ffn_dim": 4096,
    "decoder_attention_heads": 16,
    "activation_function": "gelu",
    "d_model": 1024,
    "dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "scale_embedding": False,
}

# Second names that transformers takes for keys (MarianConfig's attribute_map).
ALIASES = {
    "hidden_size": "d_model",
    "num_attention_heads": "encoder_attention_heads",
    "num_hidden_layers": "encoder_layers",
}

# Each would change the mathematics; only these values are what `models/transformer.py`
# does. The later ones are of older files.
REQUIRED: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (True,),
    "is_decoder": (False,),
    "share_encoder_decoder_embeddings": (True,),
    "tie_word_embeddings": (True,),
    "encoder_layerdrop": (0, 0.0),
    "decoder_layerdrop": (0, 0.0),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "normalize_before": (False,),
    "normalize_embedding": (False,),
    "add_final_layer_norm": (False,),
    "static_position_embeddings": (True,),
}

# Of other heads and of initialisers, what follows from the tensors, and an offset of
# learned positions, which the first files have and static positions don't read.
UNUSED = {
    "extra_pos_embeddings",
    *("add_bias_logits", "classif_dropout", "classifier_dropout", "init_std"),
    *("decoder_vocab_size", *settings.LABELS),
}

# What changes the outputs and no shape shows.
UNSEEN = (
    *("encoder_attention_heads", "decoder_attention_heads", "activation_function"),
    "scale_embedding",
)

# The least that traces a net.
INPUTS = {
    "tokens": np.zeros((1, 1), np.int32),
    "decoder_tokens": np.zeros((1, 1), np.int32),
}

ZEROS = ("bias",)  # where a file lacks it


def fields(
    config: Mapping[str, Any],
    head: str | None,
    classes: int | None,
    found: Set[str] = frozenset(),
) -> dict[str, Any]:
    """Fields of `models.transformer.Model` for a config.json, as hostile input."""
    settings.headless(head, classes)
    size = config.get("vocab_size", DEFAULTS["vocab_size"])
    settings.require(config, REQUIRED | {"decoder_vocab_size": (size, None)})
    c = DEFAULTS | settings.renamed(config, ALIASES)
    return {
        "vocab_size": integer(c, "vocab_size", 100_000_000),
        "width": integer(c, "d_model", 1_000_000),
        "depth": integer(c, "encoder_layers", 1_000),
        "heads": integer(c, "encoder_attention_heads", 10_000),
        "mlp_width": integer(c, "encoder_ffn_dim", 10_000_000),
        "decoder_depth": integer(c, "decoder_layers", 1_000),
        "decoder_heads": integer(c, "decoder_attention_heads", 10_000),
        "decoder_mlp_width": integer(c, "decoder_ffn_dim", 10_000_000),
        "max_length": integer(c, "max_position_embeddings", 100_000_000),
        "activation": settings.choice(c, "activation_function", ACTIVATIONS),
        "dropout": number(c, "dropout", below=1),
        "attention_dropout": number(c, "attention_dropout", below=1),
        "mlp_dropout": number(c, "activation_dropout", below=1),
        "eps": 1e-5,  # torch's, which no config changes
        "layout": "halves",
        "scale_embedding": settings.switch(c, "scale_embedding"),
        "output_bias": True,
    }


def standard(
    net: transformer.Model, params: dict[str, np.ndarray]
) -> tuple[transformer.Model, dict[str, np.ndarray]]:
    """The same function with Marian's positions, and with its bias, by path.

    Sines and cosines by turns become sines first by the order of the width's units,
    which nothing but the positions depends on; the bias is zero where there is none.
    """
    if net.layout == "interleaved":
        order = np.concatenate([np.arange(i, net.width, 2) for i in (0, 1)])
        params = {path: _ordered(path, p, order) for path, p in params.items()}
    if not net.output_bias:
        params = params | {"bias": np.zeros(net.vocab_size, np.float32)}
    return net.clone(layout="halves", output_bias=True), params


def _ordered(path: str, value: np.ndarray, order: np.ndarray) -> np.ndarray:
    """A parameter of a net whose stream of width D has its units in this order."""
    module, _, leaf = path.rpartition("/")
    if path == "embed/embedding" or "_norm" in module:
        return value[..., order]
    part = module.rpartition("/")[2]
    if part in ("out", "down"):
        return value[..., order]
    return value[order] if leaf == "kernel" else value


def config(net: transformer.Model) -> dict[str, Any]:
    """config.json for a net: the inverse of `fields`.

    Raises ValueError where Marian has no word for a field's value.
    """
    fixed = {"layout": "halves", "output_bias": True, "eps": 1e-5}
    for field, value in fixed.items():
        if getattr(net, field) != value:
            raise ValueError(
                f"{field}={getattr(net, field)!r} has no public format: Marian's is "
                f"{field}={value!r}"
            )

    def own(value: int | None, other: int) -> int:
        return other if value is None else value

    return {
        "architectures": ["MarianMTModel"],
        "model_type": "marian",
        "vocab_size": net.vocab_size,
        "decoder_vocab_size": net.vocab_size,
        "max_position_embeddings": net.max_length,
        "d_model": net.width,
        "encoder_layers": net.depth,
        "encoder_attention_heads": net.heads,
        "encoder_ffn_dim": net.mlp_width,
        "decoder_layers": own(net.decoder_depth, net.depth),
        "decoder_attention_heads": own(net.decoder_heads, net.heads),
        "decoder_ffn_dim": own(net.decoder_mlp_width, net.mlp_width),
        "activation_function": settings.PUBLIC[net.activation],
        "dropout": net.dropout,
        "attention_dropout": net.attention_dropout,
        "activation_dropout": net.mlp_dropout,
        "scale_embedding": net.scale_embedding,
        "is_encoder_decoder": True,
        "share_encoder_decoder_embeddings": True,
        "tie_word_embeddings": True,
        # Marian's order: the end is the first piece, padding the last, which begins.
        "eos_token_id": 0,
        "forced_eos_token_id": 0,
        "pad_token_id": net.vocab_size - 1,
        "decoder_start_token_id": net.vocab_size - 1,
        "dtype": "float32",
    }


def unread(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of a config.json which neither this file nor any computation knows."""
    known = {*DEFAULTS, *ALIASES, *REQUIRED, *UNUSED, *settings.HARMLESS}
    return tuple(sorted(key for key in config if key not in known))


def entries(net: transformer.Model) -> list[Entry]:
    """Every tensor of a net, as transformers writes it."""
    table = [
        *names.embedding("model.shared", "embed"),
        Entry("final_logits_bias", "bias", lead=True),
    ]
    decoder_depth = net.depth if net.decoder_depth is None else net.decoder_depth
    for side, depth in (("encoder", net.depth), ("decoder", decoder_depth)):
        for i in range(depth):
            theirs, ours = f"model.{side}.layers.{i}.", f"{side}{i}/"
            kinds = {"self_attn": "attention"}
            if side == "decoder":
                kinds["encoder_attn"] = "cross_attention"
            for kind, path in kinds.items():
                parts = {"q": "query", "k": "key", "v": "value", "out": "out"}
                for a, b in parts.items():
                    table += names.linear(
                        f"{theirs}{kind}.{a}_proj", f"{ours}{path}/{b}"
                    )
                table += names.norm(f"{theirs}{kind}_layer_norm", f"{ours}{path}_norm")
            table += [
                *names.linear(theirs + "fc1", ours + "mlp/up"),
                *names.linear(theirs + "fc2", ours + "mlp/down"),
                *names.norm(theirs + "final_layer_norm", ours + "mlp_norm"),
            ]
    return table


def canonical(net: transformer.Model) -> Callable[[str], str]:
    """Names as files have them, to names as in `entries`: one table, several names."""
    aliases = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")

    def rename(name: str) -> str:
        if name.startswith(("shared.", "encoder.", "decoder.")):
            name = "model." + name
        return "model.shared.weight" if name in (*aliases, "lm_head.weight") else name

    return rename


def other(name: str) -> bool:
    """No head but the language model's is known."""
    return False


def buffers(name: str, tensor: np.ndarray) -> bool:
    """Sinusoids which old files carry; raises ValueError where they are others."""
    if not name.endswith(".embed_positions.weight"):
        return False
    positions = jnp.arange(len(tensor))
    expected = transformer.sinusoids(positions, tensor.shape[1], "halves")
    # Half-precision files, and angles of late positions in float32.
    if not np.allclose(tensor.astype(np.float32), expected, atol=2e-3):
        raise ValueError(
            f"{name} is not Marian's sinusoids: other positions are refused"
        )
    return True


def public(net: transformer.Model, name: str) -> str:
    """The name for writing."""
    return name


def _positions(net: transformer.Model) -> dict[str, np.ndarray]:
    """The sinusoids, which MarianModel has among its tensors, by way of float64."""
    units = np.arange(net.width) // 2 * 2
    angles = np.arange(net.max_length)[:, None] / np.power(10000, units / net.width)
    table = np.concatenate([np.sin(angles[:, ::2]), np.cos(angles[:, 1::2])], 1)
    return {
        f"{side}.embed_positions.weight": table.astype(np.float32)
        for side in ("encoder", "decoder")
    }


BARE = names.Bare("MarianModel", "model.", ("final_logits_bias",), _positions)
