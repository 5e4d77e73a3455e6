"""A backbone and a projection head for contrastive losses (Chen et al. 2020)."""

# B batch, H height, W width, C channels, F features, E joint space

import importlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from fmjax.layers.batch_norm import BatchNorm

# Section 2.1: the head's widths follow R50's. How it begins is the authors' code's.
SIZES: dict[str, dict[str, Any]] = {
    "R50": {
        "backbone": {"name": "resnet", "size": "50", "zero_init": True},
        "width": 2048,
        "joint": 128,
        "head_std": 0.01,
        "last_shift": False,
    }
}


class Model(nn.Module):
    """Features of a backbone through a head of `layers` linear maps, of length 1.

    backbone: `name`, a file of fmjax/models whose `Model` takes images and
        features=True (resnet, vit, ...), `size`, a row of its SIZES, and fields of it.
    norm: batch normalisation after every map of the head, as the authors' code has and
        then needs no biases; ReLU stands between the maps.
    head_std: deviation of the head's kernels at the start; None: by their fan-in.
    last_shift: has the last of these norms a shift too?

    inputs: dict of view1 and view2, floating [B, H, W, C]; or images alone.
    Returns unit vectors [2, B, E] of the views, or [B, E] of images, float32; with
    features=True the backbone's [B, F], of the dict's `image` if it has one, else of
    the first view. Both views go through in one batch, so that batch statistics are
    over all of them.
    Raises ValueError where there is no such backbone, size or field.
    """

    backbone: Mapping[str, Any]
    width: int = 2048
    joint: int = 128
    layers: int = 2
    norm: bool = True
    head_std: float | None = None
    last_shift: bool = True
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(
        self,
        inputs: jax.Array | Mapping[str, jax.Array],
        *,
        train: bool = False,
        features: bool = False,
    ) -> jax.Array:
        paired = isinstance(inputs, Mapping)
        if isinstance(inputs, Mapping):
            images = jnp.concatenate([inputs["view1"], inputs["view2"]])
            if features:
                images = inputs.get("image", inputs["view1"])
        else:
            images = inputs
        net = build(self.backbone, dtype=self.dtype, name="backbone")
        x = net(images, train=train, features=True)
        if features:
            return x
        init = nn.initializers.lecun_normal()
        if self.head_std is not None:
            init = nn.initializers.normal(self.head_std)
        for i in range(self.layers):
            last = i + 1 == self.layers
            x = nn.Dense(
                self.joint if last else self.width,
                use_bias=not self.norm,
                kernel_init=init,
                dtype=self.dtype,
                name=f"project{i}",
            )(x)
            if self.norm:
                shift = self.last_shift or not last
                norm: Any = BatchNorm(use_bias=shift, dtype=self.dtype, name=f"norm{i}")
                x = norm(x, train=train)
            x = x if last else nn.relu(x)
        x = x.astype(jnp.float32)
        # The small number keeps the gradient at zero finite.
        x *= jax.lax.rsqrt((x**2).sum(-1, keepdims=True) + 1e-24)
        return x.reshape(2, -1, self.joint) if paired else x


def build(spec: Mapping[str, Any], **given: Any) -> nn.Module:
    """The model that a spec means: name, size, and fields over those of the size.

    `given` fields are of the model's too. Raises ValueError for a name, size or field
    that there is not.
    """
    fields = dict(spec)
    name = str(fields.pop("name", ""))
    try:
        if not name.isidentifier():
            raise ModuleNotFoundError
        module = importlib.import_module(f"fmjax.models.{name}")
    except ModuleNotFoundError:
        raise ValueError(
            f"backbone {name!r} is no file of fmjax/models: give a name like 'resnet'"
        ) from None
    size = fields.pop("size", None)
    if size is not None:
        if size not in module.SIZES:
            raise ValueError(
                f"backbone {name!r} has no size {size!r} ({', '.join(module.SIZES)})"
            )
        fields = module.SIZES[size] | fields
    if unknown := sorted(set(fields) - set(module.Model.__dataclass_fields__)):
        raise ValueError(f"backbone {name!r} has no field {unknown[0]!r}")
    # Lists come from JSON, where a run is opened again.
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    net: nn.Module = module.Model(**given | fields)
    return net
