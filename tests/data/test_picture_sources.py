"""Emoji, stamps and scenes: from made-up packages, and the counts of the real ones."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from fmjax.data import cache, fetch
from fmjax.data.images import cutouts, rendered
from fmjax.data.sources import emoji, photos, scenes, stamps


def png(array):
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    return out.getvalue()


def thing(seed, height=30, width=20):
    """A disc with a colour of its own, clear around it."""
    y, x = np.mgrid[:height, :width]
    inside = ((y - height / 2) / height) ** 2 + ((x - width / 2) / width) ** 2 < 0.2
    colour = np.random.default_rng(seed).integers(0, 256, 3)
    made = np.zeros((height, width, 4), np.uint8)
    made[inside] = [*colour, 255]
    return made


class TestEmoji:
    @pytest.fixture
    def package(self, tmp_path):
        folder = tmp_path / "package" / "img" / "google" / "64"
        folder.mkdir(parents=True)
        known = []
        for i in range(60):
            name = f"1f{i:03x}"
            image = thing(i % 59, 64, 64)  # the last has the pixels of the first
            (folder / f"{name}.png").write_bytes(png(image))
            known.append(
                {
                    "name": f"THING {i}",
                    "unified": name.upper(),
                    "image": f"{name}.png",
                    "short_name": f"thing_{i}",
                    "category": "Component" if i == 30 else emoji.CLASSES[i % 9],
                    "sort_order": i,
                }
            )
        (tmp_path / "package" / "emoji.json").write_text(json.dumps(known))
        return tmp_path / "package"

    def test_rows(self, package):
        splits, facts = emoji.read(package)
        assert facts["in no category, left out"] == 1
        assert facts["pixels of another emoji, left out"] == 1
        rows = [row for rows in splits.values() for row in rows]
        assert len(rows) == 58
        assert min(len(list(rows)) for rows in splits.values()) > 0
        first = next(row for row in rows if row["id"] == "1F000")
        assert first["text"] == "thing 0"
        assert first["image"].shape == (64, 64, 3)
        assert first["image"][0, 0].tolist() == [255, 255, 255]
        assert (first["image"][32, 32] == thing(0, 64, 64)[32, 32, :3]).all()

    def test_who_does_it_is_no_subject(self):
        cooks = ("1F468-200D-1F373", "1F469-200D-1F373", "1F9D1-200D-1F373")
        assert {emoji.subject(code) for code in cooks} == {"1F373"}
        assert emoji.subject("1F3C3-200D-2640-FE0F") == emoji.subject("1F3C3")
        assert emoji.subject("1F468") == "1F468"
        assert emoji.subject("1F1E6-1F1FA") == "1F1E6-1F1FA"

    @pytest.mark.network
    def test_the_real_set(self, real):
        parts = [real(emoji, s) for s in ("train", "validation", "test")]
        assert [len(part.rows) for part in parts] == [1431, 177, 284]
        facts = parts[0].facts
        left = facts["in no category, left out"]
        copies = facts["pixels of another emoji, left out"]
        assert (left, copies) == (5, 14)
        assert facts["emoji in the package"] == 1911 == 1431 + 177 + 284 + left + copies
        rows = [p.rows[i] for p in parts for i in range(len(p.rows))]
        assert {row["label"] for row in rows} == set(range(9))
        assert "strawberry" in {row["text"] for row in rows}
        subjects = [
            {emoji.subject(p.rows[i]["id"]) for i in range(len(p.rows))} for p in parts
        ]
        assert not subjects[0] & subjects[1]
        assert not subjects[0] & subjects[2]


@pytest.fixture
def collection(tmp_path, monkeypatch):
    """Forty stamps in two categories and grey grounds, in place of the packages."""
    root = tmp_path / "stamps"
    for i in range(40):
        kind = ("animals", "food")[i % 2]
        file = root / kind / "some" / f"thing{'abcdefghij'[i // 4]}-{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(thing(i)))
        text = f"A thing {i}.\nfr.utf8=Une chose {i}.\nde.utf8=\n"
        file.with_suffix(".txt").write_text(text, "utf-8")
    (root / "food" / "mute.png").write_bytes(png(thing(50)))
    for name, image in (
        ("opaque", np.full((9, 9, 3), 7, np.uint8)),
        ("clear", np.zeros((9, 9, 4), np.uint8)),
        ("zcopy", thing(3)),
    ):
        (root / "food" / f"{name}.png").write_bytes(png(image))
        (root / "food" / f"{name}.txt").write_text("What?")
    notes, pictures, left_out = stamps.read(root)
    held = cutouts.Cutouts(np.concatenate([p.ravel() for p in pictures]), notes)
    monkeypatch.setattr(stamps, "collection", lambda: (held, left_out))
    ground = np.tile(np.arange(80, dtype=np.uint8)[:, None, None], (1, 120, 3))
    monkeypatch.setattr(photos, "read", lambda name: ground)
    return held, left_out


LOAD = {"categories": ("animals", "food")}
PARTS = ("train", "validation", "test")


def test_stamps_are_read_and_judged(collection):
    held, left_out = collection
    assert len(held) == 40
    assert set(left_out.values()) == {1}
    whole = held[0]
    assert whole.shape[2] == 4
    assert (whole[..., 3] > 0).any(0).all()  # trimmed
    captions = held.notes[0]["captions"]
    assert captions["fr"] == captions["en"].replace("A thing", "Une chose")
    assert "de" not in captions


def test_stamps_on_their_grounds(collection):
    held, _ = collection
    white = stamps.load("train", size=32, ground="white", **LOAD)
    row = white.rows[0]
    assert row["image"].shape == (32, 32, 3)
    assert (row["image"][0, 0] == 255).all()
    middle = row["image"][16, 16]
    place = next(i for i, n in enumerate(held.notes) if n["id"] == row["id"])
    stamp = held[place]
    np.testing.assert_array_equal(
        middle, stamp[stamp.shape[0] // 2, stamp.shape[1] // 2, :3]
    )
    assert white.classes[row["label"]] == row["id"].split("/")[0]
    many = stamps.load("train", size=32, copies=3, language="fr", **LOAD)
    assert len(many.rows) == 3 * len(white.rows)
    assert many.rows[0]["text"].startswith("Une chose")
    assert not np.array_equal(many.rows[0]["image"], many.rows[1]["image"])
    assert len(stamps.load("test", copies=3, **LOAD).rows) == len(
        stamps.load("test", **LOAD).rows
    )
    with pytest.raises(ValueError, match="no caption in 'xx'; there are en, fr"):
        stamps.load("train", language="xx", **LOAD)
    with pytest.raises(ValueError, match="they are animals, food"):
        stamps.load("train", categories=("cars",))
    with pytest.raises(ValueError, match="ground 'white' or 'photos'"):
        stamps.load("train", ground="blue")


def test_a_stamp_and_its_family_are_in_one_split(collection):
    held, _ = collection
    places = [stamps.in_split(held, s, LOAD["categories"]) for s in PARTS]
    assert sorted(p for part in places for p in part) == list(range(40))
    assert all(places)
    families = [{stamps.family(held.notes[p]["id"]) for p in part} for part in places]
    assert not families[0] & families[1]
    assert not families[0] & families[2]
    assert not families[1] & families[2]
    assert stamps.family("animals/lion-2.png") == stamps.family("animals/lion.png")
    # A split does not depend on which categories are asked for.
    alone = stamps.in_split(held, "test", ("food",))
    assert set(alone) == {p for p in places[2] if held.notes[p]["category"] == "food"}


def test_scenes_agree_with_masks_boxes_and_labels(collection):
    found = scenes.load("train", size=30, side=48, **LOAD)
    assert found.classes == ("background", "animals", "food")
    counts = set()
    for i in range(30):
        row = found.rows[i]
        mask, instances = row["mask"], row["instances"]
        assert row["image"].shape == (48, 48, 3)
        assert mask.dtype == np.uint8
        counts.add(len(row["labels"]))
        assert len(row["boxes"]) == len(row["labels"])
        assert set(np.unique(instances)) == set(range(len(row["labels"]) + 1))
        for number, (label, box) in enumerate(
            zip(row["labels"], row["boxes"], strict=True), 1
        ):
            top, left, bottom, right = box
            inside = instances == number
            assert inside[top:bottom, left:right].sum() == inside.sum() > 0
            assert inside[top].any()
            assert inside[bottom - 1].any()
            assert inside[:, left].any()
            assert inside[:, right - 1].any()
            assert (mask[inside] == label).all()
        assert (mask[instances == 0] == 0).all()
        # The ground is grey, and what lies on it is not.
        ground = row["image"][instances == 0]
        assert np.abs(np.diff(ground.astype(int), axis=-1)).mean() < 12
    assert counts == {1, 2, 3}
    again = scenes.load("train", size=30, side=48, **LOAD)
    assert again.facts["fingerprint"] == found.facts["fingerprint"]
    np.testing.assert_array_equal(again.rows[7]["image"], found.rows[7]["image"])
    other = scenes.load("train", size=30, side=48, seed=1, **LOAD)
    assert not np.array_equal(other.rows[7]["image"], found.rows[7]["image"])


def test_no_stamp_is_in_scenes_of_two_splits(collection):
    seen = []
    for split in PARTS:
        rows = scenes.load(split, size=40, side=32, most=1, **LOAD).rows
        seen.append({rows[i]["text"] for i in range(40)})
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]
    with pytest.raises(ValueError, match="shares 0 < low <= high <= 1"):
        scenes.load("train", scale=(0.5, 1.5))


def test_pasting_is_the_formula():
    ground = np.full((6, 7, 3), 100, np.uint8)
    image = np.zeros((2, 3, 4), np.uint8)
    image[..., :3], image[0, :, 3] = 200, (0, 51, 255)
    made, inside = cutouts.paste(ground, image, 1, 2)
    assert made[1, 2:5, 0].tolist() == [100, 120, 200]
    assert inside.sum() == 1
    assert cutouts.box(inside) == (1, 4, 2, 5)
    assert (ground == 100).all()
    with pytest.raises(ValueError, match="nothing is visible"):
        cutouts.box(inside & False)
    assert cutouts.trimmed(np.zeros((3, 3, 4), np.uint8)) is None


def test_rows_are_rendered_once():
    calls = []

    class Rows:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            calls.append(index)
            return {"image": np.full((2, 2), index, np.uint8), "id": f"r{index}"}

    for _ in range(2):
        rows = rendered.once(Rows(), cache.digest("some"))
        assert [rows[i]["id"] for i in range(3)] == ["r0", "r1", "r2"]
        assert rows[2]["image"].tolist() == [[2, 2], [2, 2]]
    assert calls == [0, 1, 2]
    rows[1]["image"][:] = 9  # a copy
    assert rows[1]["image"].max() == 1
    with pytest.raises(IndexError):
        rows[3]


@pytest.mark.slow  # 160 MB to fetch and to decompress
@pytest.mark.network
def test_the_real_stamps_scenes_and_photos(real):
    parts = [real(stamps, s, size=32, ground="white") for s in PARTS]
    assert [len(part.rows) for part in parts] == [219, 33, 66]
    totals = {
        name: sum(part.facts["counts"][name] for part in parts)
        for name in stamps.OBJECTS
    }
    assert totals == {
        "animals": 146,
        "food": 67,
        "household": 32,
        "plants": 39,
        "vehicles": 34,
    }
    everything = real(stamps, "train", size=32, ground="white", categories=None)
    assert len(everything.classes) == 16
    assert everything.facts["left out"]["no caption"] == 11
    held, _ = stamps.collection()
    assert len(held) == 779
    assert len({code for note in held.notes for code in note["captions"]}) > 70
    found = real(scenes, "test", size=5)
    assert found.rows[4]["image"].shape == (96, 96, 3)
    pictures = real(photos, "test")
    assert len(pictures.rows) == 15
    assert pictures.rows[4]["id"] == "chelsea.png"
    assert pictures.rows[4]["image"].shape == (300, 451, 3)


def test_without_a_registry_the_way_out_is_said(monkeypatch):
    monkeypatch.setattr(fetch.shutil, "which", lambda _: None)
    for load in (emoji.load, stamps.load):
        with pytest.raises(fetch.Unreachable, match=r"put it at .*downloads"):
            load("train")
