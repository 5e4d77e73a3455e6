"""Kneser-Ney by hand and by dictionaries, scores of tokens, the experiment's run."""

import json
import re
import sys
from collections import Counter, defaultdict

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import arms
from experiments.language_models import kneser_ney, run, score
from fmjax import workdir as workdirs
from tests import runs

HAND = np.array([0, 1, 2, 0, 1, 1, 0])  # documents of 'a b' and 'a a'; 0 is their end


def random_line(seed, words=9, documents=60):
    """Documents of words with Zipf's frequencies, 1 the most frequent; 0 ends one."""
    rng, line = np.random.default_rng(seed), [0]
    for _ in range(documents):
        line += [*((words + 1) ** rng.random(rng.integers(1, 12))).astype(int), 0]
    return np.array(line)


class TestKneserNey:
    def test_by_hand(self):
        model = kneser_ney.fit(HAND, order=2, document=0, size=4)
        # No n-gram is counted three times: the discounts are 0.5 and 1. Unigrams are
        # seen after (b, a), (end, a), (a): counts 2, 2, 1 and 2.5 taken off of 5, so
        # that p(end) = p(a) = 1/5 + 1/2 * 1/4, p(b) = 0.5/5 + 1/8, p(unseen) = 1/8.
        cases = {
            (0, 1): 1 / 2 + 1 / 2 * 0.325,  # c(a at the start) = 2, of 2
            (0, 1, 2): 0.5 / 3 + 1.5 / 3 * 0.225,  # after a: a, b and the end, once
            (0, 1, 3): 1.5 / 3 * 0.125,
            (0, 1, 0): 0.5 / 3 + 1.5 / 3 * 0.325,
            (0, 3, 2): 0.225,  # a context never seen
        }
        for line, expected in cases.items():
            found = kneser_ney.probabilities(model, np.array(line))[-1]
            assert found == pytest.approx(expected, rel=1e-12), line

    @pytest.mark.parametrize("order", [1, 2, 3, 5])
    def test_probabilities_sum_to_one(self, order):
        line, size = random_line(0), 12  # 10 and 11 are never seen
        model = kneser_ney.fit(line, order=order, document=0, size=size)
        for context in ([], [1], [1, 2, 1, 1], [9, 9, 9], [11, 1], [3, 0, 1], [2, 0]):
            total = sum(
                kneser_ney.probabilities(model, np.array([0, *context, word]))[-1]
                for word in range(size)
            )
            assert total == pytest.approx(1, abs=1e-12), context

    @pytest.mark.parametrize("order", [1, 2, 3])
    def test_equals_plain_dictionaries(self, order):
        line = random_line(1, words=300, documents=800)
        other = random_line(2, words=310, documents=40)
        model = kneser_ney.fit(line, order=order, document=0, size=320)
        for one in model.orders:
            assert one.discounts[1] != 0.5, "counts enough for discounts of its own"
        found = kneser_ney.probabilities(model, other)
        expected = plain(line, other, order, 320)
        np.testing.assert_allclose(found, expected, rtol=1e-10)

    def test_nothing_is_carried_over_a_document(self):
        model = kneser_ney.fit(random_line(3), order=4, document=0, size=12)
        one = kneser_ney.probabilities(model, np.array([0, 1, 2, 0, 3, 1, 0]))
        two = kneser_ney.probabilities(model, np.array([0, 4, 4, 0, 3, 1, 0]))
        np.testing.assert_array_equal(one[3:], two[3:])

    @pytest.mark.parametrize(
        ("line", "order"), [([1, 2, 0], 2), ([0, 1, 0], 0), ([0], 2), ([0, 1, 2], 2)]
    )
    def test_a_line_begins_and_ends_with_a_document(self, line, order):
        with pytest.raises(ValueError, match="line"):
            kneser_ney.fit(np.array(line), order=order, document=0, size=4)


def plain(line, other, order, size):
    """Chen & Goodman's definition word by word, over sentences of strings."""

    def documents(tokens):
        text = " ".join(map(str, tokens[1:]))
        found = [d.split() for d in re.split(r"(?<![0-9])0(?![0-9])", text)]
        return [["<s>", *words, "0"] for words in found[:-1]]

    raw = [Counter() for _ in range(order + 1)]
    for words in documents(line):
        for end in range(1, len(words)):
            for n in range(1, min(order, end + 1) + 1):
                raw[n][tuple(words[end - n + 1 : end + 1])] += 1
    counts = [Counter() for _ in range(order + 1)]
    counts[order] = raw[order]
    for n in range(1, order):
        for gram in raw[n + 1]:
            counts[n][gram[1:]] += 1
        for gram in raw[n]:
            if gram[0] == "<s>":
                counts[n][gram] = raw[n][gram]
    taken, after = {}, {}
    for n in range(1, order + 1):
        many = Counter(counts[n].values())
        y = many[1] / (many[1] + 2 * many[2])
        taken[n] = [0, *(k - (k + 1) * y * many[k + 1] / many[k] for k in (1, 2, 3))]
        after[n] = defaultdict(list)
        for gram, count in counts[n].items():
            after[n][gram[:-1]].append(count)

    def p(context, word, n):
        if n == 0:
            return 1 / size
        lower = p(context[1:], word, n - 1)
        seen = after[n].get(context)
        if not seen:
            return lower
        count = counts[n][(*context, word)]
        off = sum(taken[n][min(c, 3)] for c in seen)
        return (count - taken[n][min(count, 3)] + off * lower) / sum(seen)

    found = []
    for words in documents(other):
        for end in range(1, len(words)):
            n = min(order, end + 1)
            found.append(p(tuple(words[end - n + 1 : end]), words[end], n))
    return np.array(found)


class TestScore:
    def test_mixed_probabilities_are_the_weighted_mean(self):
        a, b = np.array([0.1, 0.5]), np.array([0.3, 0.2])
        found = np.exp(-score.mixed(-np.log(a), -np.log(b), 0.25))
        np.testing.assert_allclose(found, 0.25 * a + 0.75 * b)

    def test_best_weight(self):
        # Maximum of 3 log(w) + log(1 - w): each is sure of what the other excludes.
        sure, lost = 0.0, 700.0
        a, b = np.array([sure] * 3 + [lost]), np.array([lost] * 3 + [sure])
        assert score.best_weight(a, b) == 0.75

    def test_a_document_has_the_nats_of_its_end_and_not_the_unit(self):
        line = np.array([0, 5, 6, 0, 7, 0])
        nats = np.array([[1.0, 2.0, 4.0, 8.0, 16.0], [0.0, 0.0, 1.0, 1.0, 1.0]])
        sums, units = score.by_document(nats, line, 0)
        np.testing.assert_array_equal(sums, [[7, 24], [1, 2]])
        np.testing.assert_array_equal(units, [2, 1])
        mean = score.perplexity(np.array([[1.0, 1.0], [2.0, 0.0]]), sums, units)
        np.testing.assert_allclose(mean, np.exp([17 / 3, 8 / 4]))

    def test_summary_and_ratio(self):
        line = np.array([0, 5, 1, 0, 7, 0])  # 1 is unknown
        nats = np.log([[2.0, 4.0, 1.0, 8.0, 1.0]])
        found = score.summary(list(nats), line, document=0, unknown=1)
        assert found["perplexity"]["value"] == pytest.approx(4)
        assert found["bits"]["value"] == pytest.approx(2)
        assert found["known"] == pytest.approx(4)  # of 2 and 8
        assert (found["documents"], found["units"]) == (2, 3)
        assert found["unknown"] == pytest.approx(1 / 3)
        same = score.ratio([nats[0]], [nats[0] - np.log(2) * 3 / 5], line, 0)
        assert same["value"] == pytest.approx(2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language_models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["run", "--tiny", "--workdir", str(folder)])
        assert run.main() == 0
        kept = [
            folder / "brown-0" / name for name in ("metrics.jsonl", "test-nats.npy")
        ]
        before = [path.stat().st_mtime_ns for path in kept]
        assert run.main() == 0, "a second call finds everything done"
        assert [path.stat().st_mtime_ns for path in kept] == before
    return folder


class TestRun:
    def test_every_token_is_scored_once_with_half_a_window_before_it(self, root):
        opened = workdirs.open_run(root / "brown-0")
        rows = opened.parts.data("test").rows
        line, length = np.asarray(rows.line), rows.length
        nats = score.network(root / "brown-0", "test")
        assert len(nats) == len(line) - 1
        weights = opened.weights(opened.batches(rows).example(0))
        for start in (0, length // 2 * 3):
            row = {"tokens": line[start : start + length + 1], "length": length + 1}
            made = opened.parts.inputs(row, None)
            tokens = {k: jnp.asarray(v)[None] for k, v in made["inputs"].items()}
            logits, _ = opened.apply(*weights, tokens, key=None)
            said = optax.softmax_cross_entropy_with_integer_labels(
                logits, made["targets"][None]
            )[0]
            old = length // 2 if start else 0
            np.testing.assert_allclose(
                nats[start + old : start + length], said[old:], rtol=1e-4, atol=1e-5
            )

    def test_report_is_one_file_with_all_parts(self, root):
        html = (root / "report.html").read_text("utf-8")
        for corpus in run.CORPORA.values():
            assert f">{corpus.title.replace(chr(39), '&#x27;')}<" in html
            assert all(prompt in html for prompt in corpus.prompts)
        assert html.count("<svg") == 4
        assert "<script" not in html

    def test_lines_are_the_reports_numbers(self, root):
        results = json.loads((root / "report.json").read_text("utf-8"))["data"]
        lines = [
            json.loads(line)
            for line in (root / "results.jsonl").read_text("utf-8").splitlines()
        ]
        assert len(lines) == 12
        for corpus, found in results["results"].items():
            models = found["models"]
            own = {
                x["model"]: x for x in lines if x["corpus"] == corpus and "model" in x
            }
            assert set(own) == {"GPT", "Kneser-Ney", "GPT + Kneser-Ney"} == set(models)
            for name, numbers in models.items():
                p = numbers["perplexity"]
                assert own[name]["perplexity"] == p
                assert p["low"] <= p["value"] <= p["high"]
                assert numbers["units"] == found["sizes"]["test"]["tokens"] - (
                    numbers["documents"] + 1
                )
            ratio = found["ratios"]["GPT / Kneser-Ney"]["value"]
            a, b = (models[m]["perplexity"]["value"] for m in ("GPT", "Kneser-Ney"))
            assert ratio == pytest.approx(a / b)
            assert found["order"] in run.ORDERS
            assert 0 < found["sizes"]["test"]["unknown"] < 1

    def test_drawings_stand_alone(self, root):
        for name in run.CORPORA:
            svg = (root / f"{name}.svg").read_text("utf-8")
            assert svg.startswith("<svg")
            assert 'xmlns="http://www.w3.org/2000/svg"' in svg
            assert "prefers-color-scheme:dark" in svg
            assert len(svg) < 100_000

    def test_validation_curve_is_of_the_run(self, root):
        (steps, losses), *_ = arms.curve([root / "brown-0"], "validation/loss")
        assert steps == [3, 6]
        assert losses[-1] < losses[0]


def test_readme_has_the_recorded_numbers():
    folder = runs.ROOT / "experiments" / "language_models"
    text = (folder / "README.md").read_text("utf-8")
    lines = (folder / "results.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 12
    for line in map(json.loads, lines):
        found, form = line, "{value:.3f} [{low:.3f}, {high:.3f}]"
        if "model" in line:
            found, form = line["perplexity"], "{value:.1f} [{low:.1f}, {high:.1f}]"
        assert form.format(**found) in text, line
