"""TFDS data sets of our own, prepared without TensorFlow and read by index.

Rows are prepared once into array_record files under home()/tfds. A large set is read at
random from there; a small one is held in memory, because a read of one record costs far
more (0.2 ms) than the same record in a read of many (0.01 ms).
"""

import abc
import contextlib
import functools
import hashlib
import io
import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from fmjax.data import cache
from fmjax.data.source import Mapped, Row, Source, check_split

_HELD = 256 << 20  # bytes of encoded rows, and of decoded ones


class Builder(  # type: ignore[call-arg]
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """A TFDS builder whose splits come from `rows()`.

    A subclass sets the constants and implements `features` (TFDS features by name) and
    `rows`, which returns the splits, as iterables of dicts, and the facts that only the
    preparation knows (counts of what was left out, say).
    """

    VERSION = tfds.core.Version("1.0.0")
    TITLE = ""
    ORIGIN = ""
    LICENCE = ""
    CITATION = ""

    @abc.abstractmethod
    def features(self) -> dict[str, Any]:
        """TFDS features by name."""

    @abc.abstractmethod
    def rows(self) -> tuple[dict[str, Iterable[Row]], dict[str, Any]]:
        """The splits' rows, and the facts that only the preparation knows."""

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.TITLE,
            citation=self.CITATION,
            license=self.LICENCE,
            features=tfds.features.FeaturesDict(self.features()),
            disable_shuffling=True,  # rows keep the order in which they are given
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # what is needed comes through fetch, pinned
        self.content = hashlib.sha256()
        splits, self.found = self.rows()
        return {name: self._keyed(name, rows) for name, rows in splits.items()}

    def _keyed(self, split: str, rows: Iterable[Row]) -> Iterator[tuple[int, Row]]:
        for key, row in enumerate(rows):
            for name, value in sorted(row.items()):
                array = isinstance(value, np.ndarray)
                self.content.update(f"{split}/{key}/{name}:".encode())
                self.content.update(value.tobytes() if array else str(value).encode())
            yield key, row

    def _generate_examples(self, *_: Any) -> Any:
        raise AssertionError("the splits are given as generators")


def load(builder: type[Builder], split: str, classes: tuple[str, ...] = ()) -> Source:
    """One split of a builder's data set, prepared on first use; text is str.

    Raises ValueError on an unknown split, and what the builder's `rows` raises.
    """
    check_split(split)
    root = cache.home() / "tfds"
    facts_file = root / f"{builder.name}-{builder.VERSION}.json"
    with quiet():
        # The facts are written last: where they are, the records are whole.
        cache.once(facts_file, functools.partial(_prepare, builder, root))
        made = builder(data_dir=root, file_format="array_record")
        data = made.as_data_source(split=split)
    facts = json.loads(facts_file.read_text())
    return Source(held(data), classes, facts | {"split": split})


def held(data: Any) -> Mapped:
    """The decoded rows of a TFDS data source, from memory where the set is small."""
    if data.dataset_info.dataset_size > _HELD or not len(data):
        return Mapped(data, decode)
    records = data.data_source.__getitems__(range(len(data)))
    return Mapped(Held(records, data.dataset_info.features), dict)


class Held:
    """Rows in memory, each encoded until it is first asked for; no array is writable.

    To decode one takes TFDS half of what a row of 28 x 28 pixels takes in all. Decoded
    arrays are kept up to 256 MiB: those of JPEG files are many times their records.
    """

    def __init__(self, records: Iterable[bytes], features: Any):
        self.rows: list[bytes | Row] = list(records)
        self.features, self.room = features, _HELD

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        row = self.rows[index]
        if isinstance(row, bytes):
            row = decode(self.features.deserialize_example_np(row))
            arrays = [x for x in row.values() if isinstance(x, np.ndarray)]
            for array in arrays:
                array.setflags(write=False)
            size = sum(array.nbytes for array in arrays)
            if size <= self.room:
                self.room -= size
                self.rows[index] = row
        return row


def decode(row: Row) -> Row:
    """A TFDS row with str for bytes, and int and float for scalars."""
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.integer | np.floating) else value


def _prepare(builder: type[Builder], root: Any, facts_file: Any) -> None:
    made = builder(data_dir=root, file_format="array_record")
    if made.data_path.exists():  # prepared, but stopped before the facts were written
        shutil.rmtree(made.data_path)
        made = builder(data_dir=root, file_format="array_record")
    made.download_and_prepare()
    facts = {
        "name": made.name,
        "title": made.TITLE,
        "origin": made.ORIGIN,
        "version": str(made.VERSION),
        "licence": made.LICENCE,
        "citation": made.CITATION,
        **made.found,
        "counts": {name: s.num_examples for name, s in made.info.splits.items()},
        "bytes": made.info.dataset_size,
        "fingerprint": made.content.hexdigest(),
    }
    facts_file.write_text(json.dumps(facts, indent=1, ensure_ascii=False))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep TFDS's banners and bars off the console; errors still come through."""
    tfds.disable_progress_bar()
    loggers = [logging.getLogger(name) for name in ("absl", "urllib3.connectionpool")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
