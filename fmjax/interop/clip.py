"""CLIP in Hugging Face's format (transformers' CLIPModel)."""

import math
from collections.abc import Callable, Mapping, Set
from typing import Any

import numpy as np

from fmjax.interop import names, settings, vit
from fmjax.interop.names import Entry
from fmjax.interop.settings import ACTIVATIONS, integer, number
from fmjax.models import clip

Model = clip.Model
# Keys that no shape shows, and that change the outputs.
UNSEEN = tuple(
    f"{side}_config.{key}"
    for side in ("text", "vision")
    for key in ("num_attention_heads", "hidden_act", "layer_norm_eps")
)

ARCHITECTURES: dict[str, str | None] = {"CLIPModel": None}

# What transformers takes where config.json is silent: CLIPConfig's signature, and
# those of CLIPTextConfig and CLIPVisionConfig.
DEFAULTS: dict[str, Any] = {"projection_dim": 512, "logit_scale_init_value": 2.6592}
TEXT: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "attention_dropout": 0.0,
    "eos_token_id": 49407,
}
VISION: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "attention_dropout": 0.0,
}
SHARED = ("hidden_act", "layer_norm_eps")  # of one value for both towers here
REQUIRED: dict[str, tuple[Any, ...]] = {"quantization_config": (None,)}

# Of initialisation; and the towers' own projection_dim, which CLIPModel does not read.
UNUSED = ("initializer_factor", "initializer_range", "projection_dim")

OLD_EOS = 2  # in files older than the correction; the reference then takes the highest


def INPUTS(net: clip.Model) -> dict[str, np.ndarray]:
    """The least that traces a net."""
    return {"image": vit.INPUTS(net), "tokens": np.zeros((1, 1), np.int32)}


def _named(config: Mapping[str, Any], key: str) -> str:
    """The key of a tower's settings: what older files have beside them wins over it."""
    return key if config.get(f"{key}_dict") is None else f"{key}_dict"


def _tower(config: Mapping[str, Any], key: str, defaults: dict) -> dict[str, Any]:
    key = _named(config, key)
    given = config.get(key)
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise ValueError(f"config.json: {key} must be an object")
    return defaults | given


def fields(
    config: Mapping[str, Any],
    head: str | None,
    classes: int | None,
    found: Set[str] = frozenset(),
) -> dict[str, Any]:
    """Fields of `models.clip.Model` for a config.json, checked as hostile input."""
    settings.headless(head, classes)
    settings.require(config, REQUIRED)
    text, vision = (
        _tower(config, "text_config", TEXT),
        _tower(config, "vision_config", VISION),
    )
    for key in SHARED:
        if text[key] != vision[key]:
            raise ValueError(
                f"config.json: {key} is {text[key]!r:.80} for texts and "
                f"{vision[key]!r:.80} for images, which is not implemented here"
            )
    eos = text["eos_token_id"]
    if type(eos) is not int or eos < 0:
        raise ValueError(f"config.json: eos_token_id must be an id, got {eos!r:.80}")
    c = DEFAULTS | dict(config)
    return {
        "patch": integer(vision, "patch_size", 100_000),
        "width": integer(vision, "hidden_size", 1_000_000),
        "depth": integer(vision, "num_hidden_layers", 1_000),
        "heads": integer(vision, "num_attention_heads", 10_000),
        "mlp_width": integer(vision, "intermediate_size", 10_000_000),
        "image": vit.image(vision, "image_size"),
        "channels": integer(vision, "num_channels", 10_000),
        "attention_dropout": number(vision, "attention_dropout", below=1),
        "text_width": integer(text, "hidden_size", 1_000_000),
        "text_depth": integer(text, "num_hidden_layers", 1_000),
        "text_heads": integer(text, "num_attention_heads", 10_000),
        "text_mlp_width": integer(text, "intermediate_size", 10_000_000),
        "text_attention_dropout": number(text, "attention_dropout", below=1),
        "vocab_size": integer(text, "vocab_size", 100_000_000),
        "max_length": integer(text, "max_position_embeddings", 100_000_000),
        "eos": "highest" if eos == OLD_EOS else eos,
        "joint": integer(c, "projection_dim", 1_000_000),
        "activation": settings.choice(text, "hidden_act", ACTIVATIONS),
        "temperature": math.exp(-number(c, "logit_scale_init_value", below=100)),
        "eps": number(text, "layer_norm_eps", below=1),
    }


def config(net: clip.Model) -> dict[str, Any]:
    """config.json for a net: the inverse of `fields`.

    Raises ValueError where texts are pooled at their last token, by no id.
    """
    if net.eos is None:
        raise ValueError("transformers' CLIP pools a text at an id: set the net's eos")
    height, width = net.image
    both = {
        "hidden_act": settings.PUBLIC[net.activation],
        "layer_norm_eps": net.eps,
        "projection_dim": net.joint,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": net.joint,
        "logit_scale_init_value": -math.log(net.temperature),
        "text_config": both
        | {
            "model_type": "clip_text_model",
            "vocab_size": net.vocab_size,
            "hidden_size": net.text_width,
            "intermediate_size": net.text_mlp_width,
            "num_hidden_layers": net.text_depth,
            "num_attention_heads": net.text_heads,
            "max_position_embeddings": net.max_length,
            "attention_dropout": net.text_attention_dropout,
            "eos_token_id": OLD_EOS if net.eos == "highest" else net.eos,
        },
        "vision_config": both
        | {
            "model_type": "clip_vision_model",
            "hidden_size": net.width,
            "intermediate_size": net.mlp_width,
            "num_hidden_layers": net.depth,
            "num_attention_heads": net.heads,
            "num_channels": net.channels,
            "image_size": height if height == width else [height, width],
            "patch_size": net.patch,
            "attention_dropout": net.attention_dropout,
        },
        "dtype": "float32",
    }


def unread(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of a config.json which neither this file nor any computation knows."""
    known = {*DEFAULTS, *REQUIRED, *UNUSED, *settings.HARMLESS}
    towers = {"text_config": TEXT, "vision_config": VISION}
    read = {*known, *towers, *(f"{name}_dict" for name in towers)}
    found = [key for key in config if key not in read]
    for tower, own in towers.items():
        name = _named(config, tower)
        of_one = {*own, *REQUIRED, *UNUSED, *settings.HARMLESS}
        given = config.get(name) or {}
        found += [f"{name}.{key}" for key in given if key not in of_one]
    return tuple(sorted(found))


def entries(net: clip.Model) -> list[Entry]:
    """Every tensor of a net, as transformers writes it."""
    v, t = "vision_model.", "text_model."
    table = [
        Entry("logit_scale", "logit_scale"),
        Entry(v + "embeddings.class_embedding", "vision/embed/cls", flat=True),
        *names.conv(
            v + "embeddings.patch_embedding", "vision/embed/patches", bias=False
        ),
        Entry(v + "embeddings.position_embedding.weight", "vision/embed/positions"),
        *names.norm(v + "pre_layrnorm", "vision/pre_norm"),  # spelt so
        *names.norm(v + "post_layernorm", "vision/norm"),
        *names.linear("visual_projection", "vision_project", bias=False),
        *names.embedding(t + "embeddings.token_embedding", "text/tokens"),
        *names.embedding(t + "embeddings.position_embedding", "text/positions"),
        *names.norm(t + "final_layer_norm", "text/norm"),
        *names.linear("text_projection", "text_project", bias=False),
    ]
    for tower, own, depth in (
        (v, "vision", net.depth),
        (t, "text", net.text_depth),
    ):
        for i in range(depth):
            table += layer(f"{tower}encoder.layers.{i}.", f"{own}/layer{i}/")
    return table


def layer(theirs: str, ours: str) -> list[Entry]:
    """The tensors of one block."""
    parts = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}
    table = [
        *names.norm(theirs + "layer_norm1", ours + "attention_norm"),
        *names.norm(theirs + "layer_norm2", ours + "mlp_norm"),
        *names.linear(theirs + "mlp.fc1", ours + "mlp/up"),
        *names.linear(theirs + "mlp.fc2", ours + "mlp/down"),
    ]
    for a, b in parts.items():
        table += names.linear(f"{theirs}self_attn.{a}", f"{ours}attention/{b}")
    return table


def canonical(net: clip.Model) -> Callable[[str], str]:
    """Each tensor has one name."""
    return lambda name: name


def other(name: str) -> bool:
    """There are no other heads."""
    return False


def buffers(name: str, tensor: np.ndarray) -> bool:
    """Position numbers in old files; raises ValueError where they are others."""
    if not name.endswith(".embeddings.position_ids"):
        return False
    if not np.array_equal(tensor.ravel(), np.arange(tensor.size)):
        raise ValueError(f"{name} is not 0, 1, 2 ...: other positions are refused")
    return True


def public(net: clip.Model, name: str) -> str:
    """The name for writing."""
    return name
