"""torchvision's MobileNetV2, from its package: real weights name real photos."""

import jax
import numpy as np
import pytest

from fmjax import interop
from fmjax.data import fetch, weights
from fmjax.data.inputs import image
from fmjax.data.sources import photos

# Places in ImageNet's list of classes, whose names are in no file here: Egyptian cat,
# espresso, tripod. The probabilities are of a centre square that begins at a whole
# pixel, scaled to 224; half a pixel further on, the cat's is .784.
SEEN = {
    "chelsea.png": (285, 0.80),
    "coffee.png": (967, 0.99),
    "camera.png": (872, 0.997),
}


def square(picture):
    height, width, _ = picture.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[top : top + side, left : left + side]


@pytest.mark.network
def test_mobilenet_names_a_cat_an_espresso_and_a_tripod():
    try:
        folder = weights.directory("mobilenet-v2")
        rows = photos.load("test", names=list(SEEN)).rows
    except fetch.Unreachable as error:
        pytest.skip(f"registry out of reach: {error}")
    net, variables = interop.load(folder)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == 3_504_872
    make = image.make(size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    pixels = np.stack(
        [make({"image": square(rows[i]["image"])}, None)["inputs"] for i in range(3)]
    )
    said = np.asarray(jax.nn.softmax(jax.jit(net.apply)(variables, pixels)))
    for name, probabilities in zip(SEEN, said, strict=True):
        label, probability = SEEN[name]
        assert probabilities.argmax() == label, name
        assert probabilities[label] == pytest.approx(probability, abs=0.01), name
