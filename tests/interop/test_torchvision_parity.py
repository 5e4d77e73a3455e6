"""Convolutional nets against torch and timm: `pytest -m parity`, and timm."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.interop import torchvision
from tests.golden import convnet_cases as cases

pytestmark = pytest.mark.parity

torch = pytest.importorskip("torch", reason="needs torch and timm")
if importlib.util.find_spec("timm") is None:
    pytest.skip("needs torch and timm", allow_module_level=True)

import safetensors.torch  # noqa: E402  (imports torch)

from tests.golden import convnet_reference as reference  # noqa: E402


def gradients_in_float64(case, net, variables, images, label):
    """By name. In float32 a ReLU near 0 falls on one side here, and there on the other:
    torch's own gradients of MobileNetV2 are then 1 % from its float64's."""
    with jax.enable_x64(True):
        double = lambda array: jnp.asarray(array, jnp.float64)  # noqa: E731
        variables = jax.tree.map(double, variables)
        net = net.clone(dtype="float64")
        found = cases.ours(case, net, variables, double(images), label)
    return {name: array for name, array in found.items() if name.startswith("grad/")}


@pytest.mark.parametrize("name", [*cases.CASES, *cases.FULL])
def test_equals_torch(name, tmp_path):
    case = (cases.CASES | cases.FULL)[name]
    theirs = reference.model(case)
    state = {key: tensor.clone() for key, tensor in theirs.state_dict().items()}
    path = tmp_path / "theirs.pth"
    torch.save(state, path)
    net, variables, report = torchvision.read(path, **dict(case.ours))
    assert report.unknown == report.unused == report.missing == ()

    images, label = cases.inputs(case, net.classes)
    expected, _ = reference.exactly(case, images, label)
    got = cases.ours(case, net, variables, images, label, gradients=False)
    got |= gradients_in_float64(case, net, variables, images, label)
    assert set(expected) == set(got), sorted(set(expected) ^ set(got))
    found = cases.differences(expected, got)
    print(name, cases.assert_within_bars(found, case.tiny))

    torchvision.save(tmp_path / "a.safetensors", net, variables, naming=case.naming)
    back = safetensors.torch.load_file(tmp_path / "a.safetensors")
    assert set(back) == set(state)
    for key, tensor in state.items():
        assert torch.equal(back[key], tensor), key
    again = reference.model(case)
    again.load_state_dict(back)
    again.eval()
    theirs.load_state_dict(state)
    theirs.eval()
    x = torch.tensor(images).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(again(x).detach(), theirs(x).detach())


@pytest.mark.parametrize(
    ("name", "kind"),
    [("resnet101", "101"), ("resnet152", "152"), ("mobilenetv2_140", "1.4")],
)
def test_names_and_shapes_of_the_other_sizes_are_timm_s(name, kind):
    from fmjax.interop.torchvision_names import FAMILIES
    from fmjax.models import mobilenet, resnet

    module = mobilenet if name.startswith("mobile") else resnet
    family = next(f for f in FAMILIES if f.model is module.Model)
    with torch.device("meta"):
        state = reference.timm.create_model(name).state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    net = module.Model(**module.SIZES[kind])
    assert net.clone(**family.fields(shapes)) == net
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), image)
    flat = torchvision.names.flatten(variables)
    zeros = {path: np.zeros(leaf.shape, np.bool_) for path, leaf in flat.items()}
    layers, rest = family.names(net, "timm")
    found = torchvision.names.collect(zeros, torchvision.entries(layers, rest))
    wanted = {k: s for k, s in shapes.items() if not k.endswith("batches_tracked")}
    assert {key: value.shape for key, value in found.items()} == wanted
