"""How language models begin: what no test with loaded weights can see.

Deviations are those of the authors' code: google-research/bert (modeling.py),
openai/gpt-2 (model.py, and section 2.3 for residual branches), Mesh TensorFlow's
transformer for T5 (attention.py, layers.py), and tensor2tensor's for the Transformer.
"""

import jax
import numpy as np
import pytest

from fmjax import trees
from fmjax.models import bert, gpt, t5, transformer

SIZE = dict(vocab_size=512, width=128, depth=3, heads=4)
# What SIZES say beside sizes.
T5 = {k: t5.SIZES["1.1-base"][k] for k in ("gated", "tied", "bias_deviation")}
CUT = 0.87962566  # what truncation at two deviations leaves of a normal's
NETS = {
    "bert": bert.Model(**SIZE, mlp_width=512, head="pretrain"),
    "gpt": gpt.Model(**SIZE, mlp_width=512, max_length=256),
    "t5": t5.Model(**T5 | SIZE, mlp_width=512, head_width=16),
    "t5 of one's own": t5.Model(**SIZE, mlp_width=64),
    "transformer": transformer.Model(**SIZE, mlp_width=384),
}
# Family, the end of a path, deviation, the greatest value (None: not bounded).
CASES = (
    ("bert", "embed/tokens/embedding", 0.02 * CUT, 0.04),
    ("bert", "embed/positions/embedding", 0.02 * CUT, 0.04),
    ("bert", "layer1/attention/query/kernel", 0.02 * CUT, 0.04),
    ("bert", "layer2/mlp/down/kernel", 0.02 * CUT, 0.04),
    ("bert", "mlm/dense/kernel", 0.02 * CUT, 0.04),
    ("bert", "pooler/kernel", 0.02 * CUT, 0.04),
    ("gpt", "embed/tokens/embedding", 0.02, None),
    ("gpt", "embed/positions/embedding", 0.01, None),
    ("gpt", "layer1/attention/value/kernel", 0.02, None),
    ("gpt", "layer1/mlp/up/kernel", 0.02, None),
    ("gpt", "layer0/attention/out/kernel", 0.02 / 6**0.5, None),
    ("gpt", "layer2/mlp/down/kernel", 0.02 / 6**0.5, None),
    ("t5", "embed/embedding", 1.0, None),
    ("t5", "encoder0/attention/query/kernel", (128 * 16) ** -0.5, None),
    ("t5", "decoder1/cross_attention/key/kernel", 128**-0.5, None),
    ("t5", "decoder1/attention/out/kernel", 64**-0.5, None),
    ("t5", "encoder2/mlp/up/kernel", 128**-0.5, None),
    ("t5", "encoder2/mlp/down/kernel", 512**-0.5, None),
    ("t5", "head/kernel", 128**-0.5, None),
    ("t5", "encoder_bias/embedding", (2 / 36) ** 0.5, (6 / 36) ** 0.5),
    ("t5", "decoder_bias/embedding", (2 / 36) ** 0.5, (6 / 36) ** 0.5),
    ("t5 of one's own", "decoder_bias/embedding", 0.1, None),
    ("transformer", "embed/embedding", 128**-0.5, None),
    ("transformer", "encoder0/attention/query/kernel", 128**-0.5, (3 / 128) ** 0.5),
    ("transformer", "decoder2/mlp/up/kernel", 256**-0.5, (6 / 512) ** 0.5),
)


def started(name):
    tokens = np.ones((1, 4), np.int32)
    inputs = {"tokens": tokens, "decoder_tokens": tokens}
    params = jax.jit(NETS[name].init)(jax.random.key(0), inputs)["params"]
    return dict(zip(trees.paths(params), jax.tree.leaves(params), strict=True))


@pytest.mark.parametrize("name", NETS)
def test_as_the_authors_began(name):
    found = started(name)
    for family, path, deviation, greatest in CASES:
        if family != name:
            continue
        x = np.asarray(found[path], np.float64)
        # Five standard errors of a normal's deviation, which has the longest tails.
        room = 5 * deviation / (2 * x.size) ** 0.5
        assert abs(x.std() - deviation) < room, path
        assert abs(x.mean()) < 5 * deviation / x.size**0.5, path
        if greatest is not None:
            assert 0.9 * greatest < np.abs(x).max() <= greatest, path
    for path, x in found.items():
        if path.endswith("/bias") or path == "bias":
            assert not np.any(x), path
        if path.endswith("/scale"):
            assert np.all(x == 1), path


def test_every_family_has_cases():
    assert {family for family, *_ in CASES} == set(NETS)
