"""Image files judged and decoded once, kept as one array in the cache."""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.data import cache
from fmjax.data.images import decode
from fmjax.data.images.resize import resize

_RECIPE = 4  # counts up when the same files would give other arrays


@dataclass(frozen=True)
class Packed:
    """Files by place: `images[place]` is an array, `bad` says why others are none."""

    files: list[Path]
    channels: int | None
    array: np.ndarray | None
    slots: dict[int, int]  # place -> row of the array
    sha256: dict[int, str]  # of the file's bytes, of those that are readable
    bad: dict[int, str]
    shapes: dict[int, list[int]] = field(repr=False)  # [H, W] before resizing

    def __getitem__(self, place: int) -> np.ndarray:
        if self.array is not None:
            return np.array(self.array[self.slots[place]])
        return _decode(self.files[place], self.channels)


def pack(
    files: Sequence[Path], size: tuple[int, int] | None, channels: int | None
) -> Packed:
    """Every file decoded by `decode.decode` and, where `size` (H, W) is given, resized.

    channels: 1, 3 or 4; None for masks, which are resized by their nearest pixel. With
    a size, the arrays are kept, uint8 [N, H, W(, C)]; without, files are decoded when
    asked for. Done once for files of these paths, lengths and times of change.
    """
    stats = [file.stat() for file in files]
    listing = [
        (str(file.resolve()), stat.st_size, stat.st_mtime_ns)
        for file, stat in zip(files, stats, strict=True)
    ]
    key = cache.digest("images", _RECIPE, listing, size, channels)
    target = cache.once(
        cache.home() / "images" / key[:24],
        functools.partial(_pack, files, size, channels),
    )
    note = json.loads((target / "files.json").read_text())
    good = note["good"]
    return Packed(
        files=list(files),
        channels=channels,
        array=None if size is None else np.load(target / "images.npy", mmap_mode="r"),
        slots={place: slot for slot, place in enumerate(good)},
        sha256=dict(zip(good, note["sha256"], strict=True)),
        bad={int(place): why for place, why in note["bad"].items()},
        shapes=dict(zip(good, note["shapes"], strict=True)),
    )


def sides(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """(H, W) of one number or a pair; None stays. Raises ValueError for others."""
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"size={size}: one number, or (H, W), each 1 or more")
    return pair[0], pair[1]


def _decode(file: Path, channels: int | None) -> np.ndarray:
    if channels is None:
        return decode.decode_mask(file)
    return decode.decode(file, channels=channels)


def _pack(
    files: Sequence[Path],
    size: tuple[int, int] | None,
    channels: int | None,
    target: Path,
) -> None:
    """Write images.npy of the readable files, and files.json."""
    target.mkdir()
    note: dict[str, Any] = {"good": [], "sha256": [], "shapes": [], "bad": {}}
    images = None
    if size is not None:
        shape = (len(files), *size) + (() if channels is None else (channels,))
        images = np.lib.format.open_memmap(
            target / "images.npy", mode="w+", dtype=np.uint8, shape=shape
        )
    for place, file in enumerate(files):
        try:
            image = _decode(file, channels)
        except decode.Unreadable as error:
            note["bad"][str(place)] = error.why
            continue
        if images is not None:
            how = "nearest" if channels is None else "bilinear"
            images[len(note["good"])] = resize(image, size, how)  # type: ignore
        note["good"].append(place)
        note["sha256"].append(cache.sha256(file))
        note["shapes"].append(image.shape[:2])
    if images is not None:
        images.flush()
    (target / "files.json").write_text(json.dumps(note))
