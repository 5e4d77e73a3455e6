"""One case of a vision model against the live reference, as in `compare`."""

from typing import Any

import jax
import jax.numpy as jnp
import safetensors.torch
import torch

from fmjax import interop
from fmjax.interop import mae, torchvision

from . import bert_cases, convnet_cases, vision_cases
from . import vision_reference as transformers_reference
from .compare import Found, into_own_memory


def transformer(case: vision_cases.Case, folder: Any) -> Found:
    """ViT, MAE and CLIP; everything in the folders theirs/ and ours/ of `folder`.

    bit_equal leaves out two kinds of tensors: the pooler of `ViTModel`, of which there
    is none here, and fixed positions, which are computed in float32 there and in
    float64 here, and have to agree to 1e-6.
    """
    reference = transformers_reference.model(case)
    transformers_reference.save(case, reference, folder / "theirs")
    loaded = interop.read(folder / "theirs")
    assert loaded.report.unknown == loaded.report.settings == ()
    rename = case.family.canonical(loaded.net)
    given = vision_cases.inputs(case)
    expected = transformers_reference.compute(case, reference, given, rename)
    got = vision_cases.ours(case, loaded.net, loaded.variables, given)
    worst = bert_cases.differences(expected, got)

    library = "timm" if case.kind == "timm" else "transformers"
    interop.save(folder / "ours", loaded.net, loaded.variables, library=library)
    again = transformers_reference.load(case, folder / "ours")
    into_own_memory(again)
    theirs, ours = reference.state_dict(), again.state_dict()

    def same(key: str) -> bool:
        if key in mae.POSITIONS:
            return torch.allclose(theirs[key], ours[key], rtol=0, atol=1e-6)
        return key.startswith("pooler.") or torch.equal(theirs[key], ours[key])

    bit_equal = set(theirs) == set(ours) and all(map(same, theirs))
    return Found(worst, reference, again, {}, bit_equal, given, expected)


def gradients_in_float64(case, net, variables, images, label) -> dict[str, Any]:
    """By name. In float32 a ReLU near 0 falls on one side here, and there on the other:
    torch's own gradients of MobileNetV2 are then 1 % from its float64's."""
    with jax.enable_x64(True):
        double = lambda array: jnp.asarray(array, jnp.float64)  # noqa: E731
        variables = jax.tree.map(double, variables)
        net = net.clone(dtype="float64")
        found = convnet_cases.ours(case, net, variables, double(images), label)
    return {name: array for name, array in found.items() if name.startswith("grad/")}


def convnet(case: convnet_cases.Case, folder: Any) -> Found:
    """ResNet, MobileNetV2, Inception-v3 and AlexNet against torch in float64.

    worst: as `convnet_cases.differences`, by name. again: the reference with what fmjax
    wrote.
    """
    from . import convnet_reference  # imports timm, which the others do not need

    reference = convnet_reference.model(case)
    state = {key: tensor.clone() for key, tensor in reference.state_dict().items()}
    torch.save(state, folder / "theirs.pth")
    net, variables, report = torchvision.read(folder / "theirs.pth", **dict(case.ours))
    assert report.unknown == report.unused == report.missing == ()
    images, label = convnet_cases.inputs(case, net.classes)
    expected, _ = convnet_reference.exactly(case, images, label)
    got = convnet_cases.ours(case, net, variables, images, label, gradients=False)
    got |= gradients_in_float64(case, net, variables, images, label)
    assert set(expected) == set(got), sorted(set(expected) ^ set(got))
    worst = convnet_cases.differences(expected, got)

    path = folder / "ours.safetensors"
    torchvision.save(path, net, variables, naming=case.naming)
    back = safetensors.torch.load_file(path)
    bit_equal = set(back) == set(state) and all(
        torch.equal(back[key], tensor) for key, tensor in state.items()
    )
    again = convnet_reference.model(case)
    again.load_state_dict(back)
    reference.load_state_dict(state)
    given = {"images": images, "label": label}
    return Found(worst, reference.eval(), again.eval(), {}, bit_equal, given, expected)
