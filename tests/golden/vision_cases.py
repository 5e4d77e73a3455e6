"""The cases in which vision models are held against transformers and timm.

As `bert_cases`: shared by the ordinary test and the parity test, no torch, and flat
dicts of arrays with the reference's names: input/, output/, act/, grad/, and loss.
"""

import dataclasses
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fmjax.interop import names
from fmjax.layers.patches import patchify


@dataclasses.dataclass(frozen=True)
class Case:
    """kind: a class of transformers, or 'timm'; fields: of its config; golden:
    committed. normalised: MAE's targets are."""

    kind: str
    fields: tuple[tuple[str, Any], ...]
    normalised: bool = True
    golden: bool = False

    def config(self):
        """Keywords of the reference's config."""
        return dict(self.fields)

    @property
    def family(self):
        kinds = {"timm": "vit_timm", "ViTMAEForPreTraining": "mae", "CLIPModel": "clip"}
        return importlib.import_module(f"fmjax.interop.{kinds.get(self.kind, 'vit')}")

    @property
    def width(self):
        config = self.config()
        config = config.get("vision_config", config)
        return config.get("hidden_size") or config["embed_dim"]


def vit(kind="ViTForImageClassification", golden=False, **changes):
    fields = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=3)
    fields |= dict(intermediate_size=20, image_size=8, patch_size=4, num_labels=3)
    return Case(kind, tuple((fields | changes).items()), golden=golden)


def timm(golden=False, **changes):
    fields = dict(embed_dim=12, depth=2, num_heads=3, mlp_ratio=2, img_size=8)
    fields |= dict(patch_size=4, num_classes=3)
    return Case("timm", tuple((fields | changes).items()), golden=golden)


def mae(golden=False, normalised=True, **changes):
    fields = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=3)
    fields |= dict(intermediate_size=20, image_size=12, patch_size=4)
    fields |= dict(decoder_hidden_size=8, decoder_num_hidden_layers=1)
    fields |= dict(decoder_num_attention_heads=2, decoder_intermediate_size=14)
    fields |= dict(norm_pix_loss=normalised)
    return Case(
        "ViTMAEForPreTraining", tuple((fields | changes).items()), normalised, golden
    )


def clip(golden=False, text=(), vision=(), **changes):
    common = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=3)
    common |= dict(intermediate_size=20)
    texts = dict(vocab_size=31, max_position_embeddings=9, eos_token_id=30)
    texts |= dict(bos_token_id=None, pad_token_id=None)
    fields = dict(text_config=common | texts | dict(text), projection_dim=10)
    fields["vision_config"] = common | dict(image_size=8, patch_size=4) | dict(vision)
    return Case("CLIPModel", tuple((fields | changes).items()), golden=golden)


CASES = {
    "vit": vit(golden=True),
    "vit-encoder": vit("ViTModel", image_size=12, layer_norm_eps=1e-5),
    "vit-one-patch": vit(image_size=5, patch_size=5, num_attention_heads=1),
    "vit-grey-tanh": vit(num_channels=1, hidden_act="gelu_new", num_labels=1),
    "vit-oblong": vit(image_size=(8, 12), hidden_size=15, num_attention_heads=5),
    "vit-seven-heads": vit(
        hidden_size=49,
        num_attention_heads=7,
        intermediate_size=101,
        image_size=21,
        patch_size=7,
        num_hidden_layers=3,
    ),
    "vit-wide": vit(
        hidden_size=192,
        intermediate_size=768,
        image_size=32,
        num_hidden_layers=6,
        num_labels=100,
    ),
    "timm": timm(golden=True),
    "timm-mean": timm(global_pool="avg"),
    "timm-mean-no-token": timm(global_pool="avg", class_token=False, in_chans=1),
    "timm-map": timm(global_pool="map", class_token=False, qk_norm=True, golden=True),
    "timm-qk-norm": timm(qk_norm=True, embed_dim=21, num_heads=3, mlp_ratio=1.7),
    "timm-encoder": timm(num_classes=0, img_size=(8, 12)),
    "timm-wide": timm(embed_dim=192, mlp_ratio=4, img_size=32, depth=6, qk_norm=True),
    "mae": mae(golden=True),
    "mae-pixels": mae(normalised=False, mask_ratio=0.5, num_channels=1),
    "mae-one-visible": mae(mask_ratio=0.85, hidden_act="relu"),
    "mae-odd": mae(
        hidden_size=28, num_attention_heads=7, decoder_num_hidden_layers=3, patch_size=3
    ),
    "mae-wide": mae(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=4,
        image_size=32,
        decoder_hidden_size=96,
        decoder_num_hidden_layers=2,
    ),
    "clip": clip(golden=True),
    "clip-old-eos": clip(text=dict(eos_token_id=2)),
    "clip-towers-unlike": clip(
        text=dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=4),
        vision=dict(num_channels=1, image_size=12, intermediate_size=7),
        projection_dim=7,
    ),
    "clip-gelu": clip(text=dict(hidden_act="gelu"), vision=dict(hidden_act="gelu")),
    "clip-wide": clip(
        text=dict(
            hidden_size=128, vocab_size=1001, eos_token_id=1000, num_attention_heads=2
        ),
        vision=dict(hidden_size=192, image_size=32, num_hidden_layers=4),
        projection_dim=96,
    ),
}


def inputs(case, seed=0, batch=3):
    """Random images, and what each objective needs beside them."""
    random, config = np.random.default_rng(seed), case.config()
    vision = config.get("vision_config", config)
    size = vision.get("image_size", vision.get("img_size"))
    height, width = size if isinstance(size, tuple) else (size, size)
    channels = vision.get("num_channels", vision.get("in_chans", 3))
    image = random.normal(size=(batch, height, width, channels)).astype(np.float32)
    out = {"image": image}
    if case.kind == "ViTMAEForPreTraining":
        count = (height // vision["patch_size"]) * (width // vision["patch_size"])
        out["order"] = random.random((batch, count)).argsort(axis=1).astype(np.int32)
    elif case.kind == "CLIPModel":
        text = config["text_config"]
        length, vocab = text["max_position_embeddings"], text["vocab_size"]
        tokens = random.integers(3, vocab - 1, (batch, length), np.int32)
        mask = np.ones(tokens.shape, bool)
        for row, end in enumerate((length - 1, 4, 2)[:batch]):
            tokens[row, end:], mask[row, end + 1 :] = vocab - 1, False
        out |= {"tokens": tokens, "mask": mask}
    elif (
        config.get("num_labels", config.get("num_classes")) and case.kind != "ViTModel"
    ):
        classes = config.get("num_labels", config.get("num_classes"))
        out["label"] = random.integers(0, classes, batch, np.int32)
    else:
        out["weight"] = random.random((batch, case.width), np.float32)
    return {f"input/{name}": value for name, value in out.items()}


def ours(case, net, variables, given):
    """What fmjax computes for `inputs`, under the reference's names."""
    given = {name.removeprefix("input/"): value for name, value in given.items()}
    feed = given["image"] if case.kind != "CLIPModel" else dict(given)
    if case.kind == "ViTMAEForPreTraining":
        feed = {k: given[k] for k in ("image", "order")}

    def outputs_and_loss(outputs):
        if case.kind == "ViTMAEForPreTraining":
            pixels, hidden = outputs
            target = patchify(given["image"], net.patch)
            if case.normalised:
                variance = target.var(-1, ddof=1, keepdims=True)
                target = (target - target.mean(-1, keepdims=True)) / np.sqrt(
                    variance + 1e-6
                )
            error = ((pixels - target) ** 2).mean(-1)
            return [pixels, hidden * 1.0], (error * hidden).sum() / hidden.sum()
        if case.kind == "CLIPModel":
            logits = outputs["scale"] * outputs["image"] @ outputs["text"].T
            entropy = optax.softmax_cross_entropy_with_integer_labels
            labels = jnp.arange(len(logits))
            loss = (entropy(logits, labels) + entropy(logits.T, labels)).mean() / 2
            return [outputs["image"], outputs["text"], logits], loss
        if "label" in given:
            entropy = optax.softmax_cross_entropy_with_integer_labels
            # A single class is a regression to the reference.
            if outputs.shape[1] == 1:
                return [outputs], ((outputs[:, 0] - given["label"]) ** 2).mean()
            return [outputs], entropy(outputs, given["label"]).mean()
        return [outputs], (outputs**2 * given["weight"]).mean()

    @jax.jit
    def everything(variables):
        outputs, seen = net.apply(variables, feed, capture_intermediates=True)

        def loss(params):
            return outputs_and_loss(net.apply({"params": params}, feed))[1]

        value, grads = jax.value_and_grad(loss)(variables["params"])
        return outputs_and_loss(outputs)[0], seen["intermediates"], value, grads

    outputs, seen, value, grads = everything(variables)
    out = {f"output/{i}": array for i, array in enumerate(outputs)} | {"loss": value}
    entries, seen = case.family.entries(net), names.flatten(seen)
    for entry in entries:
        if entry.path.rpartition("/")[2] in ("kernel", "scale"):
            # Each linear map and norm is a module in both; its output is the same.
            modules = [path.rpartition("/")[0] for path in entry.paths]
            found = [seen[f"{module}/__call__"][0] for module in modules]
            if entry.path.endswith(("query_norm/scale", "key_norm/scale")):
                # The reference has heads in front of time.
                found = [array.swapaxes(1, 2) for array in found]
            out[f"act/{entry.name.removesuffix('.weight')}"] = np.concatenate(found, -1)
    flat = {path: np.asarray(grad) for path, grad in names.flatten(grads).items()}
    for name, grad in names.collect(flat, entries).items():
        out[f"grad/{name}"] = grad
    return {name: np.asarray(array) for name, array in out.items()}
