"""Translation and T5 from end to end on made-up data, and what is beneath them."""

import collections
import importlib
import json
import re

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from experiments.t5 import run as t5
from experiments.translation import dictionary, scores
from fmjax import config, workdir
from fmjax.metrics import exact_match

PARTS = {
    "t5": {"pretrain", "pretrained-0", "scratch-0"},
    "translation": {"transformer-0", "transformer-1"},
}


@pytest.fixture(scope="module", params=sorted(PARTS))
def made(request, tmp_path_factory):
    """(experiment, its folder) after two calls, the second of which trains nothing."""
    root = tmp_path_factory.mktemp(request.param)
    run = importlib.import_module(f"experiments.{request.param}.run")
    with pytest.MonkeyPatch.context() as patch:
        seeds = 1 if request.param == "t5" else 2
        words = ["run", "--tiny", "--workdir", str(root), "--seeds", str(seeds)]
        patch.setattr("sys.argv", words)
        assert run.main() == 0
        kept = [*root.glob("*/metrics.jsonl"), *root.glob("*/generated/*.jsonl")]
        before = {path: path.stat().st_mtime_ns for path in kept}
        assert {path.parts[len(root.parts)] for path in kept} == PARTS[request.param]
        assert run.main() == 0
        assert {path: path.stat().st_mtime_ns for path in kept} == before
    return request.param, root


def test_report_is_one_file_with_all_parts(made):
    _, root = made
    html = (root / "report.html").read_text("utf-8")
    for heading in ("Result", "raining", "Data"):
        assert f"{heading}<" in html
    assert html.count("<svg") >= 3
    assert not re.search(r"(src|href)=[\"']?(https?:)?//|<script", html)
    assert (root / "loss.svg").read_text("utf-8").startswith("<svg")


def test_numbers_are_those_of_the_texts_written(made):
    name, root = made
    lines = [json.loads(x) for x in (root / "results.jsonl").read_text().splitlines()]
    results = json.loads((root / "report.json").read_text("utf-8"))["data"]["results"]
    assert all(line["commit"] for line in lines)
    paths = sorted(
        root.glob(
            "pretrained-0/generated/*.jsonl"
            if name == "t5"
            else "transformer-*/generated/test-beams=4.jsonl"
        )
    )
    said = [path.read_text("utf-8").split("\n") for path in paths]
    seeds = [[json.loads(line) for line in lines if line] for lines in said]
    wanted = [row["reference"] for row in seeds[0]]
    texts, *others = ([row["generated"] for row in rows] for rows in seeds)
    if name == "t5":
        assert others == []
        arm = results["arms"]["pre-trained"]
        direct = exact_match.compute(hypotheses=texts, references=wanted)
        assert arm["accuracy"] == direct["exact_match"]
        assert sum(arm["written"].values()) == len(texts)
        common = collections.Counter(wanted).most_common(2)
        shares = {count / len(wanted) for _, count in common}
        assert results["arms"][t5.MAJORITY]["accuracy"]["value"] in shares
        report = json.loads((root / "pretrained-0" / "init_from.json").read_text())
        assert report["loaded"]
        assert report["fresh"] == []
        assert not (root / "scratch-0" / "init_from.json").exists()
    else:
        arm = results["systems"]["Transformer, 4 beams"]
        for kind, metric in (("bleu", BLEU()), ("chrf", CHRF())):
            each = [metric.corpus_score(t, [wanted]).score for t in (texts, *others)]
            assert arm[kind]["by_seed"]["seeds"] == pytest.approx(each)
            assert arm[kind]["value"] == pytest.approx(np.mean(each))
            assert len(each) == 2
        assert {len(sample) for sample in results["samples"]} == {6}
        dictionary_ = results["systems"]["IBM Model 1, word by word"]
        assert dictionary_["bleu"]["value"] >= 0
        assert results["dictionary"] > 0


def test_a_label_is_trained_on_as_the_name_that_it_is_compared_with(made):
    name, root = made
    if name == "t5":
        run = workdir.open_run(root / "pretrained-0")
        trained = config.assemble(config.load(f"{t5.BOOLQ}:tiny"))
        for parts in (run.parts, trained):
            row = parts.data("test").rows[0]
            ids = parts.inputs(row, None)["targets"]
            assert run.parts.tokenizer.decode(ids) == run.classes[row["label"]]


SYSTEM = ["a b c d e f", "the cat sat on the mat", "x y z", "one two three four five"]
OTHER = ["a b c d", "a cat sat on a mat", "x y", "one two four five six"]
WANTED = ["a b c d e g", "the cat sat on a mat", "x z y", "one two three four six"]


@pytest.mark.parametrize("make", [BLEU, CHRF])
def test_a_draw_scores_as_sacrebleu_scores_its_sentences(make):
    metric, picks = make(), [0, 1, 1, 3]
    weights = np.bincount(picks, minlength=4)[None].astype(float)
    found = scores.corpus(metric, weights, scores.count(metric, SYSTEM, WANTED))
    drawn = [[texts[i] for i in picks] for texts in (SYSTEM, WANTED)]
    assert found == pytest.approx([metric.corpus_score(drawn[0], [drawn[1]]).score])


def test_paired_differences_are_of_the_same_draws():
    systems = {"a": [SYSTEM], "b": [OTHER], "c": [SYSTEM], "d": [SYSTEM, OTHER]}
    found = scores.compare(systems, WANTED, [("a", "b"), ("a", "c")], draws=50)
    for kind in ("bleu", "chrf"):
        a, b = (found["systems"][name][kind]["value"] for name in "ab")
        pair = found["differences"]["a - b"][kind]
        assert pair["value"] == pytest.approx(a - b)
        assert pair["low"] <= pair["value"] <= pair["high"]
        assert found["differences"]["a - c"][kind]["error"] == 0
        two = found["systems"]["d"][kind]
        assert two["by_seed"]["seeds"] == pytest.approx([a, b])
        assert two["value"] == pytest.approx((a + b) / 2)
        assert two["low"] <= two["value"] <= two["high"]
    for seeds, has in ([[SYSTEM, SYSTEM[:3]], r"\[3\]"], [[], r"\[\]"]):
        with pytest.raises(ValueError, match=rf"4 references, but 'a' has {has}"):
            scores.compare({"a": seeds}, WANTED)


def test_model_1_is_brown_and_others():
    """Against a plain loop over the paper's equations 4.13 and 4.14."""
    pairs = [
        ("the house", "la casa"),
        ("the book", "el libro"),
        ("a house", "una casa"),
    ]
    pairs += [("a book, red", "un libro, rojo")]
    chance: dict = collections.defaultdict(lambda: 1.0)
    for _ in range(4):
        count: dict = collections.defaultdict(float)
        total: dict = collections.defaultdict(float)
        for source, target in pairs:
            left = ["", *dictionary.words(source)]
            for word in dictionary.words(target):
                norm = sum(chance[word, other] for other in left)
                for other in left:
                    count[word, other] += chance[word, other] / norm
                    total[other] += chance[word, other] / norm
        chance = collections.defaultdict(
            float, {(f, e): c / total[e] for (f, e), c in count.items()}
        )
    table = dictionary.learn(pairs, rounds=4)
    for word in ("the", "a", "house", "book", "red", ","):
        likeliest = max(c for (_, e), c in chance.items() if e == word)
        assert chance[table[word], word] == pytest.approx(likeliest)
    assert table["house"] == "casa"
    assert table["book"] == "libro"
    said = dictionary.translate("(house, Esther)", {"house": "casa"})
    assert said == "(casa, Esther)", "what is unknown stays, marks join their words"
    with pytest.raises(ValueError, match="no pair of texts"):
        dictionary.learn([("", "")])
