"""Segmentation, retrieval, zero-shot, neighbours and probes against scikit-learn."""

import numpy as np
import pytest
from sklearn import linear_model, metrics, neighbors, preprocessing

from fmjax.metrics import knn, linear_probe, retrieval, segmentation, zero_shot

RNG = np.random.default_rng(0)


def cloud(count, seed, classes=7, width=6):
    """Features around a centre for each class, and the classes."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    labels = random.integers(0, classes, count)
    return centres[labels] + random.normal(size=(count, width)), labels


TRAIN, TRAIN_LABELS = cloud(200, 1)
TEST, LABELS = cloud(90, 2)
GIVEN = dict(
    features=TEST, labels=LABELS, train_features=TRAIN, train_labels=TRAIN_LABELS
)


class TestSegmentation:
    true = RNG.integers(0, 3, 500)
    said = np.where(RNG.random(500) < 0.6, true, RNG.integers(0, 4, 500))

    def test_equals_scikit_learn(self):
        confusion = metrics.confusion_matrix(self.true, self.said, labels=range(4))
        found = segmentation.compute(confusion=confusion, classes=list("abcd"))
        jaccard = metrics.jaccard_score(self.true, self.said, average=None)
        f1 = metrics.f1_score(self.true, self.said, average=None)
        assert found["miou"] == pytest.approx(jaccard.mean())
        assert found["dice"] == pytest.approx(f1.mean())
        weighted = metrics.jaccard_score(self.true, self.said, average="weighted")
        assert found["frequency_weighted_iou"] == pytest.approx(weighted)
        accuracy = metrics.accuracy_score(self.true, self.said)
        assert found["accuracy"] == pytest.approx(accuracy)
        assert [c["iou"] for c in found["per_class"]] == pytest.approx(jaccard)
        assert [c["class"] for c in found["per_class"]] == list("abcd")
        assert found["per_class"][3]["pixels"] == 0
        assert found["confusion"] == confusion.tolist()

    def test_matrices_are_added_up(self):
        parts = [
            metrics.confusion_matrix(self.true[i::3], self.said[i::3], labels=range(4))
            for i in range(3)
        ]
        whole = segmentation.compute(confusion=sum(parts))
        assert segmentation.compute(confusion=np.stack(parts)) == whole

    def test_a_class_that_is_nowhere_is_left_out_of_the_mean(self):
        found = segmentation.compute(confusion=[[2, 1, 0], [0, 1, 0], [0, 0, 0]])
        assert found["per_class"][2]["iou"] is None
        assert found["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)
        assert found["dice"] == pytest.approx((4 / 5 + 2 / 3) / 2)

    @pytest.mark.parametrize(
        ("confusion", "classes", "message"),
        [
            (np.ones((2, 3)), None, r"confusion is \(2, 3\)"),
            (np.zeros((2, 2)), None, "no pixels at all"),
            (-np.eye(2), None, "negative"),
            (np.eye(2), ["a"], "1 classes, but confusion is 2 x 2"),
        ],
    )
    def test_what_means_nothing_is_named(self, confusion, classes, message):
        with pytest.raises(ValueError, match=message):
            segmentation.compute(confusion=confusion, classes=classes)


class TestRetrieval:
    def test_equals_scikit_learn_s_top_k(self):
        image = RNG.normal(size=(40, 6))
        text = image + RNG.normal(size=(40, 6))
        found = retrieval.compute(image=image, text=text, at=(1, 5, 10, 40))
        for name, scores in (
            ("image_to_text", image @ text.T),
            ("text_to_image", text @ image.T),
        ):
            assert set(found[name]) == {f"recall@{k}" for k in (1, 5, 10)} | {
                "median_rank"
            }
            for k in (1, 5, 10):
                want = metrics.top_k_accuracy_score(
                    range(40), scores, k=k, labels=range(40)
                )
                assert found[name][f"recall@{k}"] == pytest.approx(want)
            assert 0 < want < 1
        assert found["chance"] == {
            "recall@1": 1 / 40,
            "recall@5": 1 / 8,
            "recall@10": 0.25,
        }

    def test_ties_are_no_recall(self):
        same = np.ones((10, 3))
        found = retrieval.compute(image=same, text=same, at=(1, 5))
        assert found["image_to_text"]["recall@1"] == 0
        assert found["image_to_text"]["median_rank"] == 5.5
        perfect = retrieval.compute(image=np.eye(10), text=np.eye(10))
        assert perfect["mean_recall"] == 1

    def test_what_is_no_pair_is_named(self):
        with pytest.raises(ValueError, match=r"image \(3, 2\) and text \(4, 2\)"):
            retrieval.compute(image=np.ones((3, 2)), text=np.ones((4, 2)))
        with pytest.raises(ValueError, match="finite"):
            retrieval.compute(image=np.full((3, 2), np.nan), text=np.ones((3, 2)))


class TestZeroShot:
    def test_is_the_nearest_prompt_by_cosine(self):
        prompts = RNG.normal(size=(7, 3, 6))
        found = zero_shot.compute(image=TEST, labels=LABELS, prompts=prompts, classes=7)
        mean = preprocessing.normalize(
            np.stack([preprocessing.normalize(p).mean(0) for p in prompts])
        )
        said = metrics.pairwise.cosine_similarity(TEST, mean).argmax(1)
        assert found["accuracy"] == pytest.approx((said == LABELS).mean())
        alone = zero_shot.compute(image=TEST, labels=LABELS, prompts=mean, classes=7)
        assert alone["nll"] == pytest.approx(found["nll"])

    def test_a_prompt_without_length_is_named(self):
        with pytest.raises(ValueError, match="prompts has rows that are zero"):
            zero_shot.compute(
                image=TEST, labels=LABELS, prompts=np.zeros((7, 6)), classes=7
            )
        with pytest.raises(ValueError, match="prompts are"):
            zero_shot.compute(
                image=TEST, labels=LABELS, prompts=np.ones((7, 5)), classes=7
            )


class TestNeighbours:
    @pytest.mark.parametrize(("k", "temperature"), [(1, None), (5, 0.1), (20, 0.07)])
    def test_equals_scikit_learn(self, k, temperature):
        def weights(distance):
            return np.exp((1 - distance) / temperature)

        theirs = neighbors.KNeighborsClassifier(
            k, metric="cosine", weights=weights if temperature else "uniform"
        ).fit(TRAIN, TRAIN_LABELS)
        found = knn.compute(**GIVEN, k=k, temperature=temperature)
        assert found["accuracy"] == pytest.approx(theirs.score(TEST, LABELS))
        assert 1 / 7 < found["accuracy"] < 1
        probability = theirs.predict_proba(TEST)
        near = np.argsort(-probability, axis=1, kind="stable")[:, :5]
        hit = (near == LABELS[:, None]) & (np.take_along_axis(probability, near, 1) > 0)
        assert found["top5_accuracy"] == pytest.approx(hit.any(1).mean())

    def test_more_neighbours_than_there_are_are_all(self):
        assert knn.compute(**GIVEN, k=10_000)["k"] == 200

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (dict(train_labels=TRAIN_LABELS[1:]), r"train features are \(200, 6\)"),
            (dict(features=TEST[:, 1:]), r"features are \(90, 5\)"),
            (dict(labels=LABELS - 1), "whole numbers from 0"),
            (dict(features=TEST * 0), "features has rows that are zero"),
            (dict(k=0), "k=0 neighbours"),
        ],
    )
    def test_what_does_not_fit_is_named(self, changes, message):
        with pytest.raises(ValueError, match=message):
            knn.compute(**GIVEN | changes)


class TestLinearProbe:
    @pytest.mark.parametrize("penalty", [0.1, 10.0])
    def test_ridge_equals_scikit_learn(self, penalty):
        target = np.eye(7)[TRAIN_LABELS]
        theirs = linear_model.Ridge(penalty).fit(TRAIN, target)
        weights, bias = linear_probe.ridge(TRAIN, TRAIN_LABELS, penalty)
        np.testing.assert_allclose(weights, theirs.coef_.T, atol=1e-8)
        np.testing.assert_allclose(bias, theirs.intercept_, atol=1e-8)
        few = linear_probe.ridge(TRAIN[:4], TRAIN_LABELS[:4], penalty)
        same = linear_model.Ridge(penalty).fit(
            TRAIN[:4], np.eye(TRAIN_LABELS[:4].max() + 1)[TRAIN_LABELS[:4]]
        )
        np.testing.assert_allclose(few[0], same.coef_.T, atol=1e-8)

    @pytest.mark.parametrize("penalty", [1.0, 10.0])
    def test_logistic_equals_scikit_learn(self, penalty):
        theirs = linear_model.LogisticRegression(
            C=1 / penalty, tol=1e-8, max_iter=10_000
        ).fit(TRAIN, TRAIN_LABELS)
        weights, bias = linear_probe.logistic(TRAIN, TRAIN_LABELS, penalty)
        np.testing.assert_allclose(weights, theirs.coef_.T, atol=1e-3)
        probability = np.exp(TEST @ weights + bias)
        probability /= probability.sum(1, keepdims=True)
        np.testing.assert_allclose(probability, theirs.predict_proba(TEST), atol=1e-3)

    @pytest.mark.parametrize("solver", linear_probe.SOLVERS)
    def test_standardised_features_have_no_units(self, solver):
        found = linear_probe.compute(**GIVEN, solver=solver)
        scaled = dict(features=TEST * 1000 + 5, train_features=TRAIN * 1000 + 5)
        again = linear_probe.compute(**GIVEN | scaled, solver=solver)
        assert found["accuracy"] == pytest.approx(again["accuracy"], abs=0.012)
        assert found["accuracy"] > 0.4
        assert (found["count"], found["train_count"]) == (90, 200)

    def test_another_solver_is_named(self):
        with pytest.raises(ValueError, match="solver='svm'"):
            linear_probe.compute(**GIVEN, solver="svm")
