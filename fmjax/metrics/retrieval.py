"""Do images find their texts, and texts their images? (Recall at k, both ways)"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def compute(
    *, image: ArrayLike, text: ArrayLike, at: Sequence[int] = (1, 5, 10)
) -> dict[str, Any]:
    """Ranks of each row's own partner among all rows' partners by inner product.

    image, text: floating [N, E], row i of one belonging to row i of the other; a
    partner's rank is 1 + the number of others that score higher, and half of those that
    score the same.

    Returns count; for both directions, image_to_text and text_to_image, a dict of
    'recall@k' for each k below N and the median rank; mean_recall, the mean of all
    recalls; chance, a dict of each k's recall by guessing, k / N.
    Raises ValueError for shapes that differ, fewer than two rows, values not finite.
    """
    images, texts = (np.asarray(x, np.float64) for x in (image, text))
    if images.shape != texts.shape or images.ndim != 2 or len(images) < 2:
        raise ValueError(
            f"image {images.shape} and text {texts.shape}: want [N >= 2, E] twice"
        )
    if not (np.isfinite(images).all() and np.isfinite(texts).all()):
        raise ValueError("image and text must be finite")
    ranks = {
        "image_to_text": own_ranks(images, texts),
        "text_to_image": own_ranks(texts, images),
    }
    number = len(images)
    known = [k for k in at if 0 < k < number] or [1]
    result: dict[str, Any] = {"count": number}
    for name, rank in ranks.items():
        recalls = {f"recall@{k}": float((rank <= k).mean()) for k in known}
        result[name] = recalls | {"median_rank": float(np.median(rank))}
    every = [result[name][f"recall@{k}"] for name in ranks for k in known]
    chance = {f"recall@{k}": k / number for k in known}
    return result | {"mean_recall": float(np.mean(every)), "chance": chance}


def own_ranks(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """The rank of candidate i for query i, from 1; [N, E] twice to float [N]."""
    ranks = np.empty(len(queries))
    for start in range(0, len(queries), 1024):  # so much of the N x N matrix at once
        rows = slice(start, start + 1024)
        scores = queries[rows] @ candidates.T
        own = scores[np.arange(len(scores)), start + np.arange(len(scores))][:, None]
        same = (scores == own).sum(1) - 1
        ranks[rows] = 1 + (scores > own).sum(1) + same / 2
    return ranks
