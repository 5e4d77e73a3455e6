"""The photos that come with scikit-image: a cat, a cup of coffee, textures, the moon.

A few real pictures to look at what a network says, and the grounds of composed scenes.
"""

import functools
from pathlib import Path

import numpy as np

from fmjax.data import cache, fetch
from fmjax.data.images import decode
from fmjax.data.source import Source, check_split

PHOTOS = {  # file -> what it shows
    "astronaut.png": "an astronaut, Eileen Collins",
    "brick.png": "a brick wall",
    "camera.png": "a photographer with a camera on a tripod",
    "cell.png": "a cell under the microscope",
    "chelsea.png": "a cat",
    "coffee.png": "a cup of espresso on a saucer",
    "coins.png": "coins from Pompeii",
    "grass.png": "grass",
    "gravel.png": "gravel",
    "hubble_deep_field.jpg": "galaxies",
    "ihc.png": "stained tissue",
    "moon.png": "the surface of the moon",
    "motorcycle_left.png": "a motorcycle in a workshop",
    "retina.jpg": "the retina of an eye",
    "rocket.jpg": "a rocket on its launch pad",
}
_VERSION = "0.25.2"
_SHA256 = "e5a37e6cd4d0c018a7a55b9d601357e3382826d3888c10d0213fc63bff977dde"
FACTS = {
    "origin": f"PyPI source distribution scikit-image {_VERSION}, skimage/data",
    "sha256": _SHA256,
    "licence": "public domain or CC0 in the main; each photo's is in skimage/data's "
    "_fetchers.py; the package is BSD-3-Clause",
    "citation": "van der Walt et al. 2014, scikit-image, PeerJ 2:e453",
}


def load(split: str, *, names: tuple[str, ...] | list[str] | None = None) -> Source:
    """Rows of `image` (uint8 [H, W, 3], sizes differ), `text` and `id` (the file).

    There is only a test split. names: files to take, in this order; all without.
    """
    check_split(split, ("test",))
    chosen = list(names or PHOTOS)
    odd = sorted(set(chosen) - set(PHOTOS))
    if odd:
        raise ValueError(f"no photo {odd[0]!r}: {', '.join(PHOTOS)}")
    rows = [{"image": read(n), "text": PHOTOS[n], "id": n} for n in chosen]
    return Source(
        rows,
        (),
        {
            "name": "photos",
            "split": split,
            "rows": len(rows),
            "fingerprint": cache.digest("photos", _SHA256, chosen),
        }
        | FACTS,
    )


@functools.cache
def read(name: str) -> np.ndarray:
    """A photo, uint8 [H, W, 3], not to be written to."""
    image = decode.decode(folder() / name)
    image.flags.writeable = False
    return image


def folder() -> Path:
    """The directory with the photos, fetched on first use."""
    root = f"scikit_image-{_VERSION}"
    # A wheel is of one platform; the source distribution is the same for all.
    package = fetch.package(
        "sdist",
        "scikit-image",
        _VERSION,
        _SHA256,
        filename=f"{root}.tar.gz",
        members=[f"{root}/skimage/data/{name}" for name in PHOTOS],
    )
    return package / root / "skimage" / "data"
