"""Linear classifiers on features that are computed once, of all and of few examples."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.self_supervision import frozen
from fmjax import config, interop, step
from fmjax.data import weights
from fmjax.data.source import SPLITS
from fmjax.metrics import linear_probe

PENALTIES = (1.0, 10.0, 100.0, 1000.0)  # of which validation chooses

Features = dict[str, tuple[np.ndarray, np.ndarray]]  # split -> [N, F], labels [N]


def features(path: pathlib.Path, settings: Mapping[str, Any]) -> Features:
    """Of every split, by the net that a run of these settings begins with.

    Kept in `path`, an npz.
    """
    if not path.exists():
        parts = config.assemble(settings)
        data = {split: parts.data(split).rows for split in SPLITS}
        if begin := settings["init_from"]:
            net, variables = interop.load(weights.directory(begin["path"]))
        else:
            net, one = parts.net, parts.inputs(data["train"][0], None)["inputs"][None]
            key = jax.random.key(settings["seed"])
            variables = jax.jit(lambda k: step.init(net, one, k))(key)
        given = variables["params"], {"batch_stats": variables["batch_stats"]}
        arrays: dict[str, np.ndarray] = {}
        for split, rows in data.items():
            x, y = frozen.features(step.pure(net), given, rows, parts.inputs)
            arrays |= {f"{split}_features": x, f"{split}_labels": y}
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".writing"), "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        path.with_suffix(".writing").replace(path)
    with np.load(path) as kept:
        return {s: (kept[f"{s}_features"], kept[f"{s}_labels"]) for s in SPLITS}


def probabilities(
    found: Features, penalty: float, places: Sequence[int] | None = None
) -> dict[str, np.ndarray]:
    """{split: [N, C]} of validation and test, by a logistic regression.

    It learns from the training features, or those at `places`, standardised by them;
    penalty: as in `metrics.linear_probe`.
    """
    x, y = found["train"]
    x, y = (x, y) if places is None else (x[list(places)], y[list(places)])
    x = x.astype(np.float64)
    middle, deviation = x.mean(0), x.std(0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    scaled = lambda x: (x - middle) / deviation  # noqa: E731
    linear, bias = linear_probe.logistic(scaled(x), y, penalty)
    said = {}
    for split in ("validation", "test"):
        logits = scaled(found[split][0]) @ linear + bias
        logits = np.exp(logits - logits.max(1, keepdims=True))
        said[split] = logits / logits.sum(1, keepdims=True)
    return said


def nll(said: np.ndarray, labels: np.ndarray) -> float:
    """Mean log loss (nats)."""
    own = said[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(own, 1e-12)).mean())


def chosen(
    found: Features, draws: Sequence[Sequence[int] | None]
) -> tuple[float, np.ndarray]:
    """(penalty, test probabilities [S, N, C]), one probe a draw of training examples.

    The penalty is the one with the lowest validation log loss, mean over draws.
    """
    labels = found["validation"][1]
    by_penalty = {p: [probabilities(found, p, d) for d in draws] for p in PENALTIES}
    loss = {
        p: float(np.mean([nll(one["validation"], labels) for one in each]))
        for p, each in by_penalty.items()
    }
    best = min(loss, key=lambda p: loss[p])
    return best, np.stack([one["test"] for one in by_penalty[best]])


def episode(data: Mapping[str, Any], per_class: int, number: int) -> Sequence[int]:
    """Places of so many training examples a class, as the source `few_shot` draws."""
    spec = {"name": "few_shot", "corpus": data, "per_class": per_class}
    source = config.part("data", spec | {"episode": number})("train")
    places: Sequence[int] = source.rows.places
    return places
