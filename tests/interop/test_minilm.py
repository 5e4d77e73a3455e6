"""The public MiniLM BERT, from its package: real weights through the reader."""

import jax
import numpy as np
import pytest
import tokenizers

from experiments.word_similarity import run
from fmjax import interop
from fmjax.data import fetch, weights

# Spearman's correlations, as measured with these weights before this code was written.
CORRELATIONS = {"wordsim353": 0.729, "simlex999": 0.446, "men": 0.764}


@pytest.mark.network
@pytest.mark.parity
@pytest.mark.parametrize("dataset", CORRELATIONS)
def test_words_are_alike_as_people_say(dataset):
    try:
        found = run.measure(run.CHECKPOINT, dataset, draws=100)
        (vector,) = run.vectors(run.CHECKPOINT, [run.SENTENCE])
    except fetch.Unreachable as error:
        pytest.skip(f"registry out of reach: {error}")
    np.testing.assert_allclose(vector[:5], run.PUBLISHED, atol=5e-5)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    interval = found["spearman"]
    assert interval["value"] == pytest.approx(CORRELATIONS[dataset], abs=1e-3)
    assert interval["low"] < interval["value"] < interval["high"]


@pytest.mark.network
def test_sentence_vector_is_the_published_one():
    try:
        folder = weights.directory("all-MiniLM-L6-v2")
    except fetch.Unreachable as error:
        pytest.skip(f"registry out of reach: {error}")
    loaded = interop.read(folder)
    report = loaded.report
    assert report.missing == report.unknown == report.unused == report.settings == ()
    assert report.ignored == ("embeddings.position_ids",)
    assert len(report.matched) == 103
    count = sum(leaf.size for leaf in jax.tree.leaves(loaded.variables))
    assert count == 22_713_216

    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    # One row is padded, which must not matter.
    texts = ["This is an example sentence", "Each sentence is converted to a vector"]
    tokenizer.enable_padding(length=16)
    encoded = tokenizer.encode_batch(texts)
    inputs = {
        "tokens": np.array([e.ids for e in encoded], np.int32),
        "mask": np.array([e.attention_mask for e in encoded], bool),
    }
    hidden, _ = jax.jit(loaded.net.apply)(loaded.variables, inputs)
    mask = inputs["mask"][..., None]
    vectors = np.asarray((hidden * mask).sum(1) / mask.sum(1))
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    # What sentence-transformers gives for this sentence.
    np.testing.assert_allclose(
        vectors[0, :5], [0.0677, 0.0635, 0.0487, 0.0793, 0.0374], atol=5e-5
    )
