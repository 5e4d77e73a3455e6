"""GPT-2, T5 and Marian against transformers: `pytest -m parity`, `parity` extra."""

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from fmjax import interop
from tests.golden import bert_cases, lm_cases

pytestmark = pytest.mark.parity

needs = "needs the parity extra: pip install 'fmjax[parity]'"
torch = pytest.importorskip("torch", reason=needs)
transformers = pytest.importorskip("transformers", reason=needs)

from tests.golden import compare  # noqa: E402  (imports torch)


@pytest.mark.parametrize("name", lm_cases.CASES)
def test_equals_transformers(name, tmp_path):
    case = lm_cases.CASES[name]
    found = compare.run(case, tmp_path)
    print(name, found.worst)
    bert_cases.assert_within_bars(case.width, found.worst)
    assert not any(found.info.values()), found.info
    assert found.bit_equal
    again, reference = found.again, found.reference
    for key in ("pad_token_id", "eos_token_id"):
        setattr(again.config, key, getattr(reference.config, key))
    for key, value in compare.compute(case, again, found.given).items():
        if not key.startswith("grad/"):  # the padding row's, which the ids decide
            np.testing.assert_array_equal(value, found.expected[key], err_msg=key)


SIZES = {
    "gpt2": ("GPT2LMHeadModel", {}),
    "gpt2-xl": ("GPT2LMHeadModel", dict(n_embd=1600, n_layer=48, n_head=25)),
    "small": ("T5ForConditionalGeneration", {}),
    "11b": (
        "T5ForConditionalGeneration",
        dict(d_model=1024, d_kv=128, d_ff=65536, num_layers=24, num_heads=128),
    ),
}


@pytest.mark.parametrize("size", SIZES)
def test_parameter_counts_are_the_reference_s(size):
    from fmjax.models import gpt, t5

    kind, fields = SIZES[size]
    reference = getattr(transformers, kind)
    with torch.device("meta"):
        theirs = reference(reference.config_class(**fields))
    module = gpt if size.startswith("gpt2") else t5
    net = module.Model(**module.SIZES[size])
    tokens = np.zeros((1, 1), np.int32)
    inputs = {"tokens": tokens, "decoder_tokens": tokens}
    params = jax.eval_shape(net.init, jax.random.key(0), inputs)
    ours = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert ours == sum(p.numel() for p in theirs.parameters())


BARE = {"gpt2": "GPT2Model", "t5": "T5Model", "marian": "MarianModel"}


@pytest.mark.parametrize("name", [*BARE, "marian-odd"])
def test_a_model_without_a_head_is_written_as_the_reference_does(name, tmp_path):
    kind = BARE[name.partition("-")[0]]
    reference = getattr(transformers, kind)
    config = reference.config_class(**lm_cases.CASES[name].config())
    theirs = reference(config)
    theirs.save_pretrained(tmp_path / "theirs")
    net, variables = interop.load(tmp_path / "theirs")
    said = {"architectures": [kind]}
    interop.save(tmp_path / "ours", net, variables, settings=said)
    tensors = [
        load_file(tmp_path / f / "model.safetensors") for f in ("theirs", "ours")
    ]
    assert set(tensors[0]) == set(tensors[1])
    for tensor, value in tensors[0].items():
        np.testing.assert_array_equal(tensors[1][tensor], value, err_msg=tensor)
    again, info = transformers.AutoModel.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert type(again) is reference
    assert not any(info.values()), info
    # The class with a head reads it as fmjax does.
    whole = getattr(transformers, lm_cases.CASES[name].kind)
    _, info = whole.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values()), info
