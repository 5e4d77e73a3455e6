"""Tensor names of torchvision and timm: ResNet, AlexNet, Inception-v3, MobileNetV2."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fmjax.interop import names
from fmjax.interop.names import Entry
from fmjax.models import alexnet, inception, mobilenet, resnet

Shapes = Mapping[str, tuple[int, ...]]
# Of a convolution with its norm: the convolution's name, the norm's, our module's path.
Layer = tuple[str, str, str]


class Family(NamedTuple):
    """How one family's files are recognised and read."""

    model: Any
    marks: dict[str, tuple[str, ...]]  # whose names -> tensors that only they have
    stems: tuple[str, ...]  # the first convolution's names in files
    path: str  # and its path here
    side: int  # pixels of an image that the net can be traced with
    fields: Callable[[Shapes], dict[str, Any]]  # of the model, as the shapes tell
    names: Callable[[Any, str], tuple[list[Layer], list[Entry]]]  # and the tensors


def _resnet_fields(shapes: Shapes) -> dict[str, Any]:
    depths: list[int] = []
    while f"layer{len(depths) + 1}.0.conv1.weight" in shapes:
        stage, depth = len(depths) + 1, 0
        while f"layer{stage}.{depth}.conv1.weight" in shapes:
            depth += 1
        depths.append(depth)
    width, *_, kernel = shapes["conv1.weight"]
    return {
        "classes": shapes["fc.weight"][0],
        "depths": tuple(depths),
        "width": width,
        "bottleneck": "layer1.0.conv3.weight" in shapes,
        "stem": "large" if kernel == 7 else "small",
        "projection": any(".downsample." in name for name in shapes),
    }


def _resnet_names(net: Any, naming: str) -> tuple[list[Layer], list[Entry]]:
    layers = [("conv1", "bn1", "stem")]
    for i, depth in enumerate(net.depths):
        for j in range(depth):
            theirs, ours = f"layer{i + 1}.{j}", f"stage{i + 1}_block{j}"
            layers += [
                (f"{theirs}.conv{k}", f"{theirs}.bn{k}", f"{ours}/conv{k}")
                for k in range(1, 4 if net.bottleneck else 3)
            ]
            changes = j == 0 and (i > 0 or net.bottleneck)
            if changes and net.projection and net.shortcut:
                down = f"{theirs}.downsample"
                layers.append((f"{down}.0", f"{down}.1", f"{ours}/project"))
    return layers, names.linear("fc", "params/classify")


ALEXNET = {f"conv{i}": f"features.{n}" for i, n in enumerate((0, 3, 6, 8, 10))}


def _alexnet_fields(shapes: Shapes) -> dict[str, Any]:
    return {
        "classes": shapes["classifier.6.weight"][0],
        "channels": tuple(shapes[f"{name}.weight"][0] for name in ALEXNET.values()),
        "dense": shapes["classifier.1.weight"][0],
    }


def _alexnet_names(net: Any, naming: str) -> tuple[list[Layer], list[Entry]]:
    rest = []
    for ours, theirs in ALEXNET.items():
        rest += names.conv(theirs, f"params/{ours}")
    for number, ours in ((1, "dense0"), (4, "dense1"), (6, "classify")):
        rest += names.linear(f"classifier.{number}", f"params/{ours}")
    return [], rest


def _inception_fields(shapes: Shapes) -> dict[str, Any]:
    small = any(name.startswith("Inception_1a.") for name in shapes)
    stem = inception.STEMS["small" if small else "large"]["Conv2d_1a_3x3"]
    return {
        **inception.SIZES["small" if small else "v3"],
        "classes": shapes["fc.weight"][0],
        "auxiliary": "AuxLogits.fc.weight" in shapes,
        "width": shapes["Conv2d_1a_3x3.conv.weight"][0] / stem[0],
    }


def _inception_names(net: Any, naming: str) -> tuple[list[Layer], list[Entry]]:
    stem = inception.STEMS[net.stem]
    paths = [name for name, (channels, *_) in stem.items() if channels]
    for block in net.blocks:
        for branch, inside in inception.BLOCKS[block].items():
            for found, _ in inception.named(branch, inside):
                paths += [f"{block}/{name}" for name in found]
    if net.auxiliary:
        paths += ["AuxLogits/conv0", "AuxLogits/conv1"]
    layers = []
    for path in paths:  # the model has the file's names
        theirs = path.replace("/", ".")
        layers.append((f"{theirs}.conv", f"{theirs}.bn", path))
    rest = names.linear("fc", "params/classify")
    if net.auxiliary:
        rest += names.linear("AuxLogits.fc", "params/AuxLogits/classify")
    return layers, rest


MOBILENET_WIDTHS = (0.25, 0.35, 0.5, 0.75, 1.0, 1.1, 1.2, 1.3, 1.4)


def _mobilenet_fields(shapes: Shapes) -> dict[str, Any]:
    naming = "timm" if "conv_stem.weight" in shapes else "torchvision"
    layers, (head, *_) = _mobilenet_names(mobilenet.Model(), naming)
    found = [
        shapes.get(f"{conv}.weight", (0,))[0]
        for conv, _, path in layers
        if path == "stem" or path.endswith("/project")
    ]
    repeated = [c for _, c, repeats, _ in mobilenet.STAGES for _ in range(repeats)]
    for width in MOBILENET_WIDTHS:
        if found == [mobilenet.scaled(c, width) for c in (32, *repeated)]:
            return {"classes": shapes[head.name][0], "width": width}
    # Shapes that differ will be named, unless the caller gives the width.
    return {"classes": shapes[head.name][0]}


def _mobilenet_names(net: Any, naming: str) -> tuple[list[Layer], list[Entry]]:
    timm = naming == "timm"
    stem = ("conv_stem", "bn1") if timm else ("features.0.0", "features.0.1")
    layers, number = [(*stem, "stem")], 0
    for stage, (expansion, _, repeats, _) in enumerate(net.stages):
        for i in range(repeats):
            number += 1
            if timm:
                base = f"blocks.{stage}.{i}"
                convs = ("conv_pw", "conv_dw", "conv_pwl")
                if expansion == 1:
                    convs = ("", "conv_dw", "conv_pw")
                norms = ("bn1", "bn2", "bn3") if expansion > 1 else ("", "bn1", "bn2")
            else:
                base = f"features.{number}.conv"
                convs, norms = ("0.0", "1.0", "2"), ("0.1", "1.1", "3")
                if expansion == 1:
                    convs, norms = ("", "0.0", "1"), ("", "0.1", "2")
            layers += [
                (f"{base}.{conv}", f"{base}.{norm}", f"block{number}/{ours}")
                for conv, norm, ours in zip(
                    convs, norms, ("expand", "depthwise", "project"), strict=True
                )
                if conv
            ]
    last = f"features.{number + 1}"
    head = ("conv_head", "bn2") if timm else (f"{last}.0", f"{last}.1")
    layers.append((*head, "head"))
    classifier = "classifier" if timm else "classifier.1"
    return layers, names.linear(classifier, "params/classify")


FAMILIES = (
    Family(
        resnet.Model,
        {"torchvision": ("conv1.weight", "layer1.0.conv1.weight", "fc.weight")},
        ("conv1.weight",),
        "stem/conv",
        32,
        _resnet_fields,
        _resnet_names,
    ),
    Family(
        alexnet.Model,
        {
            "torchvision": (
                *(f"{name}.weight" for name in ALEXNET.values()),
                *("classifier.1.weight", "classifier.6.weight"),
            )
        },
        ("features.0.weight",),
        "conv0",
        63,
        _alexnet_fields,
        _alexnet_names,
    ),
    Family(
        inception.Model,
        {"torchvision": ("Conv2d_1a_3x3.conv.weight", "fc.weight")},
        ("Conv2d_1a_3x3.conv.weight",),
        "Conv2d_1a_3x3/conv",
        299,
        _inception_fields,
        _inception_names,
    ),
    Family(
        mobilenet.Model,
        {
            "torchvision": ("features.1.conv.0.0.weight", "classifier.1.weight"),
            "timm": ("blocks.1.0.conv_pwl.weight", "classifier.weight"),
        },
        ("features.0.0.weight", "conv_stem.weight"),
        "stem/conv",
        32,
        _mobilenet_fields,
        _mobilenet_names,
    ),
)
