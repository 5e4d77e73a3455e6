"""Fine-tuned classifiers and taggers, end to end on made-up data; their baselines."""

import importlib
import json
import re

import numpy as np
import pytest
from sklearn import metrics

from experiments import finetuned, tfidf
from experiments.tagging import baseline
from experiments.tagging import run as tagging
from fmjax.metrics import bootstrap

ARGUMENTS = {"topics": ["--task", "r8", "--seeds", "2"], "tagging": []}


@pytest.fixture(scope="module", params=sorted(ARGUMENTS))
def made(request, tmp_path_factory):
    """(experiment, its folder) after two calls; the second computes nothing."""
    root = tmp_path_factory.mktemp(request.param)
    run = importlib.import_module(f"experiments.{request.param}.run")
    own = ["run", "--tiny", "--workdir", str(root), *ARGUMENTS[request.param]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", own)
        assert run.main() == 0
        kept = [*root.rglob("metrics.jsonl"), *root.rglob("*.npz")]
        before = {path: path.stat().st_mtime_ns for path in kept}
        assert run.main() == 0
        assert {path: path.stat().st_mtime_ns for path in kept} == before
    return request.param, root


def test_report_is_one_file_with_all_parts(made):
    name, root = made
    html = (root / "report.html").read_text("utf-8")
    for heading in ("Reuters R8" if name == "topics" else "Result", "Data"):
        assert f">{heading}<" in html
    assert html.count("<svg") >= 2
    assert not re.search(r"(src|href)=[\"']?(https?:)?//|<script", html)
    (curve,) = root.glob("*.svg")
    assert curve.read_text("utf-8").startswith("<svg")


def test_results_are_those_of_the_kept_predictions(made):
    name, root = made
    lines = [json.loads(x) for x in (root / "results.jsonl").read_text().splitlines()]
    assert all(line["commit"] for line in lines)
    ours = next(line for line in lines if line.get("model") == "MiniLM")
    files = sorted(root.rglob("minilm-*/test.npz"))
    assert len(files) == ours["seeds"]
    right = []
    for path in files:
        with np.load(path) as kept:
            if name == "topics":
                right.append(kept["probabilities"].argmax(1) == kept["label"])
            else:
                here = kept["weights"] > 0
                right.append((kept["tags"] == kept["targets"])[here])
    assert ours["accuracy"]["value"] == pytest.approx(np.mean(right))
    gap = next(line for line in lines if "difference" in line)
    gap = gap["accuracy"] if name == "topics" else gap
    other = next(
        line
        for line in lines
        if line.get("model") in (finetuned.TFIDF, tagging.FREQUENT)
    )
    expected = ours["accuracy"]["value"] - other["accuracy"]["value"]
    assert gap["value"] == pytest.approx(expected)
    assert gap["low"] <= gap["value"] <= gap["high"]


def test_f1_difference_is_that_of_sklearn():
    rng = np.random.default_rng(0)
    labels, one, other = rng.integers(3, size=(3, 60))
    got = finetuned.f1_difference(3, None)(np.ones((1, 60)), labels, one, other)
    f1 = [metrics.f1_score(labels, x, average="macro") for x in (one, other)]
    assert got == pytest.approx([f1[0] - f1[1]])


def test_tfidf_gives_a_class_without_training_texts_no_probability():
    texts, labels = ["red fish", "red bird", "blue sky", "blue sea"], [0, 0, 2, 2]
    found, best = tfidf.fit(
        *((texts, labels), (texts, labels), ["red", "sky"]),
        classes=4,
        strengths=(1.0, 8.0),
    )
    assert found.argmax(1).tolist() == [0, 2]
    assert (found[:, [1, 3]] == 0).all()
    np.testing.assert_allclose(found.sum(1), 1)
    assert best == 1.0  # the first of equals


def test_tagger_takes_the_frequent_tag_and_the_longest_known_ending():
    noun, verb, name, number = range(4)
    tagger = baseline.fit(
        [
            (["run", "walking", "sing", "Paris"], [verb, verb, verb, name]),
            (["run", "run", "king", "1961"], [noun, noun, noun, number]),
            (["ring", "thing"], [noun, noun]),
        ]
    )
    known = baseline.tags(tagger, ["run", "sing", "Paris", "1961"])
    assert known == [noun, verb, name, number]
    # 'lking' is walking's, 'thing' and 'ring' are nouns; forms count before endings.
    unknown = baseline.tags(tagger, ["talking", "string", "Boris", "42", "x"])
    assert unknown[:4] == [verb, noun, name, number]
    assert unknown[4] == noun  # nothing known of it: what lower-case words mostly are
    assert baseline.tags(tagger, ["ÄÖ-ß"]) == [noun]
    with pytest.raises(ValueError, match=r"one tagged word"):
        baseline.fit([])


def test_accuracy_of_words_is_drawn_by_sentences():
    right, words = np.array([[3, 0], [1, 2]]), np.array([4, 2])
    weights = np.array([[1.0, 1.0], [2.0, 0.0]])
    np.testing.assert_allclose(
        tagging.ratio(weights, right, words), [(2 + 1) / 6, 4 / 8]
    )
    got = bootstrap.interval(right, words, seed=0, draws=50, statistic=tagging.ratio)
    assert got["value"] == pytest.approx(0.5)
