"""Texts' vectors by the text tower of a trained run, for zero-shot classification.

CLIP: Radford et al. 2021, section 3.1.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fmjax import config, parallel, workdir


def encode(
    run: workdir.Run, texts: Sequence[str], params: Any, extras: Any
) -> np.ndarray:
    """Unit vectors float32 [N, E] of texts, tokenised as the run's own are.

    params, extras: the run's weights. Raises ConfigError for a run without texts beside
    its images, ValueError where there is no text.
    """
    said = run.parts.predict
    if said is None or run.settings["inputs"]["name"] != "image_text":
        raise config.ConfigError(
            f"{run.folder} was not trained on images and texts: prompts are for a run "
            "with inputs.name='image_text'"
        )
    if not texts:
        raise ValueError("no texts to encode")
    blank = np.zeros(run.shapes["image"], np.uint8)
    data = run.batches([{"image": blank, "text": text, "id": text} for text in texts])
    predict = jax.jit(functools.partial(said, run.apply))
    plan, found = run.plan._replace(how="jit"), []
    for i in range(len(data)):
        vectors = predict(params, extras, parallel.put(data.at(i), plan))["text"]
        found.append(parallel.gather(vectors))
    return np.concatenate(found)[: len(texts)]


def classes(
    run: workdir.Run,
    params: Any,
    extras: Any,
    templates: Sequence[str] = ("{}",),
) -> np.ndarray:
    """[C, M, E]: the run's classes in each of M templates, as 'a photo of a {}.'

    For `prompts` of `metrics.zero_shot`. Raises ConfigError for a run without classes.
    """
    if not run.classes:
        raise config.ConfigError(f"{run.folder}: its data have no classes to ask for")
    names = [words(name) for name in run.classes]
    texts = [template.replace("{}", name) for name in names for template in templates]
    found = encode(run, texts, params, extras)
    return found.reshape(len(names), len(templates), -1)


def words(name: str) -> str:
    """A class's name as a text: 'Smileys & Emotion' is 'smileys emotion'."""
    return " ".join(name.replace("&", " ").replace("_", " ").lower().split())
