"""The main job from end to end on made-up data, and what it leaves."""

import json
import re
import sys

import pytest

from experiments.sentiment import run
from fmjax import predict


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentiment")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sys, "argv", ["run", "--tiny", "--seeds", "2", "--workdir", str(folder)]
        )
        assert run.main() == 0
        before = (folder / "pretrain" / "metrics.jsonl").stat().st_mtime_ns
        assert run.main() == 0, "a second call finds everything done"
        assert (folder / "pretrain" / "metrics.jsonl").stat().st_mtime_ns == before
    return folder


def test_report_is_one_file_with_all_parts(root):
    html = (root / "report.html").read_text("utf-8")
    for heading in ("Result", "Pre-training", "Fine-tuning", "Confusion", "Data"):
        assert f">{heading}<" in html
    assert html.count("<svg") >= 8
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", html)
    assert "<script" not in html


def test_report_numbers_are_the_arms(root):
    results = json.loads((root / "report.json").read_text("utf-8"))["data"]["results"]
    assert set(results["arms"]) == {
        "pre-trained",
        "scratch",
        "TF-IDF + logistic regression",
    }
    for arm in results["arms"].values():
        assert arm["examples"] > 0
        accuracy = arm["accuracy"]
        assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
        assert sum(map(sum, arm["confusion"])) == arm["examples"] * arm["seeds"]
    assert {"masked_lm_loss", "next_sentence_loss"} <= set(results["pretrain"])
    difference = results["differences"]["pre-trained - scratch"]
    arms = results["arms"]
    expected = (
        arms["pre-trained"]["accuracy"]["value"] - arms["scratch"]["accuracy"]["value"]
    )
    assert difference["value"] == pytest.approx(expected)


def test_fine_tuning_began_from_the_pretrained_encoder(root):
    report = json.loads((root / "pretrained-0" / "init_from.json").read_text())
    assert "embed/tokens/embedding" in report["loaded"]
    assert report["fresh"] == ["classify/bias", "classify/kernel"]
    assert not (root / "scratch-0" / "init_from.json").exists()


def test_predict_reads_arguments_files_and_standard_input(
    root, tmp_path, capsys, monkeypatch
):
    workdir = ["--workdir", str(root / "pretrained-0")]
    assert predict.main([*workdir, "The kind garden shines."]) == 0
    first = capsys.readouterr().out
    one = json.loads(first)
    assert one["text"] == "The kind garden shines."
    assert one["label"] in ("bad", "good")
    assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-5)

    lines = tmp_path / "in.jsonl"
    lines.write_text('{"text": "The kind garden shines.", "id": 7}\n\nPlain line.\n')
    assert predict.main([*workdir, "--input", str(lines)]) == 0
    two = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in two] == ["The kind garden shines.", "Plain line."]
    assert two[0]["id"] == 7
    assert two[0]["probability"] == pytest.approx(one["probability"], abs=1e-6)

    with lines.open() as handle:
        monkeypatch.setattr(sys, "stdin", handle)
        assert predict.main(workdir) == 0
    assert capsys.readouterr().out.count("\n") == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [("{broken", "in.jsonl:1: not JSON"), ('{"txt": "a"}', "in.jsonl:1: no text")],
)
def test_predict_names_the_bad_line(root, tmp_path, line, message):
    from fmjax.config import ConfigError

    (tmp_path / "in.jsonl").write_text(line + "\n")
    flags = [
        "--workdir",
        str(root / "scratch-0"),
        "--input",
        str(tmp_path / "in.jsonl"),
    ]
    with pytest.raises(ConfigError, match=message):
        predict.main(flags)
