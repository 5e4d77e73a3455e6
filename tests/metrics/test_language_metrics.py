"""Metrics of language tasks against numbers by hand and by the libraries."""

import math

import numpy as np
import pytest
from scipy import stats

from fmjax.metrics import (
    language_model,
    question_answering,
    similarity,
    tagging,
    translation,
)


def test_perplexity_of_a_uniform_model():
    nll, predicted = np.full(3, 4 * math.log(8)), np.full(3, 4.0)
    facts = {"tokens": 13, "words": 6, "characters": 36}
    found = language_model.compute(nll=nll, predicted=predicted, facts=facts)
    assert found["tokens"] == 12
    assert found["perplexity"] == pytest.approx(8)
    assert found["word_perplexity"] == pytest.approx(64)  # two tokens a word
    assert found["bits_per_character"] == pytest.approx(1)  # 12 * 3 bits over 36
    # A text of which only a part was predicted has no perplexity a word.
    partly = language_model.compute(
        nll=nll, predicted=predicted, facts={**facts, "tokens": 99}
    )
    assert set(partly) == {"tokens", "nll", "perplexity"}
    with pytest.raises(ValueError, match=r"no token was predicted"):
        language_model.compute(nll=[0.0], predicted=[0.0])
    with pytest.raises(ValueError, match=r"1 windows' nll is not finite"):
        language_model.compute(nll=[math.nan], predicted=[1.0])


def test_correlations():
    found = similarity.compute(cosine=[0.1, 0.2, 0.9], score=[1, 2, 3])
    assert found["spearman"] == pytest.approx(1)
    assert found["pearson"] == pytest.approx(
        np.corrcoef([0.1, 0.2, 0.9], [1, 2, 3])[0, 1]
    )
    with pytest.raises(ValueError, match=r"score is constant"):
        similarity.compute(cosine=[0.1, 0.2], score=[1, 1])


def test_tags():
    targets = np.array([[0, 1, 1, 2, 0], [1, 2, 0, 0, 0]])
    tags = np.array([[0, 1, 2, 2, 0], [1, 2, 0, 0, 0]])
    weights = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]])
    found = tagging.compute(
        tags=tags, targets=targets, weights=weights, classes=["A", "B", "C"]
    )
    assert found["words"] == 6
    assert found["accuracy"] == pytest.approx(5 / 6)
    assert found["whole_sentences"] == 0.5
    # By hand: A 1, B 2 * 2 / (2 + 3), C 2 * 2 / (3 + 2)
    assert found["macro_f1"] == pytest.approx((1 + 0.8 + 0.8) / 3)
    assert "entity_f1" not in found
    with pytest.raises(ValueError, match=r"must be alike"):
        tagging.compute(tags=tags, targets=targets[:1], weights=weights, classes=[])


def test_entities_count_when_whole():
    classes = ["O", "B-PER", "I-PER", "B-LOC"]
    targets = np.array([[1, 2, 0, 3]])
    tags = np.array([[1, 0, 0, 3]])
    found = tagging.compute(
        tags=tags, targets=targets, weights=np.ones((1, 4)), classes=classes
    )
    assert found["accuracy"] == 0.75
    assert found["entity_precision"] == found["entity_recall"] == 0.5
    assert found["entity_f1"] == 0.5


def test_translations_are_scored_by_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    said = ["the cat sat on the mat today", "a dog ran off in the rain"]
    wanted = ["the cat sat on a mat today", "a dog ran off in the rain"]
    found = translation.compute(hypotheses=said, references=wanted, draws=50)
    score = sacrebleu.corpus_bleu(said, [wanted]).score
    assert found["bleu"]["score"] == pytest.approx(score)
    assert found["chrf"]["score"] == sacrebleu.corpus_chrf(said, [wanted]).score
    assert found["bleu"]["interval"] > 0
    assert "tok:13a" in found["bleu"]["signature"]
    bare = translation.compute(hypotheses=wanted, references=wanted, draws=0)
    assert bare["bleu"]["score"] == pytest.approx(100)
    assert "interval" not in bare["bleu"]
    with pytest.raises(ValueError, match=r"2 hypotheses and 1 references"):
        translation.compute(hypotheses=said, references=wanted[:1])


def row(question, context, answers):
    spans = [(i, i + 1) for i in range(len(context))]
    return {
        "question": question,
        "context": context,
        "answers": answers,
        "offsets": np.array(spans),
    }


def test_answers_are_those_of_the_best_window():
    rows = [
        row(0, "the red cat sat", ["The red cat", "cat"]),
        row(0, "the red cat sat", ["The red cat", "cat"]),
        row(1, "in the old town", ["old town hall"]),
    ]
    found = question_answering.compute(
        first=[12, 0, 7], last=[14, 10, 14], margin=[1.0, 2.0, -5.0], rows=rows
    )
    # 'the red cat' exactly; 'old town' has 2 of 3 words and nothing else: F1 0.8
    assert found == {
        "questions": 2,
        "exact_match": 0.5,
        "f1": pytest.approx((1 + 0.8) / 2),
    }
    # Where the set has questions without an answer, a low margin means 'none'.
    rows[2] = row(1, "in the old town", [])
    found = question_answering.compute(
        first=[12, 0, 7], last=[14, 10, 14], margin=[1.0, 2.0, -5.0], rows=rows
    )
    assert found["exact_match"] == found["seen_as_without_answer"] == 1
    with pytest.raises(ValueError, match=r"must be as many"):
        question_answering.compute(first=[0], last=[0], margin=[0], rows=rows)


@pytest.mark.parametrize(
    ("said", "wanted", "score"),
    [("The cat!", "a cat", 1), ("cat", "dog", 0), ("", "", 1), ("x", "", 0)],
)
def test_overlap_ignores_case_articles_and_punctuation(said, wanted, score):
    assert question_answering.overlap(said, wanted) == score


def test_rank_correlation_of_a_draw_is_scipys_of_the_drawn_pairs():
    rng = np.random.default_rng(0)
    said, wanted = rng.normal(size=12), rng.integers(4, size=12).astype(float)
    drawn = rng.integers(12, size=(5, 12))
    weights = np.stack([np.bincount(row, minlength=12) for row in drawn])
    found = similarity.spearman(weights.astype(float), said, wanted)
    expected = [stats.spearmanr(said[row], wanted[row]).statistic for row in drawn]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    alone = np.eye(12)[:1]  # one pair, twelve times: constant, no correlation
    assert similarity.spearman(12 * alone, said, wanted) == 0
