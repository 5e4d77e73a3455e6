"""ViT, MAE and CLIP against transformers and timm: `pytest -m parity`."""

import importlib.util

import numpy as np
import pytest

from fmjax import interop
from fmjax.interop import mae
from tests.golden import bert_cases, vision_cases

pytestmark = pytest.mark.parity

needs = "needs the parity extra: pip install 'fmjax[parity]'"
torch = pytest.importorskip("torch", reason=needs)
transformers = pytest.importorskip("transformers", reason=needs)

from tests.golden import vision_reference  # noqa: E402  (imports torch)

no_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None,
    reason="needs timm: pip install --no-deps timm==1.0.31 huggingface_hub pyyaml",
)


def cases():
    for name, case in vision_cases.CASES.items():
        yield pytest.param(name, marks=[no_timm] if case.kind == "timm" else [])


@pytest.mark.parametrize("name", [*cases()])
def test_equals_the_reference(name, tmp_path):
    case = vision_cases.CASES[name]
    reference = vision_reference.model(case)
    vision_reference.save(case, reference, tmp_path / "theirs")
    loaded = interop.read(tmp_path / "theirs")
    assert loaded.report.unknown == loaded.report.settings == ()
    net, variables = loaded.net, loaded.variables
    rename = case.family.canonical(net)

    given = vision_cases.inputs(case)
    expected = vision_reference.compute(case, reference, given, rename)
    got = vision_cases.ours(case, net, variables, given)
    worst = bert_cases.differences(expected, got)
    print(name, worst)
    bert_cases.assert_within_bars(case.width, worst)

    library = "timm" if case.kind == "timm" else "transformers"
    interop.save(tmp_path / "ours", net, variables, library=library)
    again = vision_reference.load(case, tmp_path / "ours")
    theirs, ours = reference.state_dict(), again.state_dict()
    assert set(theirs) == set(ours)
    for key, tensor in theirs.items():
        # ViTModel has a pooler, of which there is none here. Fixed positions are
        # computed in float32 there and in float64 here.
        if key in mae.POSITIONS:
            assert torch.allclose(tensor, ours[key], rtol=0, atol=1e-6), key
        elif not key.startswith("pooler."):
            assert torch.equal(tensor, ours[key]), key
    if case.kind == "ViTMAEForPreTraining":  # the objective's, which no net knows
        again.config.norm_pix_loss = case.normalised
    computed = vision_reference.compute(case, again, given, rename)
    # What is read from a file has gradients for fixed positions, too.
    fixed = {f"grad/{name}" for name in mae.POSITIONS}
    tolerance = 0 if case.kind != "ViTMAEForPreTraining" else 1e-5
    for key, value in computed.items():
        if key not in fixed - set(expected):
            np.testing.assert_allclose(
                value, expected[key], rtol=tolerance, atol=tolerance, err_msg=key
            )
