"""CLIP on emoji and their names: retrieval, and zero-shot categories.

    python -m experiments.emoji.run [--seeds 1]

A small CLIP is trained on pairs alone, without categories, and measured on emoji of
subjects held out: does an image find its name among all of them, and the reverse, and
which of nine categories is its image nearest to? Beside it chance, and ridge
regressions from colour histograms or small pixels to the words of the names.
Interrupted and run again, it goes on where it was. Leaves runs/emoji (--workdir):
report.html, report.json, results.jsonl, nearest.png, loss.svg and the runs' folders.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from experiments import arms
from experiments.emoji import baseline
from fmjax import cli, config, prompts, workdir
from fmjax.metrics import bootstrap, retrieval, zero_shot
from fmjax.reporting import figures, looking, page, pictures

CONFIG = "configs/clip/pairs.py"
AT = (1, 5, 10)


def texts_of(rows: Any) -> tuple[list[str], np.ndarray]:
    """The texts of rows, and their labels, int [N]; none where rows have no label."""
    every = [rows[i] for i in range(len(rows))]
    return [row["text"] for row in every], np.array([r.get("label", 0) for r in every])


def recalls(image: np.ndarray, text: np.ndarray, draws: int) -> dict[str, Any]:
    """Recall at each of AT in both directions with intervals, and median ranks.

    image, text: [S, N, E]; averaged over seeds S, resampled over pairs.
    """
    found: dict[str, Any] = {}
    for name, pairs in (
        ("image_to_text", zip(image, text, strict=True)),
        ("text_to_image", zip(text, image, strict=True)),
    ):
        ranks = np.stack([retrieval.own_ranks(*pair) for pair in pairs])
        found[name] = {
            f"recall@{k}": bootstrap.interval(ranks <= k, seed=0, draws=draws)
            for k in AT
        } | {"median_rank": float(np.median(ranks))}
    return found


def category_right(
    image: np.ndarray, classes: dict[int, np.ndarray], labels: np.ndarray
) -> np.ndarray:
    """0 / 1 [N]: is the image's category's text vector the nearest?

    image [N, E]; classes: a vector [E] for each category's number.
    """
    weights = zero_shot.classifier(np.stack([*classes.values()]))
    scores = zero_shot.normalised(image, "image") @ weights.T
    return (np.array([*classes])[scores.argmax(1)] == labels).astype(np.float64)


def by_training_texts(text: np.ndarray, labels: np.ndarray) -> dict[int, np.ndarray]:
    """A vector for each category there is: the mean of its names' vectors [M, E]."""
    unit = zero_shot.normalised(text, "text")
    return {int(c): unit[labels == c].mean(0) for c in np.unique(labels)}


def measure(folders: list[pathlib.Path], draws: int) -> dict[str, Any]:
    run = workdir.open_run(folders[0])
    sets = {split: run.parts.data(split) for split in ("train", "test")}
    names, train_labels = texts_of(sets["train"].rows)
    test_names, labels = texts_of(sets["test"].rows)
    said = [arms.said(folder, "test") for folder in folders]
    image, text = (np.stack([one[k] for one in said]) for k in ("image", "text"))
    found: dict[str, Any] = {
        "facts": sets["test"].facts,
        "train": len(names),
        "test": len(test_names),
        "chance": {f"recall@{k}": k / len(labels) for k in AT},
        "retrieval": {"CLIP": recalls(image, text, draws)},
        "zero_shot": {},
        "steps": arms.steps(folders),
        "seeds": len(folders),
    }
    zero: dict[str, list[np.ndarray]] = {"category names": [], "training names": []}
    for folder, vectors in zip(folders, image, strict=True):
        opened = workdir.open_run(folder)
        row = opened.batches(sets["test"].rows).example(0)
        weights = opened.weights(row)
        by_name = dict(enumerate(prompts.classes(opened, *weights)[:, 0]))
        known = prompts.encode(opened, names, *weights)
        by_texts = by_training_texts(known, train_labels)
        for key, one in (("category names", by_name), ("training names", by_texts)):
            zero[key].append(category_right(vectors, one, labels))
    for key, right in zero.items():
        found["zero_shot"][f"CLIP, by {key}"] = bootstrap.interval(
            np.stack(right), seed=0, draws=draws
        )
    for name, features in baseline.FEATURES.items():
        x, tested = (features(sets[s].rows) for s in ("train", "test"))
        words = baseline.Words(names)
        predicted, alpha = baseline.ridge(x, words.of(names), tested)
        found["retrieval"][f"{name}, ridge to words"] = recalls(
            predicted[None], words.of(test_names)[None], draws
        ) | {"alpha": alpha}
        by_texts = by_training_texts(words.of(names), train_labels)
        chosen = category_right(predicted, by_texts, labels)
        found["zero_shot"][f"{name}, by training names"] = bootstrap.interval(
            chosen, seed=0, draws=draws
        )
        taught = baseline.supervised(x, train_labels, tested) == labels
        found["zero_shot"][f"{name}, taught the categories"] = bootstrap.interval(
            taught.astype(float), seed=0, draws=draws
        )
    commonest = np.bincount(train_labels).argmax()
    found["zero_shot"]["largest category"] = bootstrap.interval(
        (labels == commonest).astype(float), seed=0, draws=draws
    )
    return found


def nearest(folder: pathlib.Path, count: int = 6) -> tuple[bytes, list[list[str]]]:
    """PNG and names: for some held-out names, their own emoji and the five found."""
    said = arms.said(folder, "test")
    rows = workdir.open_run(folder).parts.data("test").rows
    scores = said["text"] @ said["image"].T
    chosen = np.linspace(0, len(rows) - 1, count).astype(int)
    pictured, told = [], []
    for i in chosen:
        found = np.argsort(-scores[i], kind="stable")[:5]
        pictured.append([rows[int(j)]["image"] for j in (i, *found)])
        told.append([rows[int(j)]["text"] for j in (i, *found)])
    return pictures.grid(pictured, scale=1, gap=4), told


def sections_of(found: dict[str, Any], drawn: bytes, loss: str) -> list[page.Section]:
    ways = {"image_to_text": "image to name", "text_to_image": "name to image"}
    rows = [
        {"model": name, "asked": shown, "median": way[key]["median_rank"]}
        | {f"at{k}": way[key][f"recall@{k}"] for k in AT}
        for name, way in found["retrieval"].items()
        for key, shown in ways.items()
    ]
    rows.append(
        {"model": "chance", "asked": "either", "median": (found["test"] + 1) / 2}
        | {f"at{k}": found["chance"][f"recall@{k}"] for k in AT}
    )
    categories = [{"model": n, "accuracy": a} for n, a in found["zero_shot"].items()]
    return [
        page.section(
            "Retrieval",
            page.table(
                rows,
                [
                    "model",
                    "asked",
                    *(page.column(f"at{k}", f"recall@{k} [95 %]", ".3f") for k in AT),
                    page.column("median", "median rank", ".1f"),
                ],
                f"Among {found['test']} emoji of subjects held out",
            ),
            page.figure(drawn, "A held-out name's own emoji, and the five it finds"),
        ),
        page.section(
            "Zero-shot categories",
            page.table(
                categories,
                ["model", page.column("accuracy", "accuracy [95 %]", ".3f")],
                "Which of the categories",
            ),
        ),
        page.section("Training", page.figure(loss, "A thin line a seed")),
    ]


def main() -> int:
    given = arms.parser(__doc__, "runs/emoji").parse_args()
    cli.cache()
    root, draws = given.workdir, arms.draws(given.tiny)
    settings = config.load(CONFIG + (":tiny" if given.tiny else ":emoji"))
    folders = arms.seeds(root, "clip", settings, given.seeds)
    found = measure(folders, draws)
    lines = [{"model": n, **numbers} for n, numbers in found["retrieval"].items()]
    lines += [
        {"zero_shot": name, "accuracy": value}
        for name, value in found["zero_shot"].items()
    ]
    run = {k: found[k] for k in ("seeds", "steps", "train", "test")}
    arms.record_lines(root, [line | run for line in lines])
    drawn, told = nearest(folders[0])
    (root / "nearest.png").write_bytes(drawn)
    loss = figures.curves(
        {s: arms.curve(folders, f"{s}/loss") for s in ("train", "validation")},
        "step",
        "loss (nats a pair)",
    )
    arms.drawing(root / "loss.svg", loss)
    seen = looking.section(folders[0])
    path = page.write(
        root / "report.html",
        "CLIP on emoji",
        sections_of(found, drawn, loss) + ([seen] if seen else []),
        data=found | {"nearest": told},
    )
    for name, way in found["retrieval"].items():
        for key in ("image_to_text", "text_to_image"):
            spans = [way[key][f"recall@{k}"] for k in AT]
            print(name, key, *(f"{s['value']:.3f}" for s in spans))
    for name, value in found["zero_shot"].items():
        print(name, arms.shown(value, ".3f"))
    for line in told:
        print(" | ".join(line))
    print(f"report: {path}")
    return 0


if __name__ == "__main__":
    cli.run(main)
