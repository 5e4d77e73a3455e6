"""Files that are the old one or the new one, never half of it."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any


def replace(path: pathlib.Path, text: str | bytes) -> None:
    """Writes a file so that it is the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".writing")
    scratch.write_bytes(text.encode() if isinstance(text, str) else text)
    os.replace(scratch, path)


def write_json(path: pathlib.Path, value: Any) -> None:
    """`replace` with JSON; NaN is refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    replace(path, text + "\n")
