"""Cut-outs: pictures of one thing whose alpha says where it is."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fmjax.data.images.resize import resize

SOLID = 128  # of alpha: from here a pixel belongs to the thing


@dataclass(frozen=True)
class Cutouts:
    """Pictures uint8 [h, w, 4], one behind the other in a flat array, and their notes.

    notes: a dict a picture, with `place` (its first byte) and `shape` [h, w].
    """

    bytes: np.ndarray
    notes: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.notes)

    def __getitem__(self, index: int) -> np.ndarray:
        note = self.notes[index]
        height, width = note["shape"]
        start = note["place"]
        flat = self.bytes[start : start + height * width * 4]
        return np.array(flat).reshape(height, width, 4)


def trimmed(image: np.ndarray) -> np.ndarray | None:
    """The picture uint8 [H, W, 4] without its clear border; None where all is clear."""
    inside = image[..., 3] >= SOLID
    if not inside.any():
        return None
    top, left, bottom, right = box(inside)
    return image[top:bottom, left:right]


def fitted(image: np.ndarray, longest: int) -> np.ndarray:
    """The picture with its longer side at `longest` pixels, in its proportions."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    return resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))


def paste(
    ground: np.ndarray, image: np.ndarray, top: int, left: int
) -> tuple[np.ndarray, np.ndarray]:
    """(ground [H, W, 3] under the picture [h, w, 4], where the thing is: bool [H, W]).

    The picture lies wholly within the ground.
    """
    height, width = image.shape[:2]
    window = (slice(top, top + height), slice(left, left + width))
    alpha = image[..., 3:].astype(np.float32) / 255
    made = ground.copy()
    mixed = alpha * image[..., :3] + (1 - alpha) * ground[window]
    made[window] = np.rint(mixed).astype(np.uint8)
    inside = np.zeros(ground.shape[:2], bool)
    inside[window] = image[..., 3] >= SOLID
    return made, inside


def box(inside: np.ndarray) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of the True pixels; bottom and right are exclusive.

    Raises ValueError where there are none.
    """
    rows, columns = (np.flatnonzero(np.any(inside, axis)) for axis in (1, 0))
    if not len(rows):
        raise ValueError("nothing is visible: there is no box around it")
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
