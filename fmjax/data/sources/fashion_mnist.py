"""Fashion-MNIST (Xiao et al. 2017, https://arxiv.org/abs/1708.07747) from Debian.

60,000 training and 10,000 test images of clothes, 28 x 28 grey, ten balanced classes.
"""

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from fmjax.data import builders, cache, fetch
from fmjax.data.source import Mapped, Row, Source, fraction

CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
_SHA256 = "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"
_FOLDER = "usr/share/datasets/fashion-mnist"
_VALIDATION = 5_000


def load(split: str, *, share: float = 1.0) -> Source:
    """Rows of `image` (uint8 [28, 28, 1]), `label` (0 to 9) and `id` (its place).

    test is the official one; validation is the 5,000 images of the official training
    file whose place has the lowest sha256, and train is the other 55,000. share: of
    the training images, to learn from few; a smaller share is within a larger one.
    Raises ValueError for a share that is none.
    """
    if not 0 < share <= 1:
        raise ValueError(f"data.share={share}: above 0, at most 1")
    try:
        whole = builders.load(FashionMnist, split, CLASSES)
    except (fetch.Unreachable, LookupError) as error:
        raise type(error)(
            f"{error.args[0]}; or let TFDS download the set: data.name=tfds "
            "data.dataset=fashion_mnist"
        ) from error
    return few(whole, share) if split == "train" and share < 1 else whole


def few(whole: Source, share: float) -> Source:
    """The rows whose places in the split have the lowest sha256, one at least."""
    number = max(round(share * len(whole.rows)), 1)
    order = sorted(range(len(whole.rows)), key=lambda i: fraction(f"few {i}"))
    rows = Mapped(sorted(order[:number]), whole.rows.__getitem__)
    facts: dict[str, Any] = {"rows": number, "share": share}
    facts["fingerprint"] = cache.digest(whole.facts["fingerprint"], "few", number)
    return Source(rows, whole.classes, whole.facts | facts)


class FashionMnist(builders.Builder):
    """The data set as TFDS prepares it."""

    TITLE = "Fashion-MNIST"
    ORIGIN = "Debian package dataset-fashion-mnist 0.0~git20200523.55506a9-1"
    LICENCE = "MIT (Expat), copyright 2017 Zalando SE (the package's copyright file)"
    CITATION = "Xiao, Rasul & Vollgraf 2017, Fashion-MNIST, arXiv:1708.07747"

    def features(self) -> dict[str, Any]:
        return {
            # Not `Image`: its encoder wants TensorFlow.
            "image": tfds.features.Tensor(
                shape=(28, 28, 1), dtype=np.uint8, encoding="bytes"
            ),
            "label": tfds.features.ClassLabel(names=list(CLASSES)),
            "id": tfds.features.Scalar(dtype=np.int64),
        }

    def rows(self) -> tuple[dict[str, Iterable[Row]], dict[str, Any]]:
        package = fetch.package(
            "debian",
            "dataset-fashion-mnist",
            "0.0~git20200523.55506a9-1",
            _SHA256,
            members=[f"{_FOLDER}/*.gz"],
        )
        splits = {}
        for name, stem in (("train", "train"), ("test", "t10k")):
            images = read_idx(package / _FOLDER / f"{stem}-images-idx3-ubyte.gz")
            labels = read_idx(package / _FOLDER / f"{stem}-labels-idx1-ubyte.gz")
            splits[name] = images[..., None], labels.astype(np.int64)
        order = sorted(range(len(splits["train"][0])), key=lambda i: fraction(str(i)))
        held, rest = sorted(order[:_VALIDATION]), sorted(order[_VALIDATION:])
        return {
            "train": _rows(*splits["train"], rest),
            "validation": _rows(*splits["train"], held),
            "test": _rows(*splits["test"], range(len(splits["test"][0]))),
        }, {"sha256": _SHA256, "validation": "5,000 of the official training images"}


def _rows(
    images: np.ndarray, labels: np.ndarray, places: Iterable[int]
) -> Iterator[Row]:
    for i in places:
        yield {"image": images[i], "label": int(labels[i]), "id": i}


def read_idx(path: Path, max_bytes: int = 1 << 28) -> np.ndarray:
    """A gzipped idx file of bytes (yann.lecun.com/exdb/mnist) as a uint8 array.

    Raises ValueError where the header and the length do not agree.
    """
    with gzip.open(path) as file:
        data = file.read(max_bytes + 1)
    rank = data[3] if len(data) > 4 and data[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(data[4 : 4 + 4 * rank], ">u4").astype(int)
    if not rank or len(data) != 4 + 4 * rank + int(np.prod(shape)):
        raise ValueError(f"{path.name} is not an idx file of bytes, or is cut short")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)
