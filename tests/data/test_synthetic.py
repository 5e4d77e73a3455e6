"""Embedded data: seeded, distinct between splits, and learnable."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from fmjax.data.sources import sentence_pairs, synthetic_images, synthetic_text


def rows_of(found):
    return [found.rows[i] for i in range(len(found.rows))]


@pytest.mark.parametrize("source", [synthetic_text, synthetic_images])
def test_rows_are_functions_of_their_index(source):
    first = source.load("train", size=20)
    again = source.load("train", size=20)
    np.testing.assert_equal(
        rows_of(again)[::-1], [first.rows[i] for i in range(20)][::-1]
    )
    assert len(source.load("test", size=20).rows) == 5
    seeds = [source.load("train", size=20, seed=s) for s in (0, 1)]
    assert seeds[0].facts["fingerprint"] == first.facts["fingerprint"]
    assert seeds[1].facts["fingerprint"] != first.facts["fingerprint"]
    assert not _equal(seeds[1].rows[0], first.rows[0])
    assert not _equal(source.load("test", size=20).rows[0], first.rows[0])
    with pytest.raises(IndexError, match="row 20 of 20"):
        first.rows[20]


def _equal(a, b):
    return all(np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("classes", [2, 4])
def test_text_can_be_learned(classes):
    train, test = (
        rows_of(synthetic_text.load(s, classes=classes)) for s in ("train", "test")
    )
    words = CountVectorizer().fit([r["text"] for r in train])
    model = LogisticRegression().fit(
        words.transform([r["text"] for r in train]), [r["label"] for r in train]
    )
    texts, labels = [r["text"] for r in test], [r["label"] for r in test]
    assert model.score(words.transform(texts), labels) > 0.95
    assert len(set(labels)) == classes
    assert len(sentence_pairs.sentences(texts[0])) == 4


def test_images_can_be_told_apart():
    found = synthetic_images.load("train", classes=4, shape=(16, 12, 3))
    assert found.rows[0]["image"].shape == (16, 12, 3)
    assert found.rows[0]["image"].dtype == np.uint8
    assert len(found.classes) == 4
    spectra: dict[int, list] = {}
    for row in rows_of(found):
        power = np.abs(np.fft.fft2(row["image"][..., 0] - 127.5))
        spectra.setdefault(row["label"], []).append(power.ravel())
    means = {k: np.mean(v, 0) for k, v in spectra.items()}
    hits = [
        min(means, key=lambda k: np.linalg.norm(means[k] - power)) == label
        for label, powers in spectra.items()
        for power in powers
    ]
    assert np.mean(hits) > 0.95


def test_wrong_settings():
    with pytest.raises(ValueError, match="classes is 2 to 4"):
        synthetic_text.load("train", classes=9)
    with pytest.raises(ValueError, match=r"a shape \(H, W, C\)"):
        synthetic_images.load("train", shape=(28, 28))
