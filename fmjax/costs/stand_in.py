"""Settings of a config whose data are not here: made-up rows of the same shapes.

What a step costs depends on the shapes of a batch, which the config tells, and not on
what is in it. So a corpus or a folder of images of the user's own is stood in for by
one of `fmjax.data.sources.synthetic_*`; a vocabulary keeps the size that the tokenizer
is asked for, though the one that is learnt from a few made-up lines is smaller.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from fmjax import config

CLASSES = 1000  # of images, where the data would have told: ImageNet's
STEPS = 1_000_000  # durations in epochs of unknown length are of no weight here

# By the inputs that read them: rows of these.
SOURCES: dict[str, dict[str, Any]] = {
    "choices": dict(name="synthetic_tasks", task="choices"),
    "image": dict(name="synthetic_images", shape=(32, 32, 3), classes=CLASSES),
    "image_mask": dict(name="synthetic_scenes"),
    "image_text": dict(name="synthetic_scenes"),
    "masked_image": dict(name="synthetic_images", shape=(32, 32, 3), classes=CLASSES),
    "question_span": dict(name="synthetic_tasks", task="questions"),
    "sentence_pair_score": dict(name="synthetic_tasks", task="pairs"),
    "seq2seq": dict(name="synthetic_tasks", task="translation"),
    "text": dict(name="synthetic_text"),
    "token_tags": dict(name="synthetic_tasks", task="tags"),
    "two_views": dict(name="synthetic_images", shape=(32, 32, 3), classes=CLASSES),
}
PACKED = ("sentence_pairs", "windows")  # sources that pack a corpus into windows


def settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config's settings, with made-up data; nothing else of a step differs.

    Evaluation, and where parameters begin, are left out: a step is what is asked about.
    Raises config.ConfigError where there is no stand-in.
    """
    made = copy.deepcopy(dict(given))
    inputs, data, model = made["inputs"]["name"], made["data"], made["model"]
    words: dict[str, Any] = dict(name="synthetic_text", size=64)
    if data["name"] in PACKED:
        # About seven pieces a sentence: some windows' worth.
        rows = 64 + data.get("length", 128) // 4
        words |= dict(size=rows, length=8)
        made["data"] = data | {"corpus": words}
        if "copies" in data:
            made["data"]["copies"] = 1
    elif inputs == "mixture":
        names = {task: i["name"] for task, i in made["inputs"]["tasks"].items()}
        rows = {task: dict(_rows(name)) for task, name in names.items()}
        made["data"] = data | {"tasks": rows}
    else:
        made["data"] = dict(_rows(inputs))
        words = made["data"] if inputs in ("image_text", "seq2seq") else words
    if tokenizer := made.get("tokenizer"):
        size = tokenizer.get("vocab_size") or None
        if model.get("vocab_size", 0) is None:
            if size:
                model["vocab_size"] = size
            else:  # a tokenizer that is not here: the published size's own
                del model["vocab_size"]
        kind = tokenizer.get("kind", "wordpiece")
        small = min(size or 512, 512)
        made["tokenizer"] = dict(kind=kind, vocab_size=small, corpus=words)
        made["tokenizer"]["cased"] = tokenizer.get("cased", True)
    if model.get("classes", 0) is None and inputs in ("image", "two_views"):
        model["classes"] = CLASSES
    made |= dict(steps=STEPS, evaluate=None, init_from=None, checkpoint=None, log=None)
    return made


def _rows(inputs: str) -> dict[str, Any]:
    """What stands in for the data that these inputs read."""
    if inputs not in SOURCES:
        raise config.ConfigError(
            f"no stand-in for the data of inputs {inputs!r}; known: "
            f"{', '.join(sorted(SOURCES))}; set --data own to use the config's"
        )
    return SOURCES[inputs]
