"""Two examples mixed into one: mixup and CutMix.

Examples are mixed in pairs of neighbours in a shuffled batch, a with b and b with a,
one draw a pair: who is mixed with whom does not depend on the number of hosts.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Example = dict[str, Any]


class Paired:
    """Inputs whose training examples are mixed in pairs: see `pair`."""

    def __init__(
        self,
        inputs: Callable[..., Example],
        mixup: float = 0.0,
        cutmix: float = 0.0,
        threads: int = 1,
    ):
        """mixup, cutmix: alpha of the Beta(alpha, alpha) of shares, 0 for off.

        With both, each pair throws a coin. threads: as in `images.threads`. Raises
        ValueError where neither is on.
        """
        if min(mixup, cutmix) < 0 or not max(mixup, cutmix):
            raise ValueError(
                f"inputs.mixup={mixup}, inputs.cutmix={cutmix}: 0 (off) or more"
            )
        self.inputs, self.mixup, self.cutmix = inputs, mixup, cutmix
        self.threads = threads

    def __call__(self, row: Any, rng: np.random.Generator | None) -> Example:
        return self.inputs(row, rng)

    def pair(
        self, a: Example, b: Example, rng: np.random.Generator
    ) -> tuple[Example, Example]:
        """(a with some of b, b with some of a).

        Examples have `inputs` float [H, W, C] and `label`, and get `label2`, the
        other's label, and `share`, float32, that of `label`: the target is share on
        the one and 1 - share on the other. Raises ValueError without labels.
        """
        if "label" not in a or "label" not in b:
            raise ValueError("mixup and cutmix mix labels, and these rows have none")
        cut = bool(self.cutmix) and (not self.mixup or rng.random() < 0.5)
        alpha = self.cutmix if cut else self.mixup
        share = float(rng.beta(alpha, alpha))
        one, other = a["inputs"], b["inputs"]
        if cut:
            first, second, share = cut_pair(one, other, share, rng)
        else:
            first, second = mix_pair(one, other, share), mix_pair(other, one, share)
        known = {"share": np.float32(share)}
        return (
            a | {"inputs": first, "label2": b["label"]} | known,
            b | {"inputs": second, "label2": a["label"]} | known,
        )


def mix_pair(one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """share * one + (1 - share) * other (Zhang et al. 2018, arXiv:1710.09412)."""
    part = np.asarray(share, one.dtype)
    return part * one + (1 - part) * other


def cut_pair(
    one: np.ndarray, other: np.ndarray, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    """CutMix (Yun et al. 2019, arXiv:1905.04899, section 3.1): a window changes places.

    The window has sides sqrt(1 - share) of the image's and a uniform centre, and is
    clipped at the border; the share that comes back is that of what stayed.
    """
    height, width = one.shape[:2]
    side = (1 - share) ** 0.5
    h, w = int(height * side), int(width * side)
    y, x = int(rng.integers(height)), int(rng.integers(width))
    top, bottom = max(y - h // 2, 0), min(y - h // 2 + h, height)
    left, right = max(x - w // 2, 0), min(x - w // 2 + w, width)
    window = (slice(top, bottom), slice(left, right))
    first, second = one.copy(), other.copy()
    first[window], second[window] = other[window], one[window]
    return first, second, 1 - (bottom - top) * (right - left) / (height * width)
