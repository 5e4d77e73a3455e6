"""Masked autoencoders in Hugging Face's format (transformers' ViTMAEForPreTraining)."""

from collections.abc import Callable, Mapping, Set
from typing import Any

import numpy as np

from fmjax.interop import names, settings, vit
from fmjax.interop.names import Entry
from fmjax.interop.settings import integer, number
from fmjax.layers import patches
from fmjax.models import mae

Model = mae.Model
# Keys that no shape shows, and that change the outputs.
UNSEEN = (*vit.UNSEEN, "decoder_num_attention_heads")

INPUTS = vit.INPUTS
ARCHITECTURES: dict[str, str | None] = {"ViTMAEForPreTraining": None}

# What transformers takes where config.json is silent (ViTMAEConfig's signature).
DEFAULTS: dict[str, Any] = vit.DEFAULTS | {
    "decoder_hidden_size": 512,
    "decoder_num_hidden_layers": 8,
    "decoder_num_attention_heads": 16,
    "decoder_intermediate_size": 2048,
    "mask_ratio": 0.75,
}
REQUIRED = vit.REQUIRED
UNUSED = ("norm_pix_loss",)  # the objective's business, not the net's

POSITIONS = ("vit.embeddings.position_embeddings", "decoder.decoder_pos_embed")


def fields(
    config: Mapping[str, Any],
    head: str | None,
    classes: int | None,
    found: Set[str] = frozenset(),
) -> dict[str, Any]:
    """Fields of `models.mae.Model` for a config.json, checked as hostile input."""
    settings.headless(head, classes)
    settings.require(config, REQUIRED)
    c = DEFAULTS | dict(config)
    return vit.encoder(c) | {
        "decoder_width": integer(c, "decoder_hidden_size", 1_000_000),
        "decoder_depth": integer(c, "decoder_num_hidden_layers", 1_000),
        "decoder_heads": integer(c, "decoder_num_attention_heads", 10_000),
        "decoder_mlp_width": integer(c, "decoder_intermediate_size", 10_000_000),
        "masked": number(c, "mask_ratio", below=1),
    }


def config(net: mae.Model) -> dict[str, Any]:
    """config.json for a net: the inverse of `fields`."""
    return {
        "architectures": ["ViTMAEForPreTraining"],
        "model_type": "vit_mae",
        **vit.written(net),
        "decoder_hidden_size": net.decoder_width,
        "decoder_num_hidden_layers": net.decoder_depth,
        "decoder_num_attention_heads": net.decoder_heads,
        "decoder_intermediate_size": net.decoder_mlp_width,
        "mask_ratio": net.masked,
        "qkv_bias": True,
        "initializer_range": 0.02,
        "dtype": "float32",
    }


def unread(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of a config.json which neither this file nor any computation knows."""
    known = {*DEFAULTS, *REQUIRED, *UNUSED, *settings.HARMLESS}
    return tuple(sorted(key for key in config if key not in known))


def entries(net: mae.Model) -> list[Entry]:
    """Every tensor of a net, as transformers writes it."""
    d = "decoder.decoder_"
    return [
        *vit.embedding("vit.embeddings.", learned=False),
        *(e for i in range(net.depth) for e in vit.layer(f"vit.encoder.layer.{i}.", i)),
        *names.norm("vit.layernorm", "norm"),
        *names.linear(d + "embed", "decoder_embed"),
        Entry("decoder.mask_token", "mask_token", lead=True),
        *(
            entry
            for i in range(net.decoder_depth)
            for entry in vit.layer(f"{d}encoder.layer.{i}.", i, "decoder")
        ),
        *names.norm(d + "norm", "decoder_norm"),
        *names.linear(d + "pred", "decoder_pred"),
    ]


def canonical(net: mae.Model) -> Callable[[str], str]:
    """Names as files have them, to names as in `entries`.

    The published files have `decoder.decoder_layers`, version 5 of transformers writes
    `decoder.decoder_encoder.layer`.
    """

    def rename(name: str) -> str:
        for prefix, known in (
            ("decoder.decoder_layers.", "decoder.decoder_encoder.layer."),
            ("vit.layers.", "vit.encoder.layer."),
        ):
            if name.startswith(prefix):
                name = known + name.removeprefix(prefix)
                for new, old in vit.LATER:
                    name = name.replace(f".{new}.", f".{old}.")
        return name

    return rename


def other(name: str) -> bool:
    """There are no other heads."""
    return False


def buffers(name: str, tensor: np.ndarray) -> bool:
    """Fixed positions; raises ValueError where they are others."""
    if name not in POSITIONS:
        return False
    side = int(max(tensor.shape[-2] - 1, 0) ** 0.5)
    if side**2 + 1 != tensor.shape[-2]:
        raise ValueError(f"{name} is {tensor.shape}: no square grid and a class token")
    expected = patches.sincos((side, side), tensor.shape[-1], front=1)
    # Half-precision files, and frequencies computed in float32.
    if not np.allclose(tensor.astype(np.float32)[0], expected, atol=2e-3):
        raise ValueError(f"{name} is no sin-cos table: other positions are refused")
    return True


def constants(net: mae.Model) -> dict[str, np.ndarray]:
    """The fixed positions, which the reference keeps among its tensors.

    Raises ValueError for an image of which it would have others.
    """
    grid, widths = patches.grid(net.image, net.patch), (net.width, net.decoder_width)
    if grid[0] != grid[1]:
        raise ValueError(
            f"transformers' MAE has positions of square images only, and this net's "
            f"are of {grid[0]}x{grid[1]} patches"
        )
    return {
        name: patches.sincos(grid, width, front=1)[None]
        for name, width in zip(POSITIONS, widths, strict=True)
    }


def public(net: mae.Model, name: str) -> str:
    """The name for writing."""
    return name
