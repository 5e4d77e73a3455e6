"""BERT against the live reference: `pytest -m parity`, with the `parity` extra."""

import json

import numpy as np
import pytest

from fmjax.interop import settings
from tests.golden import bert_cases

pytestmark = pytest.mark.parity

needs = "needs the parity extra: pip install 'fmjax[parity]'"
torch = pytest.importorskip("torch", reason=needs)
transformers = pytest.importorskip("transformers", reason=needs)

from tests.golden import compare  # noqa: E402  (imports torch)


@pytest.mark.parametrize("name", bert_cases.CASES)
def test_equals_transformers(name, tmp_path, record_property):
    case = bert_cases.CASES[name]
    found = compare.run(case, tmp_path)
    record_property("differences", found.worst)
    print(name, found.worst)
    bert_cases.assert_within_bars(case.hidden_size, found.worst)
    assert not any(found.info.values()), found.info
    assert found.bit_equal
    again, reference = found.again, found.reference
    for key in ("hidden_act", "layer_norm_eps", "num_labels", "hidden_dropout_prob"):
        assert getattr(again.config, key) == getattr(reference.config, key)
    for key, value in compare.compute(case, again, found.given).items():
        np.testing.assert_array_equal(value, found.expected[key], err_msg=key)


def test_parameter_counts_of_the_large_sizes_are_the_reference_s():
    import jax

    from fmjax.models import bert

    for size, fields in bert.SIZES.items():
        config = transformers.BertConfig(
            hidden_size=fields["width"],
            num_hidden_layers=fields["depth"],
            num_attention_heads=fields["heads"],
            intermediate_size=fields["mlp_width"],
        )
        with torch.device("meta"):
            reference = transformers.BertForPreTraining(config)
        net = bert.Model(**fields, head="pretrain")
        tokens = {"tokens": np.zeros((1, 1), np.int32)}
        params = jax.eval_shape(net.init, jax.random.key(0), tokens)
        ours = sum(leaf.size for leaf in jax.tree.leaves(params))
        assert ours == sum(p.numel() for p in reference.parameters()), size


NAMED = {"0": "a", "1": "b", "2": "c"}


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"num_labels": 5},
        {"id2label": NAMED},
        {"id2label": NAMED, "num_labels": 3},
        {"id2label": NAMED, "num_labels": 5},
        {"num_labels": 5, "id2label": NAMED},
        {"id2label": {"1": "a", "2": "b", "7": "c"}},
    ],
    ids=str,
)
def test_the_number_of_classes_is_the_reference_s(said, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **said}))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert settings.classes(said) == theirs.num_labels
