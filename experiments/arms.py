"""What experiments share: an arm is one recipe trained with several seeds.

Every function may be called again after an interruption: a run that is done is not
trained again, and one that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fmjax import config, evaluate, files, generate, report
from fmjax import workdir as workdirs
from fmjax.keeping import provenance
from fmjax.metrics import bootstrap, calibration, classification
from fmjax.reporting import figures
from fmjax.train import train


def parser(doc: str | None, workdir: str, seeds: int = 1) -> argparse.ArgumentParser:
    """What every experiment is asked with: --workdir, --seeds and --tiny."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--workdir",
        default=workdir,
        type=pathlib.Path,
        help="where runs and the report go (%(default)s)",
    )
    made.add_argument(
        "--seeds", default=seeds, type=int, help="of every net (%(default)s)"
    )
    made.add_argument("--tiny", action="store_true", help="made-up data, seconds")
    return made


def draws(tiny: bool) -> int:
    """Of the bootstrap."""
    return 200 if tiny else 10_000


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fit(workdir: pathlib.Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Trains a run to its end. Exits with 75 where a signal stops it."""
    config.bind("config", train, settings)
    if found := finished(workdir, settings):
        return found
    result = train(workdir, **settings)
    if result["status"] == "stopped":
        say(f"stopped at step {result['step']}; the same command goes on from there")
        sys.exit(75)
    return result


def finished(workdir: pathlib.Path, settings: Mapping) -> dict[str, Any] | None:
    """The result of a run that is done with these very settings, at no cost.

    None for any other run: whether it can go on is `train`'s to tell.
    """
    result, known = workdir / "result.json", workdir / "config.json"
    if not (result.is_file() and known.is_file()):
        return None
    recorded = json.loads(known.read_text("utf-8"))["config"]
    given = json.loads(json.dumps({**(train.__kwdefaults__ or {}), **settings}))
    same = all(recorded[key] == given.get(key) for key in recorded)
    found = json.loads(result.read_text("utf-8"))
    return found if same and found["status"] == "done" else None


def seeds(root: pathlib.Path, name: str, settings: Mapping, count: int):
    """Trains an arm with seeds 0 to count - 1; the runs' folders."""
    folders = [root / f"{name}-{seed}" for seed in range(count)]
    for seed, folder in enumerate(folders):
        fit(folder, {**settings, "seed": seed})
    return folders


def steps(folders: Sequence[pathlib.Path]) -> list[int]:
    """Steps that each run, which is done, has trained."""
    ended = [json.loads((f / "result.json").read_text("utf-8")) for f in folders]
    return [one["step"] for one in ended]


def said(folder: pathlib.Path, split: str) -> dict[str, np.ndarray]:
    """A run's predictions for a split, and what its examples have beside inputs.

    Each [N, ...], as of `evaluate.predictions`; kept beside the run's weights, so that
    they are computed once.
    """
    kept = folder / f"{split}.npz"
    if not kept.exists():
        run = workdirs.open_run(folder)
        data = run.batches(run.parts.data(split).rows)
        weights = run.weights(data.example(0))
        made, given = evaluate.predictions(run, data, *weights)
        with open(folder / "writing.npz", "wb") as file:
            np.savez(file, **made, **given)  # type: ignore[arg-type]
        (folder / "writing.npz").replace(kept)
    with np.load(kept) as arrays:
        return dict(arrays)


def class_names(folder: pathlib.Path) -> list[str]:
    """A run's classes, in the order of their numbers."""
    known = json.loads((folder / "config.json").read_text("utf-8"))
    return list(known["classes"])


def predictions(folders: Sequence[pathlib.Path], split: str) -> dict[str, Any]:
    """Labels [N] and each run's probabilities [S, N, C] on a split, and the classes."""
    found = [said(folder, split) for folder in folders]
    return {
        "labels": found[-1]["label"],
        "probabilities": np.stack([one["probabilities"] for one in found]),
        "classes": class_names(folders[-1]),
    }


def written(folder: pathlib.Path, split: str, **options: Any) -> list[dict[str, Any]]:
    """What a run writes for a split's rows, each with `generated` and `reference`.

    options: of `generate.generate`. Kept in the run's folder generated/, a file for
    every choice of options, so that a text is written once.
    """
    name = "-".join([split, *(f"{k}={v}" for k, v in sorted(options.items()))])
    kept = folder / "generated" / f"{name}.jsonl"
    if not kept.exists():
        generate.split(folder, split, **options)
        (folder / "generated" / f"{split}.jsonl").replace(kept)
    return [json.loads(x) for x in kept.read_text("utf-8").split("\n") if x]


def correct(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """[S, N] from probabilities [S, N, C]: is the likeliest class the label?"""
    return (probabilities.argmax(-1) == labels).astype(np.float64)


def summary(labels, probabilities, classes, *, draws: int = 10_000) -> dict[str, Any]:
    """An arm's test numbers: means over seeds, with 95 % bootstrap intervals.

    labels [N]; probabilities [S, N, C]. Intervals are over test examples, each draw
    averaged over seeds; `std` is over seeds. The confusion matrix is summed over seeds.
    """
    each = [
        classification.compute(labels=labels, probabilities=p, classes=classes)
        for p in probabilities
    ]
    right = correct(labels, probabilities)
    positive = 1 if len(classes) == 2 else None
    pooled = calibration.reliability(
        labels=np.tile(labels, len(probabilities)),
        probabilities=np.concatenate(list(probabilities)),
    )
    return {
        "seeds": len(each),
        "examples": len(labels),
        "accuracy": bootstrap.interval(right, seed=0, draws=draws),
        "accuracy_by_seed": bootstrap.spread(right.mean(1)),
        "f1": bootstrap.interval(
            labels,
            probabilities.argmax(-1),
            seed=0,
            draws=draws,
            statistic=bootstrap.f1(len(classes), positive),
        ),
        "ece": float(np.mean([one["ece"] for one in each])),
        "nll": float(np.mean([one["nll"] for one in each])),
        "confusion": np.sum([one["confusion"] for one in each], axis=0).tolist(),
        "reliability": pooled,
    }


def record(root: pathlib.Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes results.jsonl of classifiers' summaries, a line an arm."""
    keys = ("seeds", "examples", "accuracy", "accuracy_by_seed", "f1", "ece", "nll")
    lines = [
        {"model": name} | {k: arm[k] for k in (*keys, "confusion")}
        for name, arm in results.items()
    ]
    record_lines(root, lines)


def record_lines(root: pathlib.Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Writes results.jsonl: any numbers, a line each, with what ran them."""
    made = provenance.record()
    ran = {k: made[k] for k in ("commit", "uncommitted", "packages", "devices")}
    text = "".join(
        json.dumps({**line, **ran}, ensure_ascii=False) + "\n" for line in lines
    )
    files.replace(root / "results.jsonl", text)


def drawing(path: pathlib.Path, svg: str) -> None:
    """Writes a figure of `fmjax.reporting.figures` as a file that a README can show."""
    files.replace(path, figures.standalone(svg))


def shown(span: Mapping[str, Any], form: str = ".4f") -> str:
    """An interval for the console: 0.9037 [0.8979, 0.9094]."""
    value, low, high = (format(span[key], form) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def curve(folders: Sequence[pathlib.Path], name: str) -> list[tuple[list, list]]:
    """Each run's recorded values of `name` as (steps, values), to draw."""
    drawn = []
    for folder in folders:
        lines = [line for line in report.read(folder) if line.get(name) is not None]
        drawn.append(([x["step"] for x in lines], [x[name] for x in lines]))
    return drawn
