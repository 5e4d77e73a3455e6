"""Convolutional nets against torch and timm: `pytest -m parity`, and timm."""

import importlib.util

import jax
import numpy as np
import pytest

from fmjax.interop import torchvision
from tests.golden import convnet_cases as cases

pytestmark = pytest.mark.parity

torch = pytest.importorskip("torch", reason="needs torch and timm")
if importlib.util.find_spec("timm") is None:
    pytest.skip("needs torch and timm", allow_module_level=True)

from tests.golden import compare_vision  # noqa: E402  (imports torch)
from tests.golden import convnet_reference as reference  # noqa: E402


@pytest.mark.parametrize("name", [*cases.CASES, *cases.FULL])
def test_equals_torch(name, tmp_path):
    case = (cases.CASES | cases.FULL)[name]
    found = compare_vision.convnet(case, tmp_path)
    print(name, cases.assert_within_bars(found.worst, case.tiny))
    assert found.bit_equal
    x = torch.tensor(found.given["images"]).permute(0, 3, 1, 2)
    with torch.no_grad():
        pair = found.again(x), found.reference(x)
    both = [y if isinstance(y, tuple) else (y,) for y in pair]  # a second head's too
    for one, other in zip(*both, strict=True):
        np.testing.assert_array_equal(one, other)


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
