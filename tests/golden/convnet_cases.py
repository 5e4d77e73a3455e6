"""The cases in which convolutional nets are held against torch's.

As `bert_cases`: shared by the ordinary test and the parity test, no torch, and flat
dicts of arrays with the reference's names: act/ (what each convolution and linear map
gives in evaluation), output/, loss and grad/ (in training, by batch statistics), and
stat/ (running statistics after it). Weights and inputs come from a generator.
"""

import dataclasses
import functools
import importlib
from typing import Any

import jax
import numpy as np
import optax

from fmjax.interop import names, torchvision
from fmjax.interop.torchvision_names import FAMILIES


@dataclasses.dataclass(frozen=True)
class Case:
    """kind: a function of `convnet_reference`; fields: its keywords; ours: those of our
    model that no tensor tells; side: of the square images; golden: committed."""

    kind: str
    fields: tuple[tuple[str, Any], ...] = ()
    ours: tuple[tuple[str, Any], ...] = ()
    side: int = 32
    channels: int = 3
    batch: int = 4
    naming: str = "torchvision"
    golden: bool = False
    tiny: bool = False

    @property
    def model(self):
        return importlib.import_module(f"fmjax.models.{self.family}")

    @property
    def family(self):
        known = {"mobilenet": "mobilenet", "inception": "inception"}
        return known.get(self.kind.split("_")[-1], self.kind.split("_")[-1])


def case(kind, ours=None, golden=False, tiny=True, side=32, batch=4, **fields):
    naming = "timm" if kind == "timm_mobilenet" else "torchvision"
    return Case(
        kind,
        tuple(fields.items()),
        tuple((ours or {}).items()),
        side,
        fields.get("channels", 3),
        batch,
        naming,
        golden,
        tiny,
    )


NARROW = dict(depths=(1, 2), width=4, classes=5)
# Statistics of a few values would divide by next to nothing, and blow up rounding.
MANY = dict(side=97, batch=8)
CASES = {
    "resnet": case("resnet", **NARROW, golden=True),
    "resnet-bottleneck": case(
        "resnet",
        **NARROW | {"depths": (2, 1, 1)},
        bottleneck=True,
        golden=True,
        side=33,
    ),
    "resnet-small": case(
        "resnet",
        dict(projection=False),
        **NARROW,
        small=True,
        shortcut="zeros",
        side=9,
        channels=1,
        golden=True,
    ),
    "resnet-plain": case(
        "resnet", dict(shortcut=False), **NARROW, small=True, shortcut="", side=8
    ),
    "alexnet": case(
        "alexnet", widths=(4, 6, 5, 4, 3), dense=7, classes=5, side=64, golden=True
    ),
    "alexnet-224": case("alexnet", widths=(2, 2, 2, 2, 2), dense=3, side=224, batch=2),
    "mobilenet": case("mobilenet", dict(width=0.1), width=0.1, **MANY, golden=True),
    "mobilenet-timm": case("timm_mobilenet", dict(width=0.25), width=0.25, **MANY),
    "inception": case(
        "timm_inception", dict(width=1 / 16), narrow=16, side=139, batch=8, golden=True
    ),
    "inception-both": case(
        "timm_inception", dict(width=1 / 16), narrow=16, side=299, both=True, batch=8
    ),
}
# The published sizes, images small for speed.
FULL = {
    "resnet-18": case("timm_resnet", name="resnet18", **MANY, tiny=False),
    "resnet-34": case("timm_resnet", name="resnet34", **MANY, tiny=False),
    "resnet-50": case("timm_resnet", name="resnet50", **MANY, tiny=False),
    "inception-v3": case("timm_inception", narrow=1, side=139, batch=8, tiny=False),
    "mobilenet-v2": case("timm_mobilenet", width=1.0, **MANY, tiny=False),
}


def weights(shapes, seed=0):
    """Arrays for a state dict's shapes by name, in order: alive at any depth."""
    random = np.random.default_rng(seed)
    out = {}
    for name, shape in shapes.items():
        noise = random.normal(size=shape)
        if name.endswith("num_batches_tracked"):
            out[name] = np.zeros((), np.int64)
            continue
        if name.endswith("running_var"):
            value = 0.75 + 0.5 * random.uniform(size=shape)
        elif name.endswith("running_mean") or name.endswith("bias"):
            value = 0.1 * noise
        elif len(shape) > 1:
            value = noise * np.sqrt(2 / np.prod(shape[1:]))
        else:
            value = 0.4 + 0.3 * random.uniform(size=shape)
        out[name] = value.astype(np.float32)
    return out


def inputs(case, classes, seed=1):
    """images [B, H, W, C] and labels [B]."""
    random = np.random.default_rng(seed)
    size = (case.batch, case.side, case.side, case.channels)
    label = random.integers(classes, size=case.batch)
    return random.normal(size=size).astype(np.float32), label


def shapes_of(case):
    """The state dict's shapes as our names have them, without torch."""
    family = next(f for f in FAMILIES if f.model is case.model.Model)
    given = dict(case.fields)
    fields = {k: given[k] for k in ("depths", "width", "bottleneck") if k in given}
    fields |= {"classes": given.get("classes", 10)} | dict(case.ours)
    if case.family == "resnet":
        fields |= {"stem": "small" if given.get("small") else "large"}
    if case.family == "alexnet":
        fields = dict(classes=fields["classes"], channels=given["widths"])
        fields["dense"] = given["dense"]
    if case.family == "inception":
        fields["auxiliary"] = bool(given.get("both"))
    net = family.model(**fields)
    side = max(case.side, family.side)
    image = jax.ShapeDtypeStruct((1, side, side, case.channels), np.float32)
    variables = names.flatten(jax.eval_shape(net.init, jax.random.key(0), image))
    layers, rest = family.names(net, case.naming)
    zeros = {path: np.zeros(leaf.shape, np.bool_) for path, leaf in variables.items()}
    tensors = names.collect(zeros, torchvision.entries(layers, rest))
    return net, {name: tensors[name].shape for name in sorted(tensors)}


def ours(case, net, variables, images, label, gradients=True):
    """What fmjax computes, under the reference's names; in the variables' dtype."""
    family = next(f for f in FAMILIES if f.model is type(net))
    net = net.clone(dropout=0.0) if hasattr(net, "dropout") else net
    both = dict(case.fields).get("both", False)
    extra = {"both": True} if both else {}
    layers, rest = family.names(net, case.naming)

    def loss(params):
        outputs, changed = net.apply(
            variables | {"params": params},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
            **extra,
        )
        entropy = functools.partial(
            optax.softmax_cross_entropy_with_integer_labels, labels=label
        )
        outputs = outputs if both else (outputs,)
        total = sum(
            entropy(logits).mean() * weight
            for logits, weight in zip(outputs, (1.0, 0.4), strict=False)
        )
        return total, changed.get("batch_stats", {})

    @jax.jit
    def everything(variables):
        outputs, seen = net.apply(
            variables, images, capture_intermediates=True, **extra
        )
        run = jax.value_and_grad(loss, has_aux=True) if gradients else loss
        found = run(variables["params"])
        (value, stats), grads = found if gradients else (found, {})
        return outputs, seen["intermediates"], value, stats, grads

    outputs, seen, value, stats, grads = everything(variables)
    outputs = outputs if both else (outputs,)
    out = {f"output/{i}": x for i, x in enumerate(outputs)} | {"loss": value}
    seen = names.flatten(seen)
    for conv, _, path in layers:
        out[f"act/{conv}"] = seen[f"{path}/conv/__call__"][0]
    for entry in rest:
        if entry.name.endswith(".weight"):
            path = entry.path.removeprefix("params/").removesuffix("/kernel")
            out[f"act/{entry.name.removesuffix('.weight')}"] = seen[f"{path}/__call__"][
                0
            ]
    flat = names.flatten({"params": grads, "batch_stats": stats})
    flat = {path: np.asarray(leaf) for path, leaf in flat.items()}
    for entry in torchvision.entries(layers, rest):
        if entry.path not in flat:
            continue
        kind = "grad" if entry.path.startswith("params/") else "stat"
        ((name, found),) = names.collect(flat, [entry]).items()
        out[f"{kind}/{name}"] = found
    return {name: np.asarray(array) for name, array in out.items()}


def differences(expected, got):
    """{name: difference}, and the worst cosine under 'cosine'.

    act, output, stat: absolute. loss: relative. grad: relative to the largest entry of
    that parameter's gradient, or to a millionth of the largest of all.
    """
    found = {"cosine": 1.0}
    largest = max(
        (float(np.abs(v).max()) for k, v in expected.items() if k[:5] == "grad/"),
        default=1.0,
    )
    for name, want in expected.items():
        have, kind = got[name], name.partition("/")[0]
        assert have.shape == want.shape, (name, have.shape, want.shape)
        difference = float(np.abs(have - want).max())
        if kind == "loss":
            difference /= abs(float(want))
        if kind == "grad":
            difference /= max(float(np.abs(want).max()), largest / 1e6)
        if kind in ("act", "output"):
            a, b = have.ravel().astype(float), want.ravel().astype(float)
            if size := np.sqrt((a @ a) * (b @ b)):  # zeros have no direction
                found["cosine"] = min(found["cosine"], float(a @ b / size))
        found[name] = difference
    return found


def assert_within_bars(found, tiny):
    """The project's bars for parity, stricter for tiny nets; the worst by kind."""
    assert found["cosine"] >= 0.999999
    worst = {}
    for name, difference in found.items():
        kind = name.partition("/")[0]
        bar = {"grad": 1e-4, "loss": 1e-5, "cosine": 1}.get(
            kind, 1e-5 if tiny else 1e-4
        )
        assert difference <= bar, (name, difference)
        worst[kind] = max(worst.get(kind, 0.0), difference)
    return worst


def kept(expected, unsteady):
    """What a committed file keeps: outputs, loss, and a part of the small arrays.

    expected: torch's in float64; what its float32 gets wrong (`unsteady`) is left out.
    """
    small = sorted(
        name
        for name, array in expected.items()
        if array.size <= 64 and unsteady[name] <= 3e-6
    )
    names = {*small[::3], *(name for name in expected if name[:4] in ("outp", "loss"))}
    return {name: expected[name].astype(np.float32) for name in sorted(names)}
