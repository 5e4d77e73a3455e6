"""From a config to an optax transformation and a learning-rate schedule.

What applies to which parameter is said by regular expressions over the parameter's
path, such as 'layer3/attention/query/kernel' (`re.search`; the first match wins).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fmjax import bertadam, config, copies, muon, trees

SCHEDULES = ("constant", "linear", "cosine", "exponential", "rsqrt", "step", "wsd")
NO_DECAY = r"(^|/)(bias|scale)$"


def curve(
    total: int,
    *,
    lr: float,
    schedule: str = "constant",
    warmup: int | str = 0,
    final: float = 0.0,
    cooldown: int | str = "20%",
    drops: Sequence[int | str] = (),
) -> Callable:
    """Learning rate by step: linear warm-up from 0, then the named curve.

    linear, cosine and exponential end at final * lr; step is a tenth of itself from
    each of `drops` on (He et al. 2016); rsqrt is lr * sqrt(warmup / step) (Vaswani et
    al. 2017, eq. 3, with its peak named by `lr`); wsd stays at lr and falls linearly to
    final * lr over the last `cooldown` (Hu et al. 2024). Counted from 0, step i of a
    warm-up of w has lr * (i + 1) / (w + 1), and curves begin at step w. `step` may be a
    host int, which keeps the arithmetic on the host, or an array.
    """
    if schedule not in SCHEDULES:
        known = config.suggest(str(schedule), SCHEDULES)
        raise config.ConfigError(f"no schedule named {schedule!r}; {known}")
    start = config.duration(warmup, "optim.warmup", total=total)
    fall = config.duration(cooldown, "optim.cooldown", total=total)
    falls = [config.duration(drop, "optim.drops", total=total) for drop in drops]
    if (schedule == "step") != bool(falls) or (schedule == "exponential" and not final):
        raise config.ConfigError(
            f"schedule={schedule!r}, drops={tuple(drops)}, final={final}: 'step' and "
            "no other has optim.drops, as ('50%', '75%'); 'exponential' needs a final"
        )
    if start > total:
        raise config.ConfigError(f"optim.warmup is {start} of {total} steps; lower it")

    def rate(step):
        xp = jnp if isinstance(step, jax.Array) else np
        rise = xp.minimum(1.0, (step + 1) / (start + 1))
        done = xp.clip((step - start) / max(total - start, 1), 0.0, 1.0)
        if schedule == "constant":
            factor = 1.0
        elif schedule == "linear":
            factor = 1 - (1 - final) * done
        elif schedule == "cosine":
            factor = final + (1 - final) * (1 + xp.cos(np.pi * done)) / 2
        elif schedule == "exponential":
            factor = final**done
        elif schedule == "step":
            factor = 0.1 ** sum(xp.where(step >= at, 1.0, 0.0) for at in falls)
        elif schedule == "rsqrt":
            factor = xp.sqrt(max(start, 1) / xp.maximum(step, max(start, 1)))
        else:
            left = xp.clip((total - step) / max(fall, 1), 0.0, 1.0)
            factor = final + (1 - final) * left
        return lr * rise * factor

    return rate


def layer_factor(params: Any, decay: float, pattern: str) -> Callable[[str], float]:
    """Layer-wise learning-rate decay (Howard & Ruder 2018; Clark et al. 2020).

    `pattern`'s first group is the layer's number. What comes after the layers (a last
    norm, a head) has factor 1, layer i has decay ** (last + 1 - i), and parameters with
    'embed' in their path one power more than layer 0. (Clark et al.'s code has a power
    more everywhere below the head.)
    """
    numbers = [re.search(pattern, path) for path in trees.paths(params)]
    layers = [int(match[1]) for match in numbers if match]
    if not layers:
        raise config.ConfigError(
            f"optim.layer_pattern={pattern!r} matches no parameter"
        )

    def factor(path: str) -> float:
        match = re.search(pattern, path)
        if match:
            return decay ** (max(layers) + 1 - int(match[1]))
        return decay ** (max(layers) + 2) if "embed" in path else 1.0

    return factor


def group(
    params: Any,
    total: int,
    begin: int = 0,
    *,
    name: str = "adamw",
    lr: float = 1e-3,
    schedule: str = "constant",
    warmup: int | str = 0,
    final: float = 0.0,
    cooldown: int | str = "20%",
    drops: Sequence[int | str] = (),
    weight_decay: float = 0.0,
    no_decay: str = NO_DECAY,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    momentum: float = 0.9,
    nesterov: bool = False,
    rms: float | None = None,
    layer_decay: float | None = None,
    layer_pattern: str = r"layer(\d+)/",
) -> tuple[optax.GradientTransformation, Callable]:
    """(transformation, learning rate by step) of one group of parameters.

    adamw: Loshchilov & Hutter 2019, adam: Kingma & Ba 2015, bertadam: adamw as Devlin
    et al. 2018 have it (fmjax/bertadam.py), sgd: with momentum and L2 decay, rmsprop:
    likewise (Tieleman & Hinton 2012; b2 is its decay; as TensorFlow's, its mean square
    begins at 1 and eps is within the root), lamb: You et al. 2020, as in its algorithm
    2: biases and scales have a trust ratio too, which the authors' code spares, lars:
    You et al. 2017, adafactor: Shazeer & Stern 2018, whose steps are relative to each
    parameter's scale and cut at a root mean square of 1 (its decay is not scaled by the
    rate), lion: Chen et al. 2023 (whose b2 is 0.99: set it), muon: Jordan et al. 2024
    (fmjax/muon.py says for what, and has `rms`).
    `no_decay` names what is never decayed. begin: the run's step at which the
    transformation's own count is 0.
    """
    at = curve(
        total,
        lr=lr,
        schedule=schedule,
        warmup=warmup,
        final=final,
        cooldown=cooldown,
        drops=drops,
    )
    rate = (lambda count: at(count + begin)) if begin else at
    decayed = lambda tree: trees.by_path(lambda p: not re.search(no_decay, p), tree)  # noqa: E731
    wd, kept = weight_decay, momentum or None
    table: dict[str, Callable[[], optax.GradientTransformation]] = {
        "adamw": lambda: optax.adamw(rate, b1, b2, eps, weight_decay=wd, mask=decayed),
        "adam": lambda: optax.adam(rate, b1, b2, eps),
        "bertadam": lambda: bertadam.make(rate, b1, b2, eps, wd, decayed),
        "sgd": lambda: optax.chain(
            optax.add_decayed_weights(wd, decayed), optax.sgd(rate, kept, nesterov)
        ),
        "rmsprop": lambda: optax.chain(
            optax.add_decayed_weights(wd, decayed),
            optax.rmsprop(rate, b2, eps, 1.0, momentum=kept, nesterov=nesterov),
        ),
        "lamb": lambda: optax.lamb(rate, b1, b2, eps, weight_decay=wd, mask=decayed),
        "lars": lambda: optax.lars(rate, wd, decayed, 1e-3, 0.0, decayed, momentum),
        "adafactor": lambda: optax.adafactor(
            rate, weight_decay_rate=wd or None, weight_decay_mask=decayed
        ),
        "lion": lambda: optax.lion(rate, b1, b2, weight_decay=wd, mask=decayed),
        "muon": lambda: muon.make(rate, wd, decayed, b1, b2, rms),
    }
    if name not in table:
        known = config.suggest(str(name), table)
        raise config.ConfigError(f"no optimizer named {name!r}; {known}")
    if name == "adam" and wd:
        raise config.ConfigError("adam has no weight decay; set optim.name=adamw")
    tx = table[name]()
    if layer_decay is not None:
        factor = layer_factor(params, layer_decay, layer_pattern)
        scale = lambda u, _: jax.tree.map(jnp.multiply, u, trees.by_path(factor, u))  # noqa: E731
        tx = optax.chain(tx, optax.stateless(scale))
    return tx, rate


def trained(params: Any, freeze: str | None, train: str | None) -> Any:
    """A tree of bools, which parameters are trained, or None: all of them.

    Raises ConfigError where both patterns are given, or one is idle.
    """
    if freeze and train:
        raise config.ConfigError("set optim.freeze or optim.train, not both")
    if train:
        return trees.matches(train, params, "optim.train")
    if freeze:
        found = trees.matches(freeze, params, "optim.freeze")
        return jax.tree.map(lambda match: not match, found)
    return None


def _budget(
    tx: optax.GradientTransformation, params: Any, total: int, settings: Mapping
) -> optax.GradientTransformation:
    """AdaLoRA's budget around an optimizer."""
    from fmjax.transforms import adalora

    steps = {
        key: config.duration(value, f"optim.adalora.{key}", total=total)
        for key, value in settings.items()
        if key in ("start", "finish", "every")
    }
    bound = config.bind("optim.adalora", adalora.budget, {**settings, **steps})
    with config.blaming("optim.adalora"):
        tx = bound(tx, total)
        jax.eval_shape(tx.init, params)
    return tx


def make(
    params: Any,
    total: int,
    duration: Callable | None = None,
    /,
    *,
    clip: float | None = None,
    freeze: str | None = None,
    train: str | None = None,
    unfreeze: Sequence[tuple[str, int | str]] = (),
    adalora: Mapping | None = None,
    groups: Sequence[tuple[str, Mapping]] = (),
    ema: float | None = None,
    params_dtype: str | None = None,
    masters: bool = True,
    **settings,
) -> tuple[Any, Callable, Any]:
    """(transformation, learning rate by step, tree of trainable bools or None).

    params: the parameters or their shapes. total: steps of the whole run, of which
    percentages are taken. `settings` are those of `group`; `groups` gives parameters
    some of their own: (('head', {'lr': 1e-2}), ...). What `freeze` matches, or `train`
    does not, has no optimizer state and no gradient. `unfreeze` lets parameters wait:
    (('embed|layer0/', '2 epochs'), ('layer1/', '1 epoch')), of which the first match
    wins (fmjax/unfreeze.py); duration(text, where) gives it steps. `adalora`: the
    fields of `transforms.adalora.budget`, durations among them. `clip` is by the global
    norm of the trained parameters' gradient, before anything else. `ema` keeps averaged
    parameters, which evaluation then uses. params_dtype: 'bfloat16' keeps parameters in
    half the room, with float32 `masters` in the optimizer's state, or without them by
    stochastic rounding (fmjax/copies.py). Raises ConfigError for an unknown setting or
    an idle pattern.
    """
    from fmjax import unfreeze as unfreezing

    bound = {"": config.bind("optim", group, settings)}
    base, rate = bound[""](params, total)
    transforms = {"": base}
    for pattern, own in groups:
        trees.matches(pattern, params, "optim.groups")
        where = f"optim.groups {pattern}"
        bound[pattern] = config.bind(where, group, {**settings, **own})
        transforms[pattern], _ = bound[pattern](params, total)
    trainable = trained(params, freeze, train)
    if trainable is not None:
        transforms["frozen"] = optax.set_to_zero()
    learns = dict(zip(trees.paths(params), jax.tree.leaves(trainable), strict=False))
    duration = duration or functools.partial(config.duration, total=total)
    begins = unfreezing.starts(params, unfreeze, duration)

    def label(path: str) -> str:
        if not learns.get(path, True):
            return "frozen"
        own = next((p for p, _ in groups if re.search(p, path)), "")
        if path not in begins:
            return own
        at = begins[path]
        late = f"{own} from step {at}"
        if late not in transforms:
            transforms[late] = unfreezing.held(bound[own](params, total, at)[0], at)
        return late

    tx, labels = base, trees.by_path(label, params)
    if len(transforms) > 1:
        tx = optax.partition(transforms, labels)
    if adalora:
        tx = _budget(tx, params, total, adalora)
    if clip:
        tx = optax.chain(optax.clip_by_global_norm(clip), tx)
    if begins:
        tx = optax.chain(unfreezing.waiting(begins), tx)
    if ema:
        tx = optax.chain(tx, copies.average(ema))
    if params_dtype not in (None, "bfloat16") or not (params_dtype or masters):
        raise config.ConfigError(
            f"optim.params_dtype={params_dtype!r}, optim.masters={masters}: set "
            "'bfloat16', or None, which is float32 and needs no masters"
        )
    if params_dtype:
        return copies.narrow(tx, masters, trainable), rate, trainable
    return tx, rate, trainable
