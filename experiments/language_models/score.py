"""What models say of the same line of tokens, and the numbers that follow from it."""

# N tokens in a line, D documents, S seeds, R draws

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fmjax import parallel
from fmjax import workdir as workdirs
from fmjax.data import batches
from fmjax.data.sources.windows import Windows
from fmjax.metrics import bootstrap

WEIGHTS = np.arange(1, 100) / 100  # of the network, when two models are mixed


def network(folder: pathlib.Path, split: str) -> np.ndarray:
    """Nats of each token of a split's line but the first, float64 [N - 1].

    By a run's best weights, in windows that overlap by half, so that every token is
    predicted from at least half a window of its document, where there is so much. Kept
    beside the weights.
    """
    kept = folder / f"{split}-nats.npy"
    if not kept.exists():
        found = _network(folder, split)
        with open(folder / "writing.npy", "wb") as file:
            np.save(file, found, allow_pickle=False)
        (folder / "writing.npy").replace(kept)
    return np.load(kept, allow_pickle=False)


def _network(folder: pathlib.Path, split: str) -> np.ndarray:
    run = workdirs.open_run(folder)
    rows = run.parts.data(split).rows
    fresh = rows.length // 2
    data = run.batches(Windows(rows.line, fresh, rows.length + 1 - fresh))
    params, extras = run.weights(data.example(0))

    @jax.jit
    def nats(params, extras, batch):
        logits, _ = run.apply(params, extras, batch["inputs"], key=None)
        return optax.softmax_cross_entropy_with_integer_labels(
            logits.astype(jnp.float32), batch["targets"]
        )

    found, row = np.full(len(rows.line) - 1, np.nan), 0
    for batch in batches.ahead(data.at, 0, len(data)):
        said = np.asarray(nats(params, extras, parallel.put(batch, run.plan)))
        for own in said[batch["mask"] > 0]:
            start = row * fresh
            old = 0 if row == 0 else len(own) - fresh  # said by the row before
            real = min(len(own), len(found) - start)
            found[start + old : start + real] = own[old:real]
            row += 1
    if not np.isfinite(found).all():
        raise ValueError(f"{folder}: {(~np.isfinite(found)).sum()} tokens of {split}")
    return found


def mixed(a: np.ndarray, b: np.ndarray, weight: float) -> np.ndarray:
    """Nats of weight * p_a + (1 - weight) * p_b, from the nats of each."""
    return -np.logaddexp(math.log(weight) - a, math.log1p(-weight) - b)


def best_weight(a: np.ndarray, b: np.ndarray) -> float:
    """The one of WEIGHTS by which the mixture is least surprised."""
    return float(min(WEIGHTS, key=lambda weight: mixed(a, b, weight).sum()))


def by_document(
    nats: np.ndarray, line: np.ndarray, document: int
) -> tuple[np.ndarray, np.ndarray]:
    """(nats [..., D], units [D]) from nats [..., N - 1] of line[1:].

    A document's nats include those of its end; its units, words or characters, do not.
    """
    ends = line[1:] == document
    number = np.cumsum(ends) - ends
    units = np.bincount(number, ~ends)
    rows = [np.bincount(number, row) for row in np.atleast_2d(nats)]
    return np.stack(rows).reshape(*nats.shape[:-1], len(units)), units


def perplexity(weights: np.ndarray, nats: np.ndarray, units: np.ndarray) -> np.ndarray:
    """A statistic for `bootstrap.interval`: e to the nats a unit, [R].

    nats [D] or [S, D], averaged over S; units [D].
    """
    return np.exp(weights @ np.atleast_2d(nats).mean(0) / (weights @ units))


def summary(
    nats: Sequence[np.ndarray], line: np.ndarray, *, document: int, unknown: int
) -> dict[str, Any]:
    """A model's numbers on a line: nats [N - 1] from each seed.

    perplexity and bits a unit with 95 % intervals over documents; known: perplexity of
    the tokens that are in the vocabulary, documents' ends not counted, nor intervals.
    """
    each, units = by_document(np.stack(nats), line, document)
    found = bootstrap.interval(each, units, seed=0, statistic=perplexity)
    known = (line[1:] != unknown) & (line[1:] != document)
    return {
        "seeds": len(nats),
        "documents": len(units),
        "units": int(units.sum()),
        "perplexity": found,
        "bits": {key: math.log2(found[key]) for key in ("value", "low", "high")},
        "by_seed": bootstrap.spread(np.exp(each.sum(1) / units.sum())),
        "known": float(np.exp(np.mean([one[known].mean() for one in nats]))),
        "unknown": float((line[1:] == unknown).sum() / units.sum()),
    }


def ratio(
    a: Sequence[np.ndarray], b: Sequence[np.ndarray], line: np.ndarray, document: int
) -> dict[str, Any]:
    """The perplexity of a over that of b on the same documents, with its interval."""
    (first, units), (second, _) = (
        by_document(np.stack(nats), line, document) for nats in (a, b)
    )
    difference = first.mean(0) - second.mean(0)
    return bootstrap.interval(difference, units, seed=0, statistic=perplexity)
