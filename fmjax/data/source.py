"""What a source gives: rows by index, class names, facts to print and record."""

import hashlib
import importlib
import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

SPLITS = ("train", "validation", "test")

Row = dict[str, Any]


class Rows(Protocol):
    """Random access: `len(rows)` and `rows[i]`, a pure function of i."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Row: ...


@dataclass(frozen=True)
class Source:
    """One split of one data set.

    rows: dicts of raw values under `text` and `text2` (str), `label` (int), `image`
        (uint8 [H, W, C]), `mask` (uint8 [H, W], class numbers), `id` (str or int); each
        source says which it has.
    classes: names by label; empty where there are no labels.
    facts: what a run prints and records: origin, version, licence, citation, counts,
        rows left out and why, bad rows, and `fingerprint`, a sha256 that changes when
        the rows change.
    """

    rows: Rows
    classes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Mapped:
    """`function` over each row of `rows`, on access."""

    rows: Any
    function: Callable[[Any], Row]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self):,}")
        return self.function(self.rows[index % len(self)])


def check_split(split: str, known: Sequence[str] = SPLITS) -> None:
    """Raises ValueError where `split` is none of the known ones."""
    if split not in known:
        raise ValueError(f"no split {split!r}; the splits are {', '.join(known)}")


def fraction(identity: str | bytes) -> float:
    """A number in [0, 1) by sha256: where an id falls when a set is split."""
    data = identity.encode() if isinstance(identity, str) else identity
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") / 2**64


def split_of(identity: str | bytes, validation: float, test: float) -> str:
    """The split of an id: the first `test` of [0, 1), then `validation`, then train."""
    where = fraction(identity)
    if where < test:
        return "test"
    return "validation" if where < test + validation else "train"


def normal(text: str) -> str:
    """The text without case, punctuation and spacing: equal for near-copies."""
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()


def read(spec: Mapping[str, Any], split: str) -> Source:
    """The source that a spec like {'name': 'csv', 'path': 'a.csv'} stands for.

    For parts of `fmjax.data` that are given a source inside their own fields; the
    error messages of a run's own source are the business of `fmjax.config`.
    """
    fields = dict(spec)
    name = str(fields.pop("name", ""))
    module = f"fmjax.data.sources.{name}"
    if not name.isidentifier() or importlib.util.find_spec(module) is None:
        raise ValueError(
            f"no source {name!r}: a corpus is a dict with a 'name' that is a file of "
            "fmjax/data/sources, and that source's fields"
        )
    source: Source = importlib.import_module(module).load(split, **fields)
    return source
