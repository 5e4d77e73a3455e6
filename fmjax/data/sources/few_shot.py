"""Few examples a class of another source's training split: an episode."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fmjax.data import cache, source
from fmjax.data.source import Row, Rows, Source, fraction


def load(
    split: str, *, corpus: Mapping[str, Any], per_class: int, episode: int = 0
) -> Source:
    """The corpus's rows; of its training split, `per_class` of each class alone.

    corpus: {'name': a source with `label`s, and its fields}; its other splits stay
    whole. episode: another number draws other rows. They are ordered by sha256 of the
    episode and the row's place, so that a smaller draw is part of a larger one.
    Raises ValueError where per_class is below 1 or more than a class has, and for rows
    without classes.
    """
    if per_class < 1:
        raise ValueError(f"few_shot.per_class is {per_class}; 1 or more")
    found = source.read(corpus, split)
    if not found.classes:
        raise ValueError(f"few_shot needs classes, and {corpus['name']} has none")
    if split != "train":
        return found
    labels = [found.rows[i]["label"] for i in range(len(found.rows))]
    drawn: list[int] = []
    for number, name in enumerate(found.classes):
        own = [place for place, label in enumerate(labels) if label == number]
        if len(own) < per_class:
            raise ValueError(
                f"few_shot.per_class is {per_class}, but {name!r} has {len(own)} "
                f"examples in {corpus['name']}"
            )
        drawn += sorted(own, key=lambda p: fraction(f"{episode} {p}"))[:per_class]
    places = tuple(sorted(drawn))
    facts = {
        "rows": len(places),
        "per class": per_class,
        "episode": episode,
        "fingerprint": cache.digest(
            "few_shot", found.facts.get("fingerprint"), list(places)
        ),
    }
    return Source(Chosen(found.rows, places), found.classes, found.facts | facts)


@dataclass(frozen=True)
class Chosen:
    """Some of the rows, by their places."""

    rows: Rows
    places: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Row:
        return self.rows[self.places[index]]
