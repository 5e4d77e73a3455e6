"""A net's features as they are: probes of them, and what an autoencoder paints."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fmjax import step, workdir
from fmjax.layers.patches import patchify, unpatchify
from fmjax.metrics import bootstrap, knn, linear_probe

FIT = 5_000  # training images that probes learn from
BATCH = 250


def features(
    net: Callable, weights: tuple[Any, Any], rows: Any, inputs: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [N, F] and labels [N] of rows, without augmentation.

    net: as of `step.pure`; weights: its parameters and extras; inputs: row and
    generator to an example, as of a classifier.
    """
    params, extras = weights
    apply = jax.jit(lambda p, e, x: net(p, e, x, features=True)[0])
    made, labels = [], []
    for start in range(0, len(rows), BATCH):
        part = [
            inputs(rows[i], None) for i in range(start, min(start + BATCH, len(rows)))
        ]
        images = np.stack([one["inputs"] for one in part])
        # The last batch is filled up, so that one shape is compiled.
        images = np.resize(images, (BATCH, *images.shape[1:]))
        made.append(np.asarray(apply(params, extras, images))[: len(part)])
        labels += [int(one["label"]) for one in part]
    return np.concatenate(made), np.array(labels)


def probes(
    folder: pathlib.Path | None, classifier: pathlib.Path, *, draws: int
) -> dict[str, Any]:
    """Test accuracies of a linear probe and of neighbours on frozen features.

    folder: the net's run, None for the net of `classifier` as it was before training;
    classifier: the run whose inputs and data are taken.
    """
    base = workdir.open_run(classifier)
    inputs, data = base.parts.inputs, base.settings["data"]
    run = base if folder is None else workdir.open_run(folder)
    train = run.parts.data("train").rows
    example = run.batches(train).example(0)
    if folder is None:
        one = jax.tree.map(lambda x: np.asarray(x)[None], example["inputs"])
        found = step.init(run.parts.net, one, jax.random.key(base.settings["seed"]))
        weights = found.pop("params"), found
    else:
        weights = run.weights(example)
    if "share" in data:  # probes learn from more than the few labels
        train = workdir.config.part("data", data | {"share": 1.0})("train").rows
    test = run.parts.data("test").rows
    some = [train[i] for i in range(min(FIT, len(train)))]
    x, y = features(run.apply, weights, some, inputs)
    tested, truth = features(run.apply, weights, test, inputs)
    given: dict[str, Any] = dict(
        features=tested, labels=truth, train_features=x, train_labels=y
    )
    numbers = {
        "linear_probe": linear_probe.compute(**given, solver="logistic"),
        "knn": knn.compute(**given),
    }
    return {
        name: _interval(found["accuracy"], found["count"], draws)
        | {"train_count": found["train_count"]}
        for name, found in numbers.items()
    }


def _interval(accuracy: float, count: int, draws: int) -> dict[str, Any]:
    """The bootstrap interval of an accuracy, for which the count of hits is enough."""
    right = np.arange(count) < round(accuracy * count)
    return bootstrap.interval(right.astype(np.float64), seed=0, draws=draws)


def painted(folder: pathlib.Path, count: int = 8) -> list[list[np.ndarray]]:
    """Rows of uint8 images: test images, with patches hidden, and as painted.

    Hidden patches are painted in each true patch's own mean and deviation, which are
    what a decoder of normalised pixels cannot know (as the paper's figures have it).
    """
    run = workdir.open_run(folder)
    rows = run.parts.data("test").rows
    examples = [run.parts.inputs(rows[i], None)["inputs"] for i in range(count)]
    batch = jax.tree.map(lambda *x: np.stack(x), *examples)
    weights = run.weights({"inputs": examples[0]})
    (said, hidden), _ = jax.jit(run.apply)(*weights, batch)
    size = run.parts.model["patch"]
    true = np.asarray(patchify(batch["image"], size))
    said, hidden = np.asarray(said), np.asarray(hidden)[..., None]
    if run.settings["objective"].get("normalised", True):
        said = said * np.sqrt(true.var(-1, keepdims=True) + 1e-6)
        said += true.mean(-1, keepdims=True)
    low, high = true.min(), true.max()
    lines = (
        true,
        np.where(hidden, (low + high) / 2, true),
        np.where(hidden, said, true),
    )
    sides = batch["image"].shape[1:3]
    scaled = [
        np.asarray(unpatchify((x - low) / (high - low) * 255, sides, size))
        for x in lines
    ]
    return [[*np.clip(x, 0, 255).round().astype(np.uint8)] for x in scaled]
