"""Any TensorFlow Datasets name: prepared already, or downloaded where that works."""

import contextlib
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from fmjax.data import builders, cache
from fmjax.data.source import Mapped, Row, Source, check_split


def load(
    split: str,
    *,
    dataset: str,
    data_dir: str | None = None,
    image: str | None = None,
    text: str | None = None,
    text2: str | None = None,
    label: str | None = None,
    train: str = "train[:90%]",
    validation: str = "train[90%:]",
    test: str = "test",
) -> Source:
    """Rows of a TFDS data set in array_record files, read without TensorFlow.

    dataset: a TFDS name, such as 'mnist' or 'imdb_reviews/plain_text:1.0.0'.
    data_dir: where it is prepared; without it, TFDS's own directory, then home()/tfds.
    image, text, text2, label: the features that become these fields; without them, the
        features of the same names (never text2) where there are such.
    train, validation, test: what each split is in TFDS's split notation.

    Raises ValueError on an unknown set, feature or split, RuntimeError where the set is
    neither prepared nor can be downloaded here; both with the remedy.
    """
    check_split(split)
    with builders.quiet():
        builder = _prepared(dataset, data_dir)
        notation = {"train": train, "validation": validation, "test": test}[split]
        try:
            data = builder.as_data_source(split=notation)
        except (ValueError, KeyError, NotImplementedError) as error:
            known = ", ".join(builder.info.splits)
            raise ValueError(
                f"{dataset}: no split {notation!r} in array_record files ({error}). It "
                f"has the splits {known}: set data.{split}=..., or prepare the set "
                f"anew: {_command(dataset)}"
            ) from error
    features = data.dataset_info.features
    keys = _keys(dataset, features, image=image, text=text, text2=text2, label=label)
    label_feature = features[keys["label"]] if "label" in keys else None
    names: Sequence[str] = getattr(label_feature, "names", None) or ()
    facts = {
        "name": "tfds",
        "origin": builder.info.full_name,
        "title": " ".join(builder.info.description.split())[:200],
        "licence": builder.info.redistribution_info.license or "not stated by TFDS",
        "citation": builder.info.citation,
        "split": notation,
        "rows": len(data),
        "fingerprint": cache.digest(
            *("tfds", builder.info.full_name, notation, len(data), keys),
            [(k, s.num_examples, s.num_bytes) for k, s in builder.info.splits.items()],
        ),
    }
    return Source(
        Mapped(Numbered(builders.held(data)), _Pick(keys)), tuple(names), facts
    )


class Numbered:
    """(number, row) by number."""

    def __init__(self, rows: Any):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, Row]:
        return index, self.rows[index]


class _Pick:
    def __init__(self, keys: dict[str, str]):
        self.keys = keys

    def __call__(self, item: tuple[int, Row]) -> Row:
        number, row = item
        return {field: row[key] for field, key in self.keys.items()} | {"id": number}


def _keys(dataset: str, features: Any, **asked: str | None) -> dict[str, str]:
    keys = {}
    for field, key in asked.items():
        if key is not None and key not in features:
            raise ValueError(
                f"{dataset} has no feature {key!r} for {field}; its features are "
                f"{', '.join(features)}"
            )
        if key is not None or (field in features and field != "text2"):
            keys[field] = key or field
    if "image" not in keys and "text" not in keys:
        raise ValueError(
            f"{dataset} has neither a feature 'image' nor 'text', but "
            f"{', '.join(features)}: say which to use with data.image=... or "
            f"data.text=..."
        )
    return keys


def _command(dataset: str) -> str:
    return (
        f"`pip install tensorflow` and `tfds build {dataset} "
        f"--file_format=array_record "
        "--data_dir=DIR` on a machine with a network, then data.data_dir=DIR"
    )


def _prepared(dataset: str, data_dir: str | None) -> Any:
    """A builder whose files are there. TFDS raises many types; the remedy is one."""
    home = cache.home() / "tfds"
    places = [str(Path(data_dir).expanduser())] if data_dir else [None, str(home)]
    try:
        for place in places:
            builder = tfds.builder(dataset, data_dir=place, file_format="array_record")
            if builder.is_prepared():
                return builder
    except tfds.core.registered.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(dataset.partition("/")[0], known, n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(
            f"TFDS has no data set {dataset!r}; {hint}A set that you prepared yourself "
            "is found with data.data_dir=DIR"
        ) from error
    except Exception as error:
        raise RuntimeError(_cannot(dataset, error)) from error
    try:
        with cache.locked(home / dataset.replace("/", "-")), _few_retries():
            builder.download_and_prepare()
    except Exception as error:
        raise RuntimeError(_cannot(dataset, error)) from error
    return builder


@contextlib.contextmanager
def _few_retries() -> Iterator[None]:
    """TFDS asks a host that does not exist again for more than three minutes."""
    from tensorflow_datasets.core.download import downloader

    usual = downloader.MAX_RETRIES
    downloader.MAX_RETRIES = 3
    try:
        yield
    finally:
        downloader.MAX_RETRIES = usual


def _cannot(dataset: str, error: Exception) -> str:
    first = str(error).strip().splitlines() or [""]
    return (
        f"TFDS cannot prepare {dataset!r} here: {type(error).__name__}: "
        f"{first[0][:300]}. "
        f"It needs the set's server, and often TensorFlow to encode. Prepare it once: "
        f"{_command(dataset)}"
    )
