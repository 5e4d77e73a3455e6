"""Vision experiments from end to end on made-up data; what they draw and count."""

import importlib
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from experiments.scenes import run as scenes
from experiments.stamps import probe
from fmjax import config, evaluate, prompts, workdir
from fmjax.metrics import bootstrap, segmentation
from fmjax.reporting import pictures
from tests import runs

ARGUMENTS = {
    "depth": [],
    "emoji": [],
    "fashion_mnist": ["--net", "classic", "--net", "vit-small"],
    "scenes": [],
    "self_supervision": ["--seeds", "1"],
    "stamps": ["--seeds", "1", "--episodes", "2"],
}
DRAWN = {
    "depth": ["training_error.svg"],
    "emoji": ["loss.svg", "nearest.png"],
    "fashion_mnist": ["validation.svg"],
    "scenes": ["loss.svg", "overlays.png"],
    "self_supervision": ["accuracy.svg", "loss.svg", "painted.png"],
    "stamps": ["loss.svg", "shots.svg"],
}
LOOKED_AT = ("emoji", "fashion_mnist", "self_supervision")
SLOW = ("depth", "fashion_mnist", "self_supervision", "stamps")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name in sorted(ARGUMENTS)
    ],
)
def made(request, tmp_path_factory):
    """(experiment, its folder) after two calls; the second trains nothing."""
    name, root = request.param, tmp_path_factory.mktemp(request.param)
    run = importlib.import_module(f"experiments.{name}.run")
    own = ["run", "--tiny", "--workdir", str(root), *ARGUMENTS[name]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", own)
        assert run.main() == 0
        before = {p: p.stat().st_mtime_ns for p in root.rglob("metrics.jsonl")}
        assert run.main() == 0
        assert {p: p.stat().st_mtime_ns for p in root.rglob("metrics.jsonl")} == before
    return name, root


def test_a_report_with_figures_and_numbers(made):
    name, root = made
    html = (root / "report.html").read_text("utf-8")
    assert "<h2" in html
    assert ("Filters of" in html) == (name in LOOKED_AT)
    assert not re.search(r"(src|href)=[\"']?(https?:)?//|<script", html)
    for file in DRAWN[name]:
        if file.endswith("svg"):
            assert (root / file).read_text("utf-8").startswith("<svg")
        else:
            with Image.open(root / file) as picture:
                assert picture.size[0] > 10
    lines = [json.loads(x) for x in (root / "results.jsonl").read_text().splitlines()]
    assert len(lines) >= 2
    assert all(line["commit"] and line["packages"] for line in lines)


def test_numbers_are_those_of_the_kept_predictions(made):
    name, root = made
    lines = [json.loads(x) for x in (root / "results.jsonl").read_text().splitlines()]
    if name == "emoji":
        zero = {x["zero_shot"]: x["accuracy"] for x in lines if "zero_shot" in x}
        found = evaluate.evaluate(root / "clip-0", metrics=("zero_shot",))["test"]
        own = zero["CLIP, by category names"]["value"]
        assert own == pytest.approx(found["zero_shot"]["accuracy"])
        retrieved = evaluate.evaluate(root / "clip-0")["test"]["retrieval"]
        shown = lines[0]["text_to_image"]["recall@5"]["value"]
        assert shown == pytest.approx(retrieved["text_to_image"]["recall@5"])
    if name == "scenes":
        found = evaluate.evaluate(root / "noskip-0")["test"]["segmentation"]
        other = next(x for x in lines if x.get("model") == "without shortcuts")
        assert other["miou"]["value"] == pytest.approx(found["miou"])
    if name in ("fashion_mnist", "depth", "self_supervision", "stamps"):
        file = next(root.rglob("test.npz"))
        with np.load(file) as kept:
            right = (kept["probabilities"].argmax(1) == kept["label"]).mean()
        values = re.findall(
            r'"value": ([\d.e-]+)', (root / "results.jsonl").read_text()
        )
        hits = {round(float(v), 6) for v in values}
        assert hits & {round(float(right), 6), round(1 - float(right), 6)}


def test_the_stamps_readme_has_the_numbers_that_were_recorded():
    folder = runs.ROOT / "experiments" / "stamps"
    text = (folder / "README.md").read_text("utf-8")
    for line in map(json.loads, (folder / "results.jsonl").read_text().splitlines()):
        if "difference" in line:
            span = "{value:+.3f} [{low:+.3f}, {high:+.3f}]".format(**line)
            assert f"| {line['difference']} | {span} |" in text
        else:
            span = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**line["accuracy"])
            assert span in text, line


def test_a_probe_takes_the_penalty_that_validation_likes_and_few_examples_of_each():
    random = np.random.default_rng(0)

    def split(count):
        labels = np.arange(count) % 3
        signal = 2 * np.eye(3)[labels] + random.normal(size=(count, 3))
        return np.hstack([signal, random.normal(size=(count, 20))]), labels

    found = {"train": split(30), "validation": split(60), "test": split(90)}
    penalty, said = probe.chosen(found, [None, range(12)])
    losses = {}
    for one in probe.PENALTIES:
        each = [probe.probabilities(found, one, d) for d in (None, range(12))]
        losses[one] = np.mean(
            [probe.nll(x["validation"], found["validation"][1]) for x in each]
        )
    assert penalty == min(losses, key=losses.get)
    assert max(losses.values()) > min(losses.values())
    assert said.shape == (2, 90, 3)
    np.testing.assert_allclose(said.sum(-1), 1, atol=1e-6)
    right = (said.argmax(-1) == found["test"][1]).mean(1)
    assert right[0] > 0.5  # a third is chance

    data = {"name": "synthetic_images", "size": 40, "classes": 4}
    one, other = (probe.episode(data, 2, number) for number in (0, 1))
    rows = config.part("data", data)("train").rows
    assert sorted(rows[i]["label"] for i in one) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert one != other
    assert one == probe.episode(data, 2, 0)


def test_mean_iou_of_draws_is_that_of_the_metric():
    cells = np.random.default_rng(0).integers(0, 50, (40, 3, 3))
    flat = cells.reshape(40, 9).T.astype(float)
    span = bootstrap.interval(flat, seed=0, draws=50, statistic=scenes.miou)
    assert span["value"] == pytest.approx(segmentation.compute(confusion=cells)["miou"])
    weights = np.zeros((1, 40))
    weights[0, [3, 3, 7]] += 1
    weights[0, 3] += 1
    drawn = segmentation.compute(confusion=cells[[3, 3, 7]])["miou"]
    assert scenes.miou(weights, flat)[0] == pytest.approx(drawn)


def test_a_grid_shows_every_pixel_and_an_overlay_keeps_the_ground():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, 3, 4, 5, 3), dtype=np.uint8)
    drawn = pictures.grid(images, scale=2, gap=1)
    sheet = np.asarray(Image.open(io.BytesIO(drawn)))
    assert sheet.shape == (2 * 9, 2 * 17, 3)
    np.testing.assert_array_equal(sheet[10:18:2, 12:22:2], images[1, 1])
    with pytest.raises(ValueError, match="one length"):
        pictures.grid([images[0], images[1, :2]])
    mask = np.array([[0, 1], [0, 2]])
    over = pictures.overlay(images[0, 0, :2, :2], mask)
    np.testing.assert_array_equal(over[:, 0], images[0, 0, :2, 0])
    assert (over[:, 1] != images[0, 0, :2, 1]).any()


def test_prompts_are_refused_where_there_are_no_texts(tmp_path):
    runs.run(tmp_path, runs.tiny("configs/cnn/fashion_mnist.py", steps=1))
    run = workdir.open_run(tmp_path)
    with pytest.raises(config.ConfigError, match="not trained on images and texts"):
        prompts.encode(run, ["a cat"], {}, {})
