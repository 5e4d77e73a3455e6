"""Emoji and their names (emoji-data 16.0 with Google's Noto images) from npm.

1,911 emoji of 64 x 64 pixels in nine categories; the 1,875 variants in skin tones are
not read: they differ from one another by a colour that their names tell.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from fmjax.data import builders, fetch
from fmjax.data.images import decode
from fmjax.data.source import Row, Source, split_of

CLASSES = (
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
    "Flags",
)
SHARES = (0.1, 0.15)  # of the subjects: validation, test
_SHA256 = "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"
# A person, man, woman, the signs for them, and what joins code points.
_WHO = {"1F9D1", "1F468", "1F469", "2640", "2642", "FE0F", "200D"}


def load(split: str) -> Source:
    """Rows of `image` (uint8 [64, 64, 3], on white), `text`, `label`, `short`, `id`.

    text: the name in small letters, such as 'smiling face with open mouth'; label: the
    category; short: the short name; id: the code points. Left out: emoji whose pixels
    another one before them has (flags of territories) and the five of no category
    (skin tones, hair). Split by subject, by sha256: man, woman and person cook are one
    subject, so that a held-out emoji has no near-copy among those that are trained on.
    """
    return builders.load(Emoji, split, CLASSES)


class Emoji(builders.Builder):
    """The data set as TFDS prepares it."""

    TITLE = "Emoji and their names"
    ORIGIN = "npm package emoji-datasource-google 16.0.0"
    LICENCE = (
        "names: MIT, copyright 2013 Cal Henderson; images: Apache-2.0, Google's Noto "
        "Emoji (the package's LICENSE and README)"
    )
    CITATION = "Henderson, emoji-data 16.0.0 (Unicode Emoji 16.0); Google, Noto Emoji"

    def features(self) -> dict[str, Any]:
        return {
            "image": tfds.features.Tensor(
                shape=(64, 64, 3), dtype=np.uint8, encoding="bytes"
            ),
            "text": tfds.features.Text(),
            "short": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=list(CLASSES)),
            "id": tfds.features.Text(),
        }

    def rows(self) -> tuple[dict[str, Iterable[Row]], dict[str, Any]]:
        package = fetch.package(
            "npm",
            "emoji-datasource-google",
            "16.0.0",
            _SHA256,
            members=["package/emoji.json", "package/img/google/64/*.png"],
        )
        return read(package / "package")


def read(package: Path) -> tuple[dict[str, Iterable[Row]], dict[str, Any]]:
    """The rows of a package's emoji.json by split, and counts of what was left out."""
    known = json.loads((package / "emoji.json").read_text("utf-8"))
    splits: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    seen, copies, uncategorised = set(), 0, 0
    for emoji in sorted(known, key=lambda e: (e["sort_order"], e["unified"])):
        if emoji["category"] not in CLASSES:
            uncategorised += 1
            continue
        image = decode.decode(package / "img" / "google" / "64" / emoji["image"])
        pixels = image.tobytes()
        if pixels in seen:
            copies += 1
            continue
        seen.add(pixels)
        splits[split_of(subject(emoji["unified"]), *SHARES)].append(
            {
                "image": image,
                "text": emoji["name"].lower(),
                "short": emoji["short_name"],
                "label": CLASSES.index(emoji["category"]),
                "id": emoji["unified"],
            }
        )
    made: dict[str, Iterable[Row]] = {**splits}
    return made, {
        "sha256": _SHA256,
        "emoji in the package": len(known),
        "in no category, left out": uncategorised,
        "pixels of another emoji, left out": copies,
        "split": "by subject, shares 0.75, 0.1, 0.15",
    }


def subject(code_points: str) -> str:
    """The code points without who does it: one for man, woman and person cook."""
    points = code_points.split("-")
    return "-".join(p for p in points if p not in _WHO) or code_points
