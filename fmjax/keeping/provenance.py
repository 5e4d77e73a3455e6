"""What made a run: command, commit, uncommitted changes, versions, devices, data.

Secrets of the environment are left out of all of it. What is in a config is recorded as
it is, for without it the run could not be opened again: keep secrets out of configs.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy"),
    *("array_record", "ml-collections", "ml_dtypes", "pillow", "safetensors"),
    *("tensorflow-datasets", "tokenizers"),
)
FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NPROC")  # and all that begin with JAX_
DIFF_LIMIT = 1_000_000  # bytes
SAMPLE = 64  # rows
_SECRET = re.compile(
    r"(^|[_.-])(token|secret|pass|password|passwd|credentials?|key|pat)([_.-]|$)|apikey",
    re.IGNORECASE,
)
_HERE = pathlib.Path(__file__).parent


def record(folder: pathlib.Path | None = None) -> dict[str, Any]:
    """Who is running, as JSON.

    Uncommitted changes to files that git knows are written to folder/provenance/, up to
    DIFF_LIMIT bytes, named by their digest; without a folder they are not kept.
    """
    status = _git("status", "--porcelain") or ""
    return {
        "command": command(),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted": bool(status),
        "changes": _changes(folder, status) if status else None,
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "flags": {
            name: redact(value)
            for name, value in sorted(os.environ.items())
            if name in FLAGS or name.startswith("JAX_")
        },
        "devices": [jax.device_count(), jax.devices()[0].device_kind],
        "processes": jax.process_count(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def command() -> list[str]:
    """The command line, without the values of flags such as --api_key."""
    words, out = [redact(word) for word in sys.argv], []
    for i, word in enumerate(words):
        flag, equals, _ = word.partition("=")
        before = words[i - 1] if i else ""
        if word.startswith("--") and equals and _SECRET.search(flag):
            word = f"{flag}=<removed>"
        elif before.startswith("--") and "=" not in before and _SECRET.search(before):
            word = word if word.startswith("--") else "<removed>"
        out.append(word)
    return out


def redact(text: str) -> str:
    """`text` without the environment's secrets and without logins in addresses.

    A secret is the value, of 8 characters or more, of a variable whose name has a word
    such as TOKEN, SECRET, KEY or PASSWORD; its name takes its place.
    """
    secrets = {
        value: name
        for name, value in os.environ.items()
        if _SECRET.search(name) and len(value) >= 8
    }
    for value in sorted(secrets, key=len, reverse=True):
        text = text.replace(value, f"<{secrets[value]}>")
    return re.sub(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@'\"<>]+@", r"\1<removed>@", text)


def fingerprint(rows: Sequence[Any]) -> dict[str, Any]:
    """How many rows there are, and a digest of up to SAMPLE of them, evenly spaced."""
    count = len(rows)
    chosen = np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(int))
    digest = hashlib.sha256(str(count).encode())
    for index in map(int, chosen):
        for key, value in sorted(rows[index].items()):
            digest.update(f"\n{index} {key} ".encode())
            if isinstance(value, np.ndarray):
                digest.update(f"{value.dtype} {value.shape} ".encode())
                digest.update(np.ascontiguousarray(value).tobytes())
            else:
                digest.update(repr(value).encode())
    return {"rows": count, "sample": len(chosen), "sha256": digest.hexdigest()}


def _git(*words: str, limit: int | None = None) -> str | None:
    """What git says of the folder of this file, or None where it says nothing."""
    command = ["git", *words]
    try:
        with subprocess.Popen(
            command, cwd=_HERE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as running:
            assert running.stdout is not None
            try:
                said = running.stdout.read(-1 if limit is None else limit)
                if limit is not None and len(said) == limit:
                    running.kill()
                    return said.decode("utf-8", "replace")
                good = running.wait(timeout=10) == 0
            except subprocess.TimeoutExpired:
                running.kill()
                return None
    except OSError:
        return None
    return said.decode("utf-8", "replace").strip("\n") if good else None


def _changes(folder: pathlib.Path | None, status: str) -> dict[str, Any]:
    words = ("diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color")
    diff = redact(_git(*words, limit=DIFF_LIMIT) or "")
    raw = diff.encode()
    found: dict[str, Any] = {
        "sha256": hashlib.sha256(raw).hexdigest(),
        "bytes": len(raw),
        "cut": len(raw) >= DIFF_LIMIT,
        "untracked": [x[3:] for x in status.split("\n") if x.startswith("??")][:100],
    }
    if folder is not None and raw:
        path = folder / "provenance" / f"{found['sha256'][:16]}.patch"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(diff + "\n", "utf-8")
        found["file"] = str(path.relative_to(folder))
    return found


@functools.cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _processor() -> str:
    """The processor's name; what is compiled for it depends on it."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()
