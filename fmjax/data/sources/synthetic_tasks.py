"""Made-up rows of language tasks that can be learned from, without network or files."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fmjax.data import cache
from fmjax.data.source import SPLITS, Row, Source, check_split
from fmjax.data.sources.synthetic_text import PLACES, SUBJECTS, VERBS

TAGS = ("DET", "ADJ", "NOUN", "VERB", "ADP", "PUNCT")
CHOICES = 4
_ADJECTIVES = ("old", "new", "red", "blue", "small", "great")
_PATTERN = ("DET", "ADJ", "NOUN", "VERB", "ADP", "DET", "NOUN", "PUNCT")


def load(split: str, *, task: str, size: int = 256, seed: int = 0) -> Source:
    """Rows of a task, each a function of its index; all have `id`.

    task: what a row has beside that:
        translation: `source`, English; `target`, its words in mirror writing, with the
            adjective behind its noun;
        tags: `words`, and their `tags`, numbers of TAGS;
        choices: `text`, and `choices`, of which number `label` is about the same thing;
        pairs: `first`, `second` and `score`, the share of four places in a sentence
            where they have the same word;
        questions: `question`, `context`, `answer` and `start`, the answer's first
            character in the context.
    size: rows of the training split; validation and test have a quarter, one at least.
    """
    check_split(split)
    if task not in _TASKS or size < 1:
        raise ValueError(
            f"task={task!r}, size={size}: task is one of {', '.join(_TASKS)}, and size "
            "1 or more"
        )
    number = size if split == "train" else max(size // 4, 1)
    facts = {
        "name": "synthetic_tasks",
        "task": task,
        "origin": "made by a seeded generator",
        "licence": "none needed",
        "split": split,
        "rows": number,
        "fingerprint": cache.digest("synthetic_tasks", 1, task, split, number, seed),
    }
    classes = {"tags": TAGS, "choices": tuple(map(str, range(CHOICES)))}.get(task, ())
    return Source(Rows(task, split, number, seed), classes, facts)


@dataclass(frozen=True)
class Rows:
    """Rows of a task by index."""

    task: str
    split: str
    size: int
    seed: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < self.size:
            raise IndexError(f"row {index} of {self.size:,}")
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        return _TASKS[self.task](rng) | {"id": index}


def _sentence(rng: np.random.Generator) -> list[str]:
    adjective, noun = rng.choice(_ADJECTIVES), rng.choice(SUBJECTS)
    verb, place = rng.choice(VERBS), rng.choice(PLACES)
    return ["the", *map(str, (adjective, noun, verb)), "near", "the", str(place), "."]


def _translation(rng: np.random.Generator) -> Row:
    words = _sentence(rng)
    order = [words[0], words[2], words[1], *words[3:]]
    return {
        "source": " ".join(words),
        "target": " ".join(word[::-1] for word in order),
    }


def _tags(rng: np.random.Generator) -> Row:
    words = _sentence(rng)
    start = int(rng.integers(2))  # half of them without the first word
    return {
        "words": words[start:],
        "tags": [TAGS.index(tag) for tag in _PATTERN[start:]],
    }


def _choices(rng: np.random.Generator) -> Row:
    words, label = _sentence(rng), int(rng.integers(CHOICES))
    others = [noun for noun in SUBJECTS if noun != words[2]]
    nouns = rng.choice(others, CHOICES, replace=False).tolist()
    nouns[label] = words[2]
    said = [f"it is about a {noun}" for noun in nouns]
    return {"text": " ".join(words), "choices": said, "label": label}


def _pairs(rng: np.random.Generator) -> Row:
    first, second = _sentence(rng), _sentence(rng)
    places = np.array([1, 2, 3, 6])
    for place in places[rng.random(4) < 0.5]:
        second[place] = first[place]
    same = sum(first[place] == second[place] for place in places)
    return {
        "first": " ".join(first),
        "second": " ".join(second),
        "score": float(same) / 4,
    }


def _questions(rng: np.random.Generator) -> Row:
    sentences = [_sentence(rng) for _ in range(2)]
    about = sentences[int(rng.integers(2))]
    context, answer = " ".join(" ".join(s) for s in sentences), " ".join(about[:3])
    return {
        "question": f"what {about[3]} near the {about[6]} ?",
        "context": context,
        "answer": answer,
        "start": context.index(" ".join(about)),
    }


_TASKS: dict[str, Callable[[np.random.Generator], Row]] = {
    "translation": _translation,
    "tags": _tags,
    "choices": _choices,
    "pairs": _pairs,
    "questions": _questions,
}
