"""`fmjax predict` of a run of segmentation: a map of classes for each image."""

import json

import numpy as np
import pytest
from PIL import Image

from fmjax import predict, workdir
from fmjax.config import ConfigError
from fmjax.data.images import decode
from fmjax.data.images.resize import resize
from tests import runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "run"
    runs.run(folder, runs.tiny("configs/unet/segment.py", steps=30))
    return folder


def said(capsys, *words):
    assert predict.main(list(map(str, words))) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_image_has_a_map_of_its_own_size(trained, tmp_path, capsys):
    run = workdir.open_run(trained)
    row = run.parts.data("test").rows[0]
    paths = [tmp_path / "a.png", tmp_path / "b" / "a.png", tmp_path / "c.png"]
    paths[1].parent.mkdir()
    pixels = [row["image"], resize(row["image"], (40, 33)), row["image"][::-1]]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    lines = said(capsys, "--workdir", trained, *(f"--image={path}" for path in paths))
    maps = ["a.classes.png", "a-2.classes.png", "c.classes.png"]
    assert [line["map"] for line in lines] == [f"{trained}/maps/{x}" for x in maps]
    assert [line["file"] for line in lines] == list(map(str, paths))

    params, extras = run.weights(run.batches([row]).example(0))
    seen = []
    for line, image in zip(lines, pixels, strict=True):
        given = run.parts.inputs({"image": resize(image, (16, 16))}, None)["inputs"]
        logits, _ = run.apply(params, extras, given[None], key=None)
        small = np.asarray(logits[0].argmax(-1), np.uint8)
        want = resize(small, image.shape[:2], "nearest")
        with Image.open(line["map"]) as picture:
            assert picture.mode == "P"
        found = decode.decode_mask(line["map"])
        assert list(found.shape) == line["size"] == list(image.shape[:2])
        np.testing.assert_array_equal(found, want)
        shares = np.bincount(found.ravel(), minlength=5) / found.size
        assert line["shares"] == pytest.approx(dict(zip(run.classes, shares)))  # noqa: B905
        seen += [*np.unique(found)]
    assert len(set(seen)) > 1, "the run has learnt more than the ground"


def test_maps_go_where_they_are_told_and_never_over_an_image(trained, tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    for name in ("x.png", "x.classes.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    words = ["--workdir", trained, "--image", tmp_path / "x.png"]
    (line,) = said(capsys, *words, "--maps", tmp_path / "out")
    assert line["map"] == str(tmp_path / "out" / "x.classes.png")
    words += ["--image", tmp_path / "x.classes.png", "--maps", tmp_path]
    with pytest.raises(ConfigError, match=r"x\.classes\.png is an image to predict of"):
        predict.main(list(map(str, words)))
    with Image.open(tmp_path / "x.classes.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), pixels)


def test_rows_with_masks_have_maps_too(trained):
    rows = workdir.open_run(trained).parts.data("test").rows
    found = predict.predict(trained, [rows[0], rows[1]])
    assert [one["map"].shape for one in found] == [(16, 16)] * 2
    bare = predict.predict(trained, [{"image": rows[0]["image"]}])
    np.testing.assert_array_equal(bare[0]["map"], found[0]["map"])
