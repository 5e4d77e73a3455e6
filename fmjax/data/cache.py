"""Where fmjax keeps files between runs; each gets there whole or not at all."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def home() -> Path:
    """The cache directory: $FMJAX_DATA, or ~/.cache/fmjax. It is created on use."""
    return Path(os.environ.get("FMJAX_DATA") or "~/.cache/fmjax").expanduser().resolve()


def digest(*parts: Any) -> str:
    """sha256 (hex) of JSON-able values: the identity of a derived file."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock of `target` among all processes of this machine.

    The kernel drops the lock with its holder, so a killed run leaves nothing to clean.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / f".{target.name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def scratch(beside: Path) -> Iterator[Path]:
    """A temporary directory on the file system of `beside`, removed on leaving."""
    beside.parent.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix=f".{beside.name}.", dir=beside.parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def once(target: Path, make: Callable[[Path], None]) -> Path:
    """Return `target`, made by `make(path)` where it is not there yet.

    `make` writes a file or a directory at the path it is given, and a rename publishes
    it: no reader sees half of it, and an interrupted run leaves no `target` behind.
    """
    if not target.exists():
        with locked(target):
            if not target.exists():
                with scratch(target) as directory:
                    make(directory / target.name)
                    os.replace(directory / target.name, target)
    return target
