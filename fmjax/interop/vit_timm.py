"""Vision transformers in timm's format: its config.json, and queries, keys and values
in one tensor."""

import re
from collections.abc import Callable, Mapping, Set
from typing import Any

import numpy as np

from fmjax.interop import names, settings, vit
from fmjax.interop.names import Entry
from fmjax.interop.settings import integer, number, switch
from fmjax.models import vit as models

Model = models.Model
# Keys that no shape shows, and that change the outputs.
UNSEEN = ("model_args.num_heads",)

INPUTS = vit.INPUTS

# timm's names of sizes; what its signature has where a name says nothing.
NAMES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
    "giant": (1408, 40, 16),
    "gigantic": (1664, 48, 16),
}
RATIOS = {"giant": 48 / 11, "gigantic": 64 / 13}
NAME = re.compile(rf"vit_({'|'.join(NAMES)})_patch(\d{{1,4}})_(\d{{1,5}})(?:\.\w+)?")
POOLS = {"token": "cls", "avg": "mean", "map": "map"}

# model_args which change the mathematics, with the values that `models/vit.py` has.
REQUIRED: dict[str, tuple[Any, ...]] = {
    "qkv_bias": (True,),
    "proj_bias": (True,),
    "scale_attn_norm": (False,),
    "scale_mlp_norm": (False,),
    "init_values": (None,),
    "pos_embed": ("learn",),
    "no_embed_class": (False,),
    "reg_tokens": (0,),
    "pre_norm": (False,),
    "final_norm": (True,),
    "fc_norm": (None,),
    "pool_include_prefix": (False,),
    "dynamic_img_size": (False,),
    "dynamic_img_pad": (False,),
    "norm_layer": (None, "layernorm"),
    "act_layer": (None, "gelu"),
}
READ = (
    *("img_size", "patch_size", "in_chans", "num_classes", "global_pool", "embed_dim"),
    *("depth", "num_heads", "mlp_ratio", "qk_norm", "class_token", "proj_drop_rate"),
    "attn_drop_rate",
)
# Rates of regularisers that a loaded net is given anew, and initialisation.
HARMLESS = (
    *("drop_rate", "pos_drop_rate", "patch_drop_rate", "drop_path_rate"),
    *("weight_init", "fix_init"),
)
TOP = (
    *("architecture", "num_classes", "num_features", "global_pool", "model_args"),
    *("pretrained_cfg", "label_names", "label_descriptions", "dtype"),
)


def head(config: Mapping[str, Any]) -> str | None:
    """'classify', or None where the file has no classes."""
    return "classify" if _arguments(config)["num_classes"] != 0 else None


def fields(
    config: Mapping[str, Any],
    head: str | None,
    classes: int | None,
    found: Set[str] = frozenset(),
) -> dict[str, Any]:
    """Fields of `models.vit.Model` for a config.json, checked as hostile input."""
    a = _arguments(config)
    settings.require(a, REQUIRED)
    if unknown := sorted(set(a) - {*READ, *REQUIRED, *HARMLESS}):
        raise ValueError(
            f"config.json: model_args.{unknown[0]} is not known here, and may change "
            "the mathematics, so it is refused"
        )
    if head == "classify" and classes is None:
        classes = integer(a, "num_classes", 10_000_000)
    width, ratio = integer(a, "embed_dim", 1_000_000), a["mlp_ratio"]
    if type(ratio) not in (int, float) or not 0 < ratio <= 1000:
        raise ValueError(f"config.json: mlp_ratio must be a number, got {ratio!r:.80}")
    pool = settings.choice(a, "global_pool", POOLS)
    cls_token = switch(a, "class_token")
    return {
        "patch": integer(a, "patch_size", 100_000),
        "width": width,
        "depth": integer(a, "depth", 1_000),
        "heads": integer(a, "num_heads", 10_000),
        "mlp_width": int(width * ratio),
        "image": vit.image(a, "img_size"),
        "channels": integer(a, "in_chans", 10_000),
        "pool": pool,
        "cls_token": cls_token,
        "norm_last": pool == "mean",
        "qk_norm": "layer" if switch(a, "qk_norm") else None,
        "dropout": number(a, "proj_drop_rate", below=1),
        "attention_dropout": number(a, "attn_drop_rate", below=1),
        "activation": "gelu",
        "eps": 1e-6,
        "head": head,
    } | ({"classes": classes} if head == "classify" else {})


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """What timm would give its VisionTransformer."""
    name = NAME.fullmatch(str(config.get("architecture")))
    if name is None:
        raise ValueError(
            f"config.json: architecture {config.get('architecture')!r:.80} is not "
            f"implemented (known: vit_SIZE_patchP_S, SIZE one of {', '.join(NAMES)})"
        )
    pretrained = config.get("pretrained_cfg")
    pretrained = pretrained if isinstance(pretrained, dict) else {}
    given = config.get("model_args") or {}
    if not isinstance(given, dict):
        raise ValueError("config.json: model_args must be an object")
    width, depth, heads = NAMES[name[1]]
    found = {
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
        "mlp_ratio": RATIOS.get(name[1], 4.0),
        "patch_size": int(name[2]),
        "img_size": int(name[3]),
        "in_chans": 3,
        "num_classes": 1000,
        "global_pool": "token",
        "class_token": True,
        "qk_norm": False,
        "proj_drop_rate": 0.0,
        "attn_drop_rate": 0.0,
    }
    size = pretrained.get("input_size")
    if isinstance(size, list) and len(size) == 3:
        found |= {"in_chans": size[0], "img_size": size[1:]}
    for source in (pretrained, config):
        found |= {k: source[k] for k in ("num_classes", "global_pool") if k in source}
    return found | given


def config(net: models.Model) -> dict[str, Any]:
    """config.json for a net: the inverse of `fields`.

    Raises ValueError for a net that timm's vit_... can't express.
    """
    wanted: dict[str, tuple[Any, ...]] = {
        "order": ("pre",),
        "norm": ("layer",),
        "qk_norm": (None, "layer"),
        "use_bias": (True,),
        "mlp_bias": (None, True),
        "activation": ("gelu",),
        "eps": (1e-6,),
        "norm_last": (net.pool == "mean",),
    }
    for field, values in wanted.items():
        if (value := getattr(net, field)) not in values:
            raise ValueError(
                f"timm's vit has no {field}={value!r} (only {values[0]!r})"
            )
    pool = {ours: theirs for theirs, ours in POOLS.items()}[net.pool]
    classes = net.classes if net.head == "classify" else 0
    ratio = net.mlp_width / net.width
    if int(ratio * net.width) != net.mlp_width:  # timm rounds the product down
        ratio = (net.mlp_width + 0.5) / net.width
    arguments = {
        "img_size": list(net.image),
        "patch_size": net.patch,
        "in_chans": net.channels,
        "num_classes": classes,
        "global_pool": pool,
        "embed_dim": net.width,
        "depth": net.depth,
        "num_heads": net.heads,
        "mlp_ratio": ratio,
        "qk_norm": net.qk_norm is not None,
        "class_token": bool(net.front),
        "proj_drop_rate": net.dropout,
        "attn_drop_rate": net.attention_dropout,
    }
    return {
        "architecture": "vit_base_patch16_224",
        "num_classes": classes,
        "num_features": net.width,
        "global_pool": pool,
        "model_args": arguments,
        "pretrained_cfg": {
            "num_classes": classes,
            "input_size": [net.channels, *net.image],
            "fixed_input_size": True,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


def unread(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of a config.json which neither this file nor any computation knows."""
    return tuple(sorted(key for key in config if key not in TOP))


def entries(net: models.Model) -> list[Entry]:
    """Every tensor of a net, as timm writes it."""
    table = names.conv("patch_embed.proj", "embed/patches")
    if net.front:
        table.append(Entry("cls_token", "embed/cls", lead=True))
    if net.positions == "learned":
        table.append(Entry("pos_embed", "embed/positions", lead=True))
    for i in range(net.depth):
        theirs, ours = f"blocks.{i}.", f"layer{i}/"
        parts = ("query", "key", "value")
        table += [
            *names.norm(theirs + "norm1", ours + "attention_norm"),
            *fused(theirs + "attn.qkv", *(f"{ours}attention/{p}" for p in parts)),
            *names.linear(theirs + "attn.proj", ours + "attention/out"),
            *names.norm(theirs + "norm2", ours + "mlp_norm"),
            *mlp(theirs, ours),
        ]
        if net.qk_norm:
            table += names.norm(theirs + "attn.q_norm", ours + "attention/query_norm")
            table += names.norm(theirs + "attn.k_norm", ours + "attention/key_norm")
    table += names.norm("fc_norm" if net.norm_last else "norm", "norm")
    if net.pool == "map":
        table += [
            Entry("attn_pool.latent", "pool/query", lead=True),
            *names.linear("attn_pool.q", "pool/attention/query"),
            *fused("attn_pool.kv", "pool/attention/key", "pool/attention/value"),
            *names.linear("attn_pool.proj", "pool/attention/out"),
            *names.norm("attn_pool.norm", "pool/norm"),
            *mlp("attn_pool.", "pool/"),
        ]
    return table + (names.linear("head", "classify") if net.head else [])


def mlp(theirs: str, ours: str) -> list[Entry]:
    """An MLP's two maps."""
    return [
        *names.linear(theirs + "mlp.fc1", ours + "mlp/up"),
        *names.linear(theirs + "mlp.fc2", ours + "mlp/down"),
    ]


def fused(name: str, *paths: str) -> list[Entry]:
    """One torch.nn.Linear that holds several maps of one input."""

    def entry(ours: str, theirs: str, transpose: bool) -> Entry:
        first, *rest = (f"{path}/{ours}" for path in paths)
        return Entry(f"{name}.{theirs}", first, transpose, rest=tuple(rest))

    return [entry("kernel", "weight", True), entry("bias", "bias", False)]


def canonical(net: models.Model) -> Callable[[str], str]:
    """timm has one name for each tensor."""
    return lambda name: name


def other(name: str) -> bool:
    """Does a name belong to the classifier."""
    return name.startswith("head.")


def buffers(name: str, tensor: np.ndarray) -> bool:
    """No file has any."""
    return False


def constants(net: models.Model) -> dict[str, np.ndarray]:
    """Tensors which are no parameters here: fixed positions, as a table."""
    return vit.fixed(net, "pos_embed")


def public(net: models.Model, name: str) -> str:
    """The name for writing."""
    return name
