"""Zero-shot classification by texts (Radford et al. 2021, section 3.1)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fmjax.metrics import classification


def compute(
    *,
    image: ArrayLike,
    labels: ArrayLike,
    prompts: ArrayLike,
    classes: Sequence[str] | int,
    scale: float = 100.0,
) -> dict[str, Any]:
    """As `metrics.classification`, of the classes whose texts are nearest.

    image: floating [N, E]; labels: integers [N]; prompts: the texts' vectors [C, E], or
    [C, M, E] of M texts a class, of which the mean is taken (section 3.1.4); classes:
    the C names, or C; scale: the inverse temperature of the probabilities.
    Raises ValueError where shapes do not fit, or a vector has no length.
    """
    weights = classifier(prompts)
    images = normalised(image, "image")
    if images.ndim != 2 or images.shape[1] != weights.shape[1]:
        raise ValueError(f"image is {images.shape}, prompts are {np.shape(prompts)}")
    logits = scale * images @ weights.T
    odds = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = odds / odds.sum(1, keepdims=True)
    found: dict[str, Any] = classification.compute(
        labels=labels, probabilities=probabilities, classes=classes
    )
    return found


def classifier(prompts: ArrayLike) -> np.ndarray:
    """Prompts' vectors [C, E] or [C, M, E] to one of length 1 a class, [C, E]."""
    vectors = normalised(prompts, "prompts")
    if vectors.ndim == 2:
        return vectors
    if vectors.ndim != 3:
        raise ValueError(f"prompts are {vectors.shape}, not [C, E] or [C, M, E]")
    return normalised(vectors.mean(1), "prompts")


def normalised(x: ArrayLike, name: str) -> np.ndarray:
    """float64 x [..., E] with rows of length 1; ValueError where one has none."""
    x = np.asarray(x, np.float64)
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    if not np.isfinite(length).all() or (length == 0).any():
        raise ValueError(f"{name} has rows that are zero or not finite")
    return x / length
