"""Scaling, flips and crops."""

import numpy as np
import pytest

from fmjax.data.inputs import image


@pytest.fixture
def row():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    return {"image": pixels, "label": 2, "id": 9}


def test_scaling(row):
    example = image.make(mean=(0.1, 0.2, 0.3), std=0.5)(row, None)
    expected = (row["image"] / 255 - np.array([0.1, 0.2, 0.3])) / 0.5
    np.testing.assert_allclose(example["inputs"], expected, atol=1e-6)
    assert example["inputs"].dtype == np.float32
    assert example["label"] == 2
    assert example["label"].dtype == np.int32
    assert "label" not in image.make()({"image": row["image"]}, None)


def test_evaluation_does_not_move_and_training_follows_its_generator(row):
    make = image.make(flip=True, crop=2)
    still = make(row, None)["inputs"]
    np.testing.assert_allclose(still, row["image"] / np.float32(255), atol=1e-6)
    moved = [make(row, np.random.default_rng(s))["inputs"] for s in range(20)]
    again = make(row, np.random.default_rng(3))["inputs"]
    np.testing.assert_array_equal(again, moved[3])
    assert len({m.tobytes() for m in moved}) > 10


def test_flip_mirrors_half_of_the_images(row):
    rng = np.random.default_rng(0)
    make = image.make(flip=True)
    plain = make(row, None)["inputs"]
    mirrored = 0
    for _ in range(1000):
        found = make(row, rng)["inputs"]
        if np.array_equal(found, plain[:, ::-1]):
            mirrored += 1
        else:
            np.testing.assert_array_equal(found, plain)
    assert abs(mirrored - 500) < 60


def test_a_crop_is_a_window_of_the_padded_image(row):
    make = image.make(crop=1)
    padded = np.pad(row["image"], ((1, 1), (1, 1), (0, 0)))
    windows = {
        (padded[t : t + 6, x : x + 5].astype(np.float32) / np.float32(255)).tobytes()
        for t in range(3)
        for x in range(3)
    }
    rng = np.random.default_rng(0)
    seen = {make(row, rng)["inputs"].tobytes() for _ in range(200)}
    assert seen == windows


def test_other_shapes_and_types_are_refused(row):
    with pytest.raises(
        ValueError, match=r"row 9: .*\(6, 5, 3\), not \(6, 6, 3\); resize"
    ):
        image.make(shape=(6, 6, 3))(row, None)
    with pytest.raises(ValueError, match=r"not \[H, W, C\]"):
        image.make()({"image": row["image"][..., 0]}, None)
    with pytest.raises(ValueError, match="`image` is float64, not an array of uint8"):
        image.make()({"image": row["image"] / 2}, None)
    with pytest.raises(ValueError, match="`image` is NoneType"):
        image.make()({}, None)
    with pytest.raises(ValueError, match="must be positive"):
        image.make(std=0)
