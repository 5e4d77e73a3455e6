"""Generation against transformers' `generate`: `pytest -m parity`, `parity` extra."""

import jax
import numpy as np
import pytest

from fmjax import interop
from fmjax.generation import search
from tests.golden import generation_cases

pytestmark = pytest.mark.parity

needs = "needs the parity extra: pip install 'fmjax[parity]'"
torch = pytest.importorskip("torch", reason=needs)
transformers = pytest.importorskip("transformers", reason=needs)

from tests.golden import generation_reference  # noqa: E402  (imports torch)

# Everything for one net of each family; elsewhere what differs between nets.
FEW = ("greedy", "repetition", "beams-rules", "beams-never")


@pytest.mark.parametrize("name", generation_cases.TEXTS)
def test_texts_are_transformers_token_for_token(name, tmp_path):
    text = generation_cases.TEXTS[name]
    reference = generation_reference.model(text)
    reference.save_pretrained(tmp_path)
    net, variables = interop.load(tmp_path)
    for case in generation_cases.OPTIONS if text.golden else FEW:
        want = generation_reference.compute(reference, text, case)
        got = generation_cases.ours(net, variables, text, case)
        for key in ("tokens", "lengths"):
            np.testing.assert_array_equal(got[key], want[key], err_msg=case)
        if "scores" in want:
            np.testing.assert_allclose(got["scores"], want["scores"], rtol=1e-5)


@pytest.mark.parametrize("top_k", [None, 1, 7, 100])
@pytest.mark.parametrize("top_p", [None, 0.2, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 0.3, 1.7])
def test_what_is_sampled_from_is_what_transformers_warpers_leave(
    temperature, top_k, top_p
):
    logits = 3 * jax.random.normal(jax.random.key(0), (5, 41))
    scores, ids = search.candidates(logits, top_k, top_p, temperature)
    got = np.asarray(jax.nn.softmax(scores))
    if ids is not None:
        got, kept = np.zeros(logits.shape, np.float32), got
        np.put_along_axis(got, np.asarray(ids), kept, axis=1)
    warpers = [transformers.TemperatureLogitsWarper(temperature)]
    if top_k is not None:
        warpers.append(transformers.TopKLogitsWarper(top_k))
    if top_p is not None:
        warpers.append(transformers.TopPLogitsWarper(top_p))
    theirs = torch.tensor(np.array(logits))
    for warper in warpers:
        theirs = warper(None, theirs)
    np.testing.assert_allclose(got, theirs.softmax(-1).numpy(), atol=1e-6)
