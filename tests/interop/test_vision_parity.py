"""ViT, MAE and CLIP against transformers and timm: `pytest -m parity`."""

import functools
import importlib.util

import jax
import numpy as np
import pytest

from fmjax import interop
from fmjax.interop import mae
from fmjax.layers import patches
from fmjax.layers.transformer import Block
from tests.golden import bert_cases, timm_alone, vision_cases

pytestmark = pytest.mark.parity

needs = "needs the parity extra: pip install 'fmjax[parity]'"
torch = pytest.importorskip("torch", reason=needs)
transformers = pytest.importorskip("transformers", reason=needs)

from tests.golden import compare_vision  # noqa: E402  (imports torch)

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
    found = compare_vision.transformer(case, tmp_path)
    print(name, found.worst)
    bert_cases.assert_within_bars(case.width, found.worst)
    assert found.bit_equal
    again, given, expected = found.again, found.given, found.expected
    rename = case.family.canonical(interop.read(tmp_path / "ours").net)
    if case.kind == "ViTMAEForPreTraining":  # the objective's, which no net knows
        again.config.norm_pix_loss = case.normalised
    computed = compare_vision.transformers_reference.compute(case, again, given, rename)
    # What is read from a file has gradients for fixed positions, too.
    fixed = {f"grad/{name}" for name in mae.POSITIONS}
    tolerance = 0 if case.kind != "ViTMAEForPreTraining" else 1e-5
    for key, value in computed.items():
        if key not in fixed - set(expected):
            np.testing.assert_allclose(
                value, expected[key], rtol=tolerance, atol=tolerance, err_msg=key
            )


@no_timm
@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_the_22b_s_block_equals_timm_s(norm):
    timm = timm_alone.import_timm()
    kinds = {"rms": timm.layers.RmsNorm, "layer": torch.nn.LayerNorm}
    theirs = timm.models.vision_transformer.ParallelScalingBlock(
        24, 3, 2.0, qk_norm=True, norm_layer=functools.partial(kinds[norm], eps=1e-6)
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            wide = parameter.ndim == 2
            parameter.copy_(noise / 24**0.5 if wide else 1 + 0.2 * noise)
        theirs.attn_out_proj.bias.zero_()  # which the other one's makes idle
    up, query, key, value = np.split(
        theirs.in_proj.weight.detach().numpy(), [48, 72, 96]
    )
    array = lambda tensor: tensor.detach().numpy()  # noqa: E731

    def scaled(module):
        found = {"scale": array(module.weight)}
        return found | ({"bias": array(module.bias)} if norm == "layer" else {})

    params = {
        "norm": scaled(theirs.in_norm),
        "attention": {
            "query": {"kernel": query.T},
            "key": {"kernel": key.T},
            "value": {"kernel": value.T},
            "query_norm": scaled(theirs.q_norm),
            "key_norm": scaled(theirs.k_norm),
            "out": {"kernel": array(theirs.attn_out_proj.weight).T},
        },
        "mlp": {
            "up": {"kernel": up.T, "bias": array(theirs.mlp_bias)},
            "down": {
                "kernel": array(theirs.mlp_out_proj.weight).T,
                "bias": array(theirs.mlp_out_proj.bias),
            },
        },
    }
    ours = Block(
        3,
        48,
        order="parallel",
        norm=norm,
        qk_norm=norm,
        use_bias=False,
        mlp_bias=True,
        eps=1e-6,
    )
    x = np.random.default_rng(0).normal(size=(2, 5, 24)).astype(np.float32)
    tensor = torch.tensor(x, requires_grad=True)
    out = theirs(tensor)
    (out**3).sum().backward()

    def loss(x):
        y = ours.apply({"params": params}, x)[0]
        return (y**3).sum(), y

    (_, got), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(x)
    np.testing.assert_allclose(got, array(out), atol=1e-5)
    wanted = tensor.grad.numpy()
    np.testing.assert_allclose(slope, wanted, atol=1e-4 * np.abs(wanted).max())
    shapes = jax.eval_shape(ours.init, jax.random.key(0), x)["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes)


@pytest.mark.parametrize(("old", "new"), [(14, 24), (14, 7), (5, 9)])
def test_resampled_positions_are_those_of_torch(old, new):
    table = np.random.default_rng(0).normal(size=(1 + old**2, 8)).astype(np.float32)
    grid = torch.tensor(table[1:]).reshape(1, old, old, 8).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.interpolate(
        grid, size=(new, new), mode="bicubic", antialias=True, align_corners=False
    )
    want = theirs.permute(0, 2, 3, 1).reshape(-1, 8).numpy()
    got = patches.fit(table, 1 + new**2)
    np.testing.assert_allclose(got[1:], want, atol=1e-5)
    np.testing.assert_array_equal(got[0], table[0])
