"""Images and the order of their patches."""

import numpy as np
import pytest

from fmjax.data.inputs import image, masked_image

ROW = {"image": np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)}
OTHER = {"image": ROW["image"] + np.uint8(1), "label": 3, "id": 7}
make = masked_image.make(patch=4, mean=0.5, std=0.25)


def test_the_image_is_that_of_plain_inputs_and_the_order_a_permutation():
    for rng in (None, np.random.default_rng(1)):
        found = make(OTHER, rng)
        plain = image.make(mean=0.5, std=0.25)(OTHER, None)
        np.testing.assert_array_equal(found["inputs"]["image"], plain["inputs"])
        assert found["label"] == 3
        order = found["inputs"]["order"]
        assert order.dtype == np.int32
        assert sorted(order) == list(range(6))
    assert "label" not in make(ROW, None)


def test_training_draws_and_evaluation_follows_the_pixels():
    many = masked_image.make(patch=1)
    first, again = (many(ROW, None)["inputs"]["order"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != many(OTHER, None)["inputs"]["order"]).any()
    drawn = [many(ROW, np.random.default_rng(s))["inputs"]["order"] for s in (1, 1, 2)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()


def test_patches_that_do_not_tile_are_named_with_the_remedy():
    with pytest.raises(ValueError, match=r"row 7: inputs.patch=5 .* 8x12; set"):
        masked_image.make(patch=5)(OTHER, None)
