"""The pixels of hidden patches, by hand."""

import numpy as np
import pytest

from fmjax.objectives import mae

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(2, 4, 6, 3)).astype(np.float32)
PIXELS = RNG.normal(size=(2, 6, 12)).astype(np.float32)
HIDDEN = np.array([[1, 1, 0, 1, 1, 0], [0, 1, 1, 0, 1, 1]], bool)


def apply(params, extras, inputs, key=None):
    return (PIXELS, HIDDEN), extras


def patch(image, i):
    """Patch i of 2 x 3 patches of 2 x 2 pixels, as a flat list, pixel by pixel."""
    row, column = divmod(i, 3)
    cut = image[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
    return cut.reshape(-1).astype(float)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("mask", [(1, 1), (1, 0)])
def test_sums_over_hidden_patches_of_real_rows(normalised, mask):
    total = 0.0
    for b in range(2):
        for i in np.flatnonzero(HIDDEN[b] * mask[b]):
            target = patch(IMAGE[b], i)
            if normalised:
                target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
            total += ((PIXELS[b, i] - target) ** 2).mean()
    for inputs in (IMAGE, {"image": IMAGE}):
        batch = {"inputs": inputs, "mask": np.array(mask, np.float32)}
        losses, metrics, _ = mae.objective(
            apply, {}, {}, batch, None, normalised=normalised
        )
        assert metrics == {}
        assert float(losses["mae"][0]) == pytest.approx(total, rel=1e-5)
        assert float(losses["mae"][1]) == 4 * sum(mask)


def test_patches_of_another_image_are_refused():
    batch = {"inputs": IMAGE[:, :, :4], "mask": np.ones(2, np.float32)}
    with pytest.raises(ValueError, match="are not those of"):
        mae.objective(apply, {}, {}, batch, None)
