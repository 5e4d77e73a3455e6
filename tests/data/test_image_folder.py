"""The user's own images: classes by folder, resized once, bad files by name."""

import numpy as np
import pytest
from PIL import Image

from fmjax.data.sources import image_folder


def picture(path, value, size=(6, 4), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    fill = value if mode in ("L", "P") else (*(value,) * 3, 255)[: len(mode)]
    Image.new(mode, size, fill).save(path)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "images"
    for i in range(40):
        picture(root / "cat" / f"{i}.png", i)
        picture(root / "dog" / f"{i}.png", 100 + i, mode="RGBA")
    picture(root / "dog" / "grey.PNG", 200, size=(3, 9), mode="L")
    (root / "dog" / "notes.txt").write_text("not an image")
    (root / ".hidden").mkdir()
    return root


def test_images_are_resized_and_labelled(root):
    found = image_folder.load("train", path=str(root), size=(5, 7), holdout=(0, 0))
    assert found.classes == ("cat", "dog")
    assert len(found.rows) == 81
    for i in range(81):
        row = found.rows[i]
        assert row["image"].shape == (5, 7, 3)
        assert row["image"].dtype == np.uint8
        assert row["label"] == int(row["id"].startswith("dog/"))
        number = row["id"].split("/")[1].removesuffix(".png")
        if number.isdigit():
            assert (row["image"] == int(number) + 100 * row["label"]).all()
    assert found.facts["counts"] == {"cat": 40, "dog": 41}


def test_grey_and_square(root):
    found = image_folder.load("train", path=str(root), size=8, channels=1)
    assert found.rows[0]["image"].shape == (8, 8, 1)


def test_one_folder_is_split_by_content(root):
    (root / "dog" / "copy.png").write_bytes((root / "dog" / "3.png").read_bytes())
    parts = [
        image_folder.load(s, path=str(root), size=4, holdout=(0.25, 0.25))
        for s in ("train", "validation", "test")
    ]
    ids = [{f.rows[i]["id"] for i in range(len(f.rows))} for f in parts]
    assert sum(map(len, ids)) == 82 == len(set.union(*ids))
    assert [("dog/3.png" in part) == ("dog/copy.png" in part) for part in ids] == [
        True
    ] * 3


def test_split_folders(tmp_path):
    for split in ("train", "test"):
        picture(tmp_path / split / "a" / "1.png", 1)
        picture(tmp_path / split / "b" / "1.png", 2)
    assert len(image_folder.load("test", path=str(tmp_path), size=4).rows) == 2
    with pytest.raises(FileNotFoundError, match=r"no folder .*validation"):
        image_folder.load("validation", path=str(tmp_path), size=4)
    picture(tmp_path / "test" / "c" / "1.png", 2)
    with pytest.raises(ValueError, match=r"classes that .*train has not: c"):
        image_folder.load("test", path=str(tmp_path), size=4)


def test_classes_without_a_folder_are_named(root, tmp_path):
    given = {"path": str(root), "size": 4, "holdout": (0, 0)}
    found = image_folder.load("train", **given, classes=["dog", "cat"])
    assert (found.classes, found.facts["counts"]["dog"]) == (("dog", "cat"), 41)
    message = r"images for classes=cow, Dog; there are cat, dog$"
    with pytest.raises(ValueError, match=message):
        image_folder.load("train", **given, classes=["cow", "cat", "Dog"])
    # A split may lack examples of a class that another has.
    for place in ("train/a", "train/b", "test/a"):
        picture(tmp_path / "own" / place / "1.png", 1)
    given = {"path": str(tmp_path / "own"), "size": 4}
    found = image_folder.load("test", **given, classes=["a", "b"])
    assert found.facts["counts"] == {"a": 1, "b": 0}
    with pytest.raises(ValueError, match=r"own for classes=c; there are a, b$"):
        image_folder.load("test", **given, classes=["a", "b", "c"])


def test_bad_images_are_named_and_kept_in_mind(root):
    data = (root / "cat" / "1.png").read_bytes()
    (root / "cat" / "cut.png").write_bytes(data[: len(data) // 2])
    (root / "dog" / "text.jpg").write_text("no image")
    for _ in range(2):  # the second time from the packed array
        with pytest.raises(ValueError, match=r"2 of 83 rows are bad") as caught:
            image_folder.load("train", path=str(root), size=4)
        assert "cat/cut.png: not readable" in str(caught.value)
        assert "dog/text.jpg: not readable" in str(caught.value)
        assert "data.bad_rows=skip" in str(caught.value)
    found = image_folder.load(
        "train", path=str(root), size=4, bad_rows="skip", holdout=(0, 0)
    )
    assert len(found.rows) == 81
    assert found.facts["bad rows"]["count"] == 2
    row = next(found.rows[i] for i in range(81) if found.rows[i]["id"] == "dog/39.png")
    assert (row["image"] == 139).all()


def test_a_pixel_bomb_is_a_bad_image(root, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ValueError, match=r"too large"):
        image_folder.load("train", path=str(root), size=4)


def test_packing_is_done_once_until_a_file_changes(root, home):
    def load():
        return image_folder.load("train", path=str(root), size=4, holdout=(0, 0))

    first = load()
    assert load().facts["fingerprint"] == first.facts["fingerprint"]
    folders = list((home / "images").glob("[0-9a-f]*"))
    assert len(folders) == 1
    picture(root / "cat" / "0.png", 77, size=(8, 8))
    changed = load()
    assert changed.facts["fingerprint"] != first.facts["fingerprint"]
    assert (changed.rows[0]["image"] == 77).all()


def test_wrong_settings(tmp_path, root):
    with pytest.raises(FileNotFoundError, match=r"hold a folder for each class"):
        image_folder.load("train", path=str(tmp_path / "no"), size=4)
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"no images in .*classes: a"):
        image_folder.load("train", path=str(tmp_path / "empty"), size=4)
    with pytest.raises(ValueError, match=r"channels is 1 or 3"):
        image_folder.load("train", path=str(root), size=4, channels=2)
