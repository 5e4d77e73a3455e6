"""Two views, image and text, image and mask, mixed batches; scenes without files."""

import threading
import time

import jax
import numpy as np
import pytest

from fmjax.data import vocabulary
from fmjax.data.batches import Batches
from fmjax.data.inputs import image, image_mask, image_text, two_views
from fmjax.data.sources import synthetic_images, synthetic_scenes


@pytest.fixture(scope="module")
def scenes():
    return synthetic_scenes.load("train", size=40)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    texts = ["a red circle at the top left", "a photo of blue green squares"]
    path = tmp_path_factory.mktemp("words")
    return {
        kind: vocabulary.train(kind, texts, 300, path / f"{kind}.json")
        for kind in ("wordpiece", "bpe", "words")
    }


def rng(seed=0):
    return np.random.default_rng(seed)


def test_scenes_agree_with_their_masks_and_captions(scenes):
    assert scenes.classes[0] == "background"
    for i in range(40):
        row = scenes.rows[i]
        mask, label = row["mask"], row["label"]
        assert row["image"].shape == (32, 32, 3)
        assert mask.shape == (32, 32)
        assert set(np.unique(mask)) == {0, label}
        _, colour, kind, _, _, *place = row["text"].split()
        assert kind == scenes.classes[label]
        inside = row["image"][mask > 0].mean(0)
        np.testing.assert_allclose(inside, synthetic_scenes.COLOURS[colour], atol=12)
        assert row["image"][mask == 0].mean() < 70
        y, x = (axis.mean() for axis in mask.nonzero())
        assert " ".join(place) == f"{'top' if y < 16 else 'bottom'} " + (
            "left" if x < 16 else "right"
        )
        np.testing.assert_array_equal(row["image"], scenes.rows[i]["image"])
    test = synthetic_scenes.load("test", size=40)
    assert len(test.rows) == 10
    assert not np.array_equal(test.rows[0]["image"], scenes.rows[0]["image"])
    with pytest.raises(ValueError, match="of 8 pixels at least"):
        synthetic_scenes.load("train", shape=(4, 32, 3))
    with pytest.raises(IndexError):
        scenes.rows[40]


def test_two_views_differ_and_follow_the_generator(scenes):
    make = two_views.make(size=16)
    row = scenes.rows[0]
    views = make(row, rng(1))["inputs"]
    assert set(views) == {"view1", "view2"}
    for view in views.values():
        assert view.shape == (16, 16, 3)
        assert view.dtype == np.float32
        assert -1e-6 <= view.min() <= view.max() <= 1 + 1e-6
    assert not np.array_equal(views["view1"], views["view2"])
    np.testing.assert_array_equal(make(row, rng(1))["inputs"]["view2"], views["view2"])
    assert not np.array_equal(make(row, rng(2))["inputs"]["view1"], views["view1"])
    # Evaluation: the same every time, and other pixels draw otherwise.
    still = [make(row, None)["inputs"]["view1"] for _ in range(2)]
    np.testing.assert_array_equal(*still)
    assert make(row, None)["label"] == row["label"]
    # And the image itself, which features are of, as a classifier's evaluation has it.
    made = two_views.make(size=16, centre=0.875)(row, None)["inputs"]["image"]
    plain = image.make(size=16, centre=0.875, resample="bicubic")(row, None)["inputs"]
    np.testing.assert_array_equal(made, plain)


def test_two_views_keep_the_images_size_and_grey(scenes):
    grey = {"image": scenes.rows[0]["image"][:28, :24, :1]}
    found = two_views.make(strength=0.5, blur=0.0)(grey, rng())
    assert found["inputs"]["view1"].shape == (28, 24, 1)
    assert "label" not in found
    # Without anything random but the crop of everything, a view is the image.
    plain = two_views.make(area=(1, 1), flip=False, strength=0, grey=0, blur=0)
    square = {"image": grey["image"][:24, :24]}
    np.testing.assert_allclose(
        plain(square, rng())["inputs"]["view2"], square["image"] / 255, atol=1e-6
    )
    with pytest.raises(ValueError, match=r"from 0 to 2\.5"):
        two_views.make(strength=3)
    with pytest.raises(ValueError, match="chance, 0 to 1"):
        two_views.make(blur=2)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "words"])
def test_image_and_text(scenes, words, kind):
    tokenizer = words[kind]
    row = scenes.rows[0] | {"text": "a red circle"}
    make = image_text.make(tokenizer=tokenizer, length=30, size=16)
    found = make(row, None)
    inputs = found["inputs"]
    assert inputs["image"].shape == (16, 16, 3)
    assert inputs["tokens"].shape == inputs["mask"].shape == (30,)
    assert inputs["mask"].sum() == inputs["mask"].argmin()
    real = inputs["tokens"][inputs["mask"]]
    assert tokenizer.decode(real.tolist()).strip() == "a red circle"
    ends = {"wordpiece": "[SEP]", "bpe": "<|endoftext|>", "words": "</s>"}
    assert real[-1] == tokenizer.token_to_id(ends[kind])
    assert found["label"] == row["label"]
    short = image_text.make(tokenizer=tokenizer, length=3, size=16)(row, None)["inputs"]
    assert short["mask"].all()
    assert short["tokens"][-1] == real[-1]


def test_texts_and_templates_are_drawn_in_training_alone(scenes, words):
    tokenizer = words["words"]
    row = scenes.rows[0] | {"text": ["red", "blue", "green"]}
    make = image_text.make(
        tokenizer=tokenizer, length=8, templates=("{}", "a photo of {}")
    )

    def said(generator):
        inputs = make(row, generator)["inputs"]
        ids = inputs["tokens"][inputs["mask"]][:-1]
        return " ".join(tokenizer.id_to_token(i) for i in ids)

    assert said(None) == "red"
    assert {said(rng(s)) for s in range(60)} == {
        start + word for start in ("", "a photo of ") for word in row["text"]
    }
    with pytest.raises(ValueError, match=r"'a photo' needs one \{\}"):
        image_text.make(tokenizer=tokenizer, templates=("a photo",))
    with pytest.raises(ValueError, match="row 3: `text` is None"):
        make({"image": row["image"], "id": 3}, None)
    with pytest.raises(ValueError, match="3 or more"):
        image_text.make(tokenizer=tokenizer, length=2)


def test_an_image_and_its_mask_go_together(scenes):
    """A mask that is the image's own red channel stays that, whatever happens."""
    row = scenes.rows[1]
    mask = (row["image"][..., 0] // 2).astype(np.uint8)
    twin = {"image": np.repeat(mask[..., None], 3, -1), "mask": mask}
    make = image_mask.make(size=20, area=(0.2, 0.8), flip=True, resample="nearest")
    seen = set()
    for seed in range(20):
        found = make(twin, rng(seed))
        np.testing.assert_allclose(
            found["inputs"][..., 1] * 255, found["targets"], atol=1e-3
        )
        seen.add(found["targets"].tobytes())
    assert len(seen) == 20
    assert found["targets"].dtype == np.int32
    whole = image_mask.make(flip=True)(twin, None)
    np.testing.assert_array_equal(whole["targets"], mask)
    mirrored = [image_mask.make(flip=True)(twin, rng(s))["targets"] for s in range(40)]
    backward = sum(np.array_equal(m, mask[:, ::-1]) for m in mirrored)
    assert 8 < backward < 32
    coloured = image_mask.make(jitter=(0.5, 0.5, 0, 0))(row, rng())
    np.testing.assert_array_equal(coloured["targets"], row["mask"])
    assert not np.allclose(coloured["inputs"] * 255, row["image"], atol=2)


def test_pixels_that_do_not_count_and_wrong_masks(scenes):
    row = dict(scenes.rows[2])
    row["mask"] = row["mask"].copy()
    row["mask"][:3] = 255
    found = image_mask.make(classes=5)(row, None)
    assert found["weights"][:3].sum() == 0
    assert found["weights"][3:].all()
    assert found["targets"].max() < 5
    del row["mask"]
    assert image_mask.make()(row, None)["weights"].sum() == 0
    with pytest.raises(ValueError, match=r"row 2: `mask` is uint8 .* not uint8"):
        image_mask.make()(row | {"mask": np.zeros((4, 4), np.uint8)}, None)
    with pytest.raises(ValueError, match="row 2: class 9 in the mask, and there are 5"):
        image_mask.make(classes=5)(row | {"mask": np.full((32, 32), 9, np.uint8)}, None)


def test_images_of_any_size_come_to_one():
    sizes = [(40, 60, 3), (17, 9, 3), (2, 300, 3)]
    rows = [
        {"image": rng(i).integers(0, 256, s, np.uint8)} for i, s in enumerate(sizes)
    ]
    make = image.make(
        size=(12, 16), area=(0.08, 1), centre=0.875, flip=True,
        jitter=(0.4, 0.4, 0.4, 0.1), randaugment=(2, 9), erase=0.5,
    )  # fmt: skip
    for row in rows:
        assert make(row, None)["inputs"].shape == (12, 16, 3)
        found = [make(row, rng(s))["inputs"] for s in range(8)]
        assert {f.shape for f in found} == {(12, 16, 3)}
        assert len({f.tobytes() for f in found}) == 8
        again = make(row, rng(3))["inputs"]
        np.testing.assert_array_equal(again, found[3])


@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_threads_change_nothing_but_the_time(mixup):
    rows = synthetic_images.load("train", size=23, shape=(9, 9, 1)).rows
    settings = {"crop": 2, "flip": True, "randaugment": (2, 9), "mixup": mixup}
    one = Batches(rows, image.make(**settings), 8, seed=3)
    many = Batches(rows, image.make(**settings, threads=4), 8, seed=3)
    for step in range(2):
        jax.tree.map(np.testing.assert_array_equal, one.at(step), many.at(step))
    names = set()

    class Spied:
        threads = 3

        def __call__(self, row, rng):
            names.add(threading.current_thread().name)
            time.sleep(0.01)
            return {"inputs": row["image"]}

    Batches(rows, Spied(), 8, seed=None).at(0)
    assert len(names) == 3
    with pytest.raises(ValueError, match="threads=0: 1 or more"):
        image.make(threads=0)


class TestMixedBatches:
    def make(self, **fields):
        rows = synthetic_images.load("train", size=23, shape=(8, 8, 1)).rows
        return Batches(rows, image.make(mixup=0.3, cutmix=1.0), 8, seed=4, **fields)

    def test_any_number_of_hosts_mixes_the_same(self):
        whole = [self.make().at(step) for step in range(2)]
        parts = [
            [self.make(host=h, hosts=4).at(step) for h in range(4)] for step in range(2)
        ]
        for one, many in zip(whole, parts, strict=True):
            joined = jax.tree.map(lambda *x: np.concatenate(x), *many)
            jax.tree.map(np.testing.assert_array_equal, one, joined)
        assert set(whole[0]) == {"inputs", "label", "label2", "share", "mask"}
        pairs = whole[0]["share"].reshape(4, 2)
        np.testing.assert_array_equal(pairs[:, 0], pairs[:, 1])
        assert len(np.unique(pairs)) == 4

    def test_the_sum_of_a_batch_is_that_of_its_images(self):
        rows = synthetic_images.load("train", size=23, shape=(8, 8, 1)).rows
        plain = Batches(rows, image.make(), 8, seed=4).at(1)
        mixed = self.make().at(1)
        np.testing.assert_array_equal(mixed["label"], plain["label"])
        np.testing.assert_array_equal(
            mixed["label2"], plain["label"].reshape(4, 2)[:, ::-1].ravel()
        )
        np.testing.assert_allclose(
            mixed["inputs"].sum(0), plain["inputs"].sum(0), rtol=1e-5
        )

    def test_evaluation_mixes_nothing(self):
        rows = synthetic_images.load("test", size=23, shape=(8, 8, 1)).rows
        data = Batches(rows, image.make(mixup=0.3), 5, seed=None)
        assert set(data.at(0)) == {"inputs", "label", "mask"}

    def test_an_odd_share_is_refused(self):
        with pytest.raises(
            ValueError, match="leaves 1 examples a host: they are mixed"
        ):
            self.make(hosts=8)
