"""What a trained net of images looks at: its first filters and its attention.

Both are found while the net runs once, by what its modules are and not by their names,
so that every family has them: the kernel of the first convolution, or of the linear map
of patches, and the attention of each tower that begins with patches.
"""

# B batch, H heads, N patches, E tokens in front of them, T = E + N; h, w, C, F of a
# kernel: height, width, channels of the image, filters

from __future__ import annotations

import dataclasses
import functools
import inspect
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from fmjax import workdir
from fmjax.config import ConfigError
from fmjax.layers.attend import weights
from fmjax.layers.attention import PREFIX_KEY, Attention
from fmjax.layers.patches import Embed, grid
from fmjax.reporting import page, pictures
from fmjax.transforms import Transformed, plain

SHOWN = 64  # filters


class Seen(NamedTuple):
    """What `look` finds.

    name, filters: path of the first layer that has a kernel [h, w, C, F], and it; None
    where there is none. attention: for each tower of patches, by its path, what each of
    its layers attends to, float32 [layers, B, H, rows, columns].
    """

    name: str | None
    filters: np.ndarray | None
    attention: dict[str, np.ndarray]


def look(net: Any, variables: Mapping[str, Any], inputs: Any) -> Seen:
    """Runs a net, transformed or not, on inputs as it takes them, and watches.

    Attention is that of the class token where it is what comes out, else the mean over
    patches; to patches alone, so that a map adds up to 1 or less. A net that can return
    features does: a masked autoencoder's encoder then sees all patches. A tower with a
    prefix before its patches has no map.
    """
    net, towers = _unrolled(net), {}
    firsts: list[tuple[tuple, jax.Array]] = []
    takes = inspect.signature(type(plain(net)).__call__).parameters
    asked = {"features": True} if "features" in takes else {}
    held: dict[tuple, dict[str, jax.Array]] = {}

    def watch(found: dict, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = call(*args, **kwargs)
        module, path = context.module, context.module.path
        if context.method_name != "__call__":
            return out
        if isinstance(module, Embed):
            shape = grid(module.image, module.patch)
            towers[path[:-1]] = (module.front, *shape)
        if isinstance(module.parent, Attention):
            # A norm of queries comes after them, and its result takes their place.
            name = str(module.name).removesuffix("_norm")
            held.setdefault(path[:-1], {})[name] = out
        if isinstance(module, Attention) and not module.has_variable(
            "params", PREFIX_KEY
        ):
            given = {k: kwargs.get(k) for k in ("mask", "bias")}
            given |= {"causal": kwargs.get("causal", False), "scale": module.scale}
            _note(found, path, held.pop(path, {}), module, given)
        kernel = module.variables.get("params", {}).get("kernel")
        if getattr(kernel, "ndim", 0) == 4:
            firsts.append((path, kernel))
        return out

    def run(variables: Any, inputs: Any) -> Any:
        found: dict[tuple, jax.Array] = {}
        with nn.intercept_methods(functools.partial(watch, found)):
            net.apply(variables, inputs, train=False, **asked)
        kernel = {"/".join(path): kernel for path, kernel in firsts[:1]}
        return kernel, {"/".join(path): probs for path, probs in found.items()}

    kernel, found = jax.device_get(jax.jit(run)(dict(variables), inputs))
    attention = {}
    for path, (front, rows, columns) in towers.items():
        own = "/".join((*path, ""))
        size = front + rows * columns
        by_token = front and getattr(plain(net), "pool", "cls") == "cls"
        maps = [
            (probs[:, :, 0] if by_token else probs[:, :, front:].mean(2))[..., front:]
            for name, probs in found.items()
            if name.startswith(own) and probs.shape[2:] == (size, size)
        ]
        if maps:
            stacked = np.stack(maps)
            shape = (*stacked.shape[:-1], rows, columns)
            attention["/".join(path)] = stacked.reshape(shape)
    name = next(iter(kernel), None)
    return Seen(name, None if name is None else np.asarray(kernel[name]), attention)


def section(
    folder: str | pathlib.Path, heading: str = "What the net looks at", count: int = 4
) -> page.Section | None:
    """Pictures of the first filters and the last attention of a run of images.

    count: images of its first evaluation split, or of training where there is none.
    None where there is nothing to draw; where its weights or its data are not there,
    the section says so.
    """
    run = workdir.open_run(folder)
    try:
        splits = (run.settings["evaluate"] or {}).get("splits") or ("train",)
        rows = run.parts.data(splits[0]).rows
        examples = [
            run.parts.inputs(rows[i], None)["inputs"]
            for i in range(min(count, len(rows)))
        ]
        params, extras = run.weights({"inputs": examples[0]})
    except (ConfigError, OSError, ValueError) as error:
        return page.section(heading, page.text(f"Not drawn: {error}"))
    batch = jax.tree.map(lambda *x: np.stack(x), *examples)
    seen = look(run.parts.net, {"params": params, **extras}, batch)
    blocks = blocks_of(seen, images_of(batch))
    return page.section(heading, *blocks) if blocks else None


def blocks_of(seen: Seen, images: np.ndarray | None) -> list[page.Block]:
    """Figures of what was seen; images: [B, h, w, C] that the net was given."""
    blocks = []
    if seen.filters is not None and seen.filters.shape[2] in (1, 3):
        drawn = pictures.filters(seen.filters[..., :SHOWN])
        across = 16 if len(drawn) > 32 else 8
        drawn += [np.full_like(drawn[0], 255)] * (-len(drawn) % across)
        lines = [drawn[i : i + across] for i in range(0, len(drawn), across)]
        shape = "x".join(map(str, seen.filters.shape[:2]))
        caption = (
            f"Filters of {seen.name}, {shape}, the first {SHOWN} of "
            f"{seen.filters.shape[3]}: grey is zero, a filter's largest weight is "
            "white or black"
        )
        scale = max(1, 24 // len(drawn[0]))
        blocks.append(page.figure(pictures.grid(lines, scale=scale), caption))
    for path, maps in seen.attention.items():
        if images is None:
            continue
        last = maps[-1]
        lines = [
            [image, pictures.heat(image, heads.mean(0))]
            + [pictures.heat(image, head) for head in heads[:8]]
            for image, heads in zip(pictures.stretched(images), last, strict=True)
        ]
        caption = (
            f"Attention of the last of {len(maps)} layers"
            f"{f' of {path}' if path else ''}: an image, the mean of "
            f"{last.shape[1]} heads, and heads; the brighter, the more, each relative "
            "to its own largest"
        )
        blocks.append(page.figure(pictures.grid(lines), caption))
    return blocks


def _note(
    found: dict, path: tuple, held: dict, module: Attention, given: dict[str, Any]
) -> None:
    """Keeps an attention's probabilities, if its queries and keys were made in it."""
    if not {"query", "key"} <= set(held):
        return  # its keys are a cache's
    groups = module.kv_heads or module.heads
    split = lambda x, heads: x.reshape(*x.shape[:2], heads, -1)  # noqa: E731
    query, key = split(held["query"], module.heads), split(held["key"], groups)
    found[path] = weights(query, key, **given)


def _unrolled(net: Any) -> Any:
    """The net with its blocks one after the other, so that each can be watched."""
    if isinstance(net, Transformed):
        return dataclasses.replace(net, net=_unrolled(net.net))
    rolled = {"scan": False, "remat": None}
    return net.clone(**{k: v for k, v in rolled.items() if hasattr(net, k)})


def images_of(inputs: Any) -> np.ndarray | None:
    """The images among a net's inputs, one view where there are several."""
    if isinstance(inputs, Mapping):
        return inputs.get("image")
    return inputs[:, 0] if inputs.ndim == 5 else inputs
