"""Vision transformers in Hugging Face's format (transformers' ViTModel and heads)."""

from collections.abc import Callable, Mapping, Set
from typing import Any

import numpy as np

from fmjax.interop import names, settings
from fmjax.interop.names import Entry
from fmjax.interop.settings import ACTIVATIONS, integer, number
from fmjax.layers import patches
from fmjax.models import vit

Model = vit.Model
ARCHITECTURES: dict[str, str | None] = {
    "ViTModel": None,
    "ViTForImageClassification": "classify",
}
WRITTEN = {head: name for name, head in ARCHITECTURES.items()}

# What transformers takes where config.json is silent (ViTConfig's signature).
DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
}

# Each would change the mathematics; only these values are what `models/vit.py` does.
REQUIRED: dict[str, tuple[Any, ...]] = {
    "qkv_bias": (True,),
    "quantization_config": (None,),
}

# Of the pooler and of masked-image modelling, neither of which is read.
UNUSED = ("encoder_stride", "pooler_act", "pooler_output_size")

# Keys that no shape shows, and that change the outputs.
UNSEEN: tuple[str, ...] = ("num_attention_heads", "hidden_act", "layer_norm_eps")

LABELS = ("id2label", "label2id", "num_labels")


def INPUTS(net: Any) -> np.ndarray:
    """The least that traces a net."""
    return np.zeros((1, *net.image, net.channels), np.float32)


def fields(
    config: Mapping[str, Any],
    head: str | None,
    classes: int | None,
    found: Set[str] = frozenset(),
) -> dict[str, Any]:
    """Fields of `models.vit.Model` for a config.json, checked as hostile input."""
    settings.require(config, REQUIRED)
    if head == "classify" and classes is None:
        classes = settings.classes(config)
    return encoder(DEFAULTS | dict(config)) | (
        {"head": head} | ({"classes": classes} if head == "classify" else {})
    )


def encoder(c: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that ViT, MAE and both towers of CLIP have in common."""
    return {
        "patch": integer(c, "patch_size", 100_000),
        "width": integer(c, "hidden_size", 1_000_000),
        "depth": integer(c, "num_hidden_layers", 1_000),
        "heads": integer(c, "num_attention_heads", 10_000),
        "mlp_width": integer(c, "intermediate_size", 10_000_000),
        "image": image(c, "image_size"),
        "channels": integer(c, "num_channels", 10_000),
        "dropout": number(c, "hidden_dropout_prob", below=1),
        "attention_dropout": number(c, "attention_probs_dropout_prob", below=1),
        "activation": settings.choice(c, "hidden_act", ACTIVATIONS),
        "eps": number(c, "layer_norm_eps", below=1),
    }


def image(config: Mapping[str, Any], key: str) -> tuple[int, int]:
    """(H, W) of a size written as one whole number or as two."""
    value = config[key]
    sides = value if isinstance(value, list) and len(value) == 2 else [value, value]
    height, width = (integer({key: side}, key, 1_000_000) for side in sides)
    return height, width


def config(net: vit.Model) -> dict[str, Any]:
    """config.json for a net: the inverse of `fields`.

    Raises ValueError for a net that transformers' ViT can't express.
    """
    _check(net)
    out = {
        "architectures": [WRITTEN[net.head]],
        "model_type": "vit",
        **written(net),
        "qkv_bias": True,
        "initializer_range": 0.02,
        "dtype": "float32",
    }
    if net.head == "classify":
        labels = [f"LABEL_{i}" for i in range(net.classes)]
        out["id2label"] = {str(i): label for i, label in enumerate(labels)}
        out["label2id"] = {label: i for i, label in enumerate(labels)}
    return out


def written(net: Any) -> dict[str, Any]:
    """The keys which `encoder` reads."""
    height, width = net.image
    return {
        "hidden_size": net.width,
        "num_hidden_layers": net.depth,
        "num_attention_heads": net.heads,
        "intermediate_size": net.mlp_width,
        "hidden_act": settings.PUBLIC[net.activation],
        "hidden_dropout_prob": net.dropout,
        "attention_probs_dropout_prob": net.attention_dropout,
        "layer_norm_eps": net.eps,
        "image_size": height if height == width else [height, width],
        "patch_size": net.patch,
        "num_channels": net.channels,
    }


def _check(net: vit.Model) -> None:
    wanted = {
        "pool": "cls",
        "norm_last": False,
        "order": "pre",
        "norm": "layer",
        "qk_norm": None,
        "use_bias": True,
    }
    for field, value in wanted.items():
        if getattr(net, field) != value:
            raise ValueError(
                f"transformers' ViT has no {field}={getattr(net, field)!r} (only "
                f"{value!r}); library='timm' can express more"
            )
    if net.mlp_bias not in (None, True):
        raise ValueError("transformers' ViT has no mlp_bias=False")


def unread(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of a config.json which neither this file nor any computation knows."""
    known = {*DEFAULTS, *REQUIRED, *LABELS, *UNUSED, *settings.HARMLESS}
    return tuple(sorted(key for key in config if key not in known))


def entries(net: vit.Model) -> list[Entry]:
    """Every tensor of a net, as transformers writes it under this head."""
    table = [
        *embedding("vit.embeddings.", learned=net.positions == "learned"),
        *(e for i in range(net.depth) for e in layer(f"vit.encoder.layer.{i}.", i)),
        *names.norm("vit.layernorm", "norm"),
    ]
    if net.head == "classify":
        table += names.linear("classifier", "classify")
    return table


def embedding(e: str, *, learned: bool) -> list[Entry]:
    """The tensors of `models.vit.Embed`."""
    table = [
        Entry(e + "cls_token", "embed/cls", lead=True),
        *names.conv(e + "patch_embeddings.projection", "embed/patches"),
    ]
    if learned:
        table.append(Entry(e + "position_embeddings", "embed/positions", lead=True))
    return table


def layer(theirs: str, i: int, ours: str = "layer") -> list[Entry]:
    """The tensors of block i."""
    ours, table = f"{ours}{i}/", []
    for part in ("query", "key", "value"):
        table += names.linear(
            f"{theirs}attention.attention.{part}", f"{ours}attention/{part}"
        )
    return [
        *table,
        *names.linear(theirs + "attention.output.dense", ours + "attention/out"),
        *names.norm(theirs + "layernorm_before", ours + "attention_norm"),
        *names.norm(theirs + "layernorm_after", ours + "mlp_norm"),
        *names.linear(theirs + "intermediate.dense", ours + "mlp/up"),
        *names.linear(theirs + "output.dense", ours + "mlp/down"),
    ]


# What version 5 of transformers calls the parts in memory, and may come to write.
LATER = (
    ("attention.q_proj", "attention.attention.query"),
    ("attention.k_proj", "attention.attention.key"),
    ("attention.v_proj", "attention.attention.value"),
    ("attention.o_proj", "attention.output.dense"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
)


def canonical(net: vit.Model) -> Callable[[str], str]:
    """Names as files have them, to names as in `entries`.

    Files of the bare encoder have no `vit.`.
    """

    def rename(name: str) -> str:
        if name.startswith(("embeddings.", "encoder.", "layers.", "layernorm.")):
            name = "vit." + name
        if name.startswith("pooler."):
            name = "vit." + name
        if name.startswith("vit.layers."):
            name = name.replace("vit.layers.", "vit.encoder.layer.", 1)
            for new, old in LATER:
                name = name.replace(f".{new}.", f".{old}.")
        return name

    return rename


def other(name: str) -> bool:
    """Does a canonical name belong to some head of ViT."""
    return name.startswith(
        ("classifier.", "vit.pooler.", "decoder.", "vit.embeddings.mask_token")
    )


def buffers(name: str, tensor: np.ndarray) -> bool:
    """No file has any."""
    return False


def constants(net: vit.Model) -> dict[str, np.ndarray]:
    """Tensors which are no parameters here: fixed positions, as a table."""
    return fixed(net, "vit.embeddings.position_embeddings")


def fixed(net: Any, name: str) -> dict[str, np.ndarray]:
    """{name: [1, E + N, D]} where a net's positions are 'sincos'."""
    if net.positions == "learned":
        return {}
    grid = patches.grid(net.image, net.patch)
    return {name: patches.sincos(grid, net.width, front=net.front)[None]}


def public(net: vit.Model, name: str) -> str:
    """The name for writing: the bare encoder's has no `vit.` in front."""
    return name.removeprefix("vit.") if net.head is None else name
