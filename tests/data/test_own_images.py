"""The user's own captions and masks: paired, split by image, bad ones by name."""

import json

import numpy as np
import pytest
from PIL import Image

from fmjax.data.sources import captions, image_masks

PARTS = ("train", "validation", "test")


def picture(path, value, size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value // 2, 9)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Thirty images, and their captions as JSON lines and CSV; the first has two."""
    root = tmp_path / "mine"
    lines = []
    for i in range(30):
        picture(root / "pictures" / f"{i}.png", i)
        lines.append(
            {"image": f"pictures/{i}.png", "text": f"number {i}", "kind": "ab"[i % 2]}
        )
    lines.append({"image": "pictures/0.png", "text": "zero", "kind": "a"})
    (root / "all.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    table = "image,text,kind\n" + "".join(",".join(x.values()) + "\n" for x in lines)
    (root / "all.csv").write_text(table)
    (root / "all.tsv").write_text(table.replace(",", "\t"))
    return root


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv"])
def test_captions_belong_to_their_images(folder, kind):
    found = captions.load(
        "train",
        path=str(folder / f"all.{kind}"),
        size=(3, 5),
        label="kind",
        holdout=(0, 0),
    )
    assert found.classes == ("a", "b")
    assert len(found.rows) == 30
    assert found.facts["captions"] == 31
    for i in range(30):
        row = found.rows[i]
        number = int(row["image"][0, 0, 0])
        assert row["image"].shape == (3, 5, 3)
        assert row["id"] == f"pictures/{number}.png"
        assert row["label"] == number % 2
        text = f"number {number}"
        assert row["text"] == ([text, "zero"] if number == 0 else text)


def test_captions_are_split_by_image(folder):
    (folder / "pictures" / "copy.png").write_bytes(
        (folder / "pictures" / "5.png").read_bytes()
    )
    with open(folder / "all.csv", "a") as file:
        file.write("pictures/copy.png,a copy,b\n")
    parts = [
        captions.load(s, path=str(folder / "all.csv"), size=4, holdout=(0.2, 0.3))
        for s in PARTS
    ]
    ids = [{part.rows[i]["id"] for i in range(len(part.rows))} for part in parts]
    assert sum(map(len, ids)) == 31 == len(set.union(*ids))
    together = [{"pictures/5.png", "pictures/copy.png"} & part for part in ids]
    assert sorted(map(len, together)) == [0, 0, 2]
    assert "label" not in parts[0].rows[0]


def test_bad_lines_are_named_and_nothing_outside_is_read(folder, tmp_path):
    picture(tmp_path / "secret.png", 200)
    (folder / "pictures" / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "pictures" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    bad = [
        {"image": "../secret.png", "text": "x"},
        {"image": "pictures/../../secret.png", "text": "x"},
        {"image": str(tmp_path / "secret.png"), "text": "x"},
        {"image": "pictures/link.png", "text": "x"},
        {"image": "pictures/none.png", "text": "x"},
        {"image": "pictures/cut.png", "text": "x"},
        {"image": "pictures/1.png", "text": " "},
        {"image": "pictures/1.png"},
        {"image": 3, "text": "x"},
        {"image": "pictures/\0.png", "text": "x"},
        {"image": "", "text": "x"},
    ]
    whys = [
        "leads out of", "leads out of", "must be relative", "leads out of", "no file",
        "not readable", "'text' is empty", "no field 'text'", "is int", "must be",
        "'image' is empty",
    ]  # fmt: skip
    good = (folder / "all.jsonl").read_text()
    for record, why in zip(bad, whys, strict=True):
        (folder / "all.jsonl").write_text(good + json.dumps(record) + "\n")
        with pytest.raises(ValueError, match="1 of 32 rows are bad") as caught:
            captions.load("train", path=str(folder / "all.jsonl"), size=4)
        assert "all.jsonl line 32: " in str(caught.value)
        assert why in str(caught.value)
    (folder / "all.jsonl").write_text(good + "".join(json.dumps(x) + "\n" for x in bad))
    found = captions.load(
        "train", path=str(folder / "all.jsonl"), size=4, bad_rows="skip", holdout=(0, 0)
    )
    assert found.facts["bad rows"]["count"] == len(bad)
    assert len(found.rows) == 30
    with pytest.raises(ValueError, match=r"is a \.csv, \.tsv or \.jsonl file"):
        captions.load("train", path=str(folder / "pictures" / "1.png"), size=4)


def test_an_image_with_two_labels_is_bad(folder):
    with open(folder / "all.csv", "a") as file:
        file.write("pictures/0.png,again,b\n")
    with pytest.raises(ValueError, match=r"3 of 32 rows .*0\.png has the labels a, b"):
        captions.load("train", path=str(folder / "all.csv"), size=4, label="kind")


@pytest.fixture
def masks(tmp_path):
    root = tmp_path / "pairs"
    for i in range(24):
        picture(root / "images" / "sub" / f"{i}.jpg", 10 * i, size=(8, 6))
        numbers = np.full((6, 8), i % 3, np.uint8)
        numbers[0] = 255
        mask = Image.fromarray(numbers)
        (root / "masks" / "sub").mkdir(parents=True, exist_ok=True)
        mask.save(root / "masks" / "sub" / f"{i}.png")
    return root


NAMES = ["ground", "thing", "other"]


def test_masks_belong_to_their_images(masks):
    found = image_masks.load(
        "train", path=str(masks), classes=NAMES, size=(3, 4), holdout=(0, 0)
    )
    assert found.classes == tuple(NAMES)
    assert len(found.rows) == 24
    for i in range(24):
        row = found.rows[i]
        number = int(row["id"].split("/")[1])
        assert abs(int(row["image"][1, 1, 0]) - 10 * number) <= 3
        assert row["image"].shape == (3, 4, 3)
        assert row["mask"].shape == (3, 4)
        assert set(np.unique(row["mask"])) <= {255, number % 3}
    assert sum(found.facts["pixels"].values()) <= 24 * 12
    own = image_masks.load("train", path=str(masks), classes=NAMES, size=None)
    assert own.rows[0]["mask"].shape == own.rows[0]["image"].shape[:2] == (6, 8)
    ids = [
        {r["id"] for r in map(part.rows.__getitem__, range(len(part.rows)))}
        for part in (
            image_masks.load(
                s, path=str(masks), classes=NAMES, size=4, holdout=(0.3, 0.3)
            )
            for s in PARTS
        )
    ]
    assert sum(map(len, ids)) == 24 == len(set.union(*ids))


def test_a_pgm_of_few_numbers_keeps_them(masks):
    for i in range(24):
        (masks / "masks" / "sub" / f"{i}.png").unlink()
        body = bytes([i % 4]) * 48
        (masks / "masks" / "sub" / f"{i}.pgm").write_bytes(b"P5 8 6 3\n" + body)
    load = {"path": str(masks), "size": 4, "holdout": (0, 0)}
    found = image_masks.load("train", classes=[*NAMES, "last"], **load)
    assert found.facts["pixels"] == dict.fromkeys([*NAMES, "last"], 6 * 16)
    with pytest.raises(ValueError, match=r"sub/11: class 3 in the mask, and there are"):
        image_masks.load("train", classes=NAMES, **load)


def test_bad_pairs_are_named(masks):
    picture(masks / "images" / "lonely.png", 1)
    picture(masks / "images" / "colour.png", 1)
    picture(masks / "masks" / "colour.png", 1)
    picture(masks / "images" / "small.png", 1)
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(masks / "masks" / "small.png")
    picture(masks / "images" / "odd.png", 1)
    Image.fromarray(np.full((4, 6), 7, np.uint8)).save(masks / "masks" / "odd.png")
    load = {"path": str(masks), "classes": NAMES, "size": 4}
    with pytest.raises(ValueError, match="4 of 28 rows are bad") as caught:
        image_masks.load("train", **load)
    for said in (
        "images/lonely: no mask of this name",
        "colour: mode RGB: a mask is",
        "small: the image is [4, 6] (H, W) and the mask [4, 5]",
        "odd: class 7 in the mask, and there are 3",
    ):
        assert said in str(caught.value)
    found = image_masks.load("train", **load, bad_rows="skip", holdout=(0, 0))
    assert len(found.rows) == 24
    picture(masks / "images" / "odd.jpg", 1)
    with pytest.raises(ValueError, match="have one name"):
        image_masks.load("train", **load)
    with pytest.raises(FileNotFoundError, match=r"no images in .*PATH holds folders"):
        image_masks.load("train", **(load | {"images": "none"}))
    with pytest.raises(ValueError, match="2 to 255 names"):
        image_masks.load("train", path=str(masks), classes=["one"], size=4)
