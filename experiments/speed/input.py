"""How fast images come in: each pipeline beside a plain Pillow loop, and beside a step.

    python -m experiments.speed.input [--rounds 3] [--steps 150]

First, examples a second of processor time of one thread, ours (`Batches.at`: shuffled,
a generator an example, stacked) and the loop's in turns; the ratio is a round's, and
its median and range are given. Then the small CNN trains on Fashion-MNIST with each
pipeline that fits: the share of time that it waits for input is read from its own log,
and the processor time of its input and of its step are compared. Leaves
runs/speed_input (--workdir) and its results.jsonl (kept here as input.jsonl).
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from experiments.arms import fit, say
from experiments.speed import pillow_loop as loop
from fmjax import cli, config, files, report
from fmjax.data import vocabulary
from fmjax.data.batches import Batches
from fmjax.data.inputs import image, image_mask, image_text, two_views
from fmjax.data.sources import image_folder, photos, synthetic_scenes
from fmjax.keeping import provenance
from fmjax.train import prepare

GREY: dict[str, Any] = {"mean": (0.2860,), "std": (0.3530,)}
RGB: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
STRONG: dict[str, Any] = {"flip": True, "crop": 2, "randaugment": (2, 9), "erase": 0.25}


class Many:
    """A few rows as if they were many.

    To shuffle a handful takes grain longer than all the rest: 1.6 ms a row of 15, and
    4 us a row of 55,000.
    """

    def __init__(self, rows: Any, length: int = 60_000):
        self.rows, self.length = rows, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = self.rows[index % len(self.rows)]
        return row


class Arrays:
    """Rows of random images, as a set in memory has."""

    def __init__(self, count: int, shape: Sequence[int]):
        # Smooth, so that colours are distributed as in pictures.
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (count, 7, 7, 3), np.uint8)
        sized = [Image.fromarray(c).resize((shape[1], shape[0]), 3) for c in coarse]
        self.images = np.stack([np.asarray(s)[..., : shape[2]] for s in sized])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "label": int(index) % 10, "id": int(index)}


def jpegs(folder: pathlib.Path) -> list[pathlib.Path]:
    """scikit-image's photos as JPEG files of ImageNet's usual size, 500 x 375."""
    place = folder / "photos" / "all"
    place.mkdir(parents=True, exist_ok=True)
    rows = photos.load("test").rows
    for i in range(len(rows)):
        picture = Image.fromarray(rows[i]["image"]).resize((500, 375), BICUBIC)
        picture.save(place / f"{i}.jpg", quality=90)
    return sorted(place.glob("*.jpg"))


Pipeline = tuple[str, Any, Any, Callable[[int], np.ndarray] | None, int]


def pipelines(folder: pathlib.Path) -> list[Pipeline]:
    """(name, rows, inputs, the reference's example of an index or None, batch size)."""
    small, scenes = Arrays(1000, (28, 28, 1)), synthetic_scenes.load("train", size=64)
    held: dict[str, list] = {"image": [], "mask": [], "text": []}
    for i in range(len(scenes.rows)):
        for name in held:
            held[name].append(scenes.rows[i][name])
    pairs = [
        {name: held[name][i] for name in held} | {"id": i}
        for i in range(len(scenes.rows))
    ]
    files = jpegs(folder)
    big = image_folder.load(
        "train", path=str(folder / "photos"), size=None, holdout=(0, 0)
    ).rows
    words = vocabulary.train("words", held["text"], 200, folder / "words.json")
    grey = lambda i: Image.fromarray(small.images[i][..., 0])  # noqa: E731

    def cut(how):
        def example(i):
            picture = loop.crop_resized(loop.opened(files[i]), 224, 0.08, how)
            return loop.tensor(loop.mirror(picture), **RGB)

        return example

    def views(opened, side, low, s, blur, norm):
        def example(i):
            made = []
            for _ in range(2):
                picture = loop.crop_resized(opened(i), side, low, BICUBIC)
                picture = loop.distort(loop.mirror(picture), s, blur)
                made.append(loop.tensor(picture, **norm))
            return np.stack(made)

        return example

    def simclr(i):
        whole = loop.opened(files[i])  # decoded once for both views
        return views(lambda _: whole, 224, 0.08, 1.0, True, RGB)(i)

    small_views = views(grey, 28, 0.08, 0.5, False, GREY)
    cropped: dict[str, Any] = {"area": (0.08, 1.0), "flip": True, "size": 224}
    return [
        (
            "28x28: shift, mirror",
            small,
            image.make(**GREY, flip=True, crop=2),
            lambda i: loop.tensor(loop.mirror(loop.padded(grey(i), 2)), **GREY),
            64,
        ),
        (
            "28x28: and RandAugment, erasing",
            small,
            image.make(**GREY, **STRONG),
            None,
            64,
        ),
        (
            "28x28: and mixup, CutMix",
            small,
            image.make(**GREY, **STRONG, mixup=0.8, cutmix=1.0),
            None,
            64,
        ),
        (
            "28x28: two views (SimCLR)",
            small,
            two_views.make(**GREY, strength=0.5, blur=0.0),
            small_views,
            64,
        ),
        (
            "JPEG: crop to 224, mirror",
            big,
            image.make(**RGB, **cropped),
            cut(BILINEAR),
            8,
        ),
        (
            "JPEG: crop to 224, bicubic (MAE)",
            big,
            image.make(**RGB, **cropped, resample="bicubic"),
            cut(BICUBIC),
            8,
        ),
        (
            "JPEG: 224 with RandAugment",
            big,
            image.make(**RGB, **cropped, randaugment=(2, 9), mixup=0.8, cutmix=1.0),
            None,
            8,
        ),
        (
            "JPEG: two views at 224 (SimCLR)",
            big,
            two_views.make(**RGB, size=224),
            simclr,
            8,
        ),
        (
            "32x32: image and text (CLIP)",
            pairs,
            image_text.make(
                tokenizer=words, length=16, area=(0.9, 1.0), size=32, **RGB
            ),
            None,
            64,
        ),
        (
            "32x32: image and mask",
            pairs,
            image_mask.make(area=(0.5, 1.0), size=32, flip=True, **RGB),
            None,
            64,
        ),
    ]


def measure(pipeline: Pipeline, rounds: int) -> dict[str, Any]:
    """Examples a second of one thread's processor time, in turns with the reference."""
    name, rows, inputs, reference, size = pipeline
    data = Batches(Many(rows), inputs, size, seed=0)
    order = random.Random(0)

    def ours(step: int) -> None:
        data.at(step)

    def theirs(step: int) -> None:
        assert reference is not None
        chosen = [order.randrange(len(rows)) for _ in range(size)]
        np.stack([reference(i) for i in chosen])

    def rate(run: Callable[[int], None], batches: int, first: int) -> float:
        began = time.thread_time()
        for step in range(first, first + batches):
            run(step)
        return batches * size / (time.thread_time() - began)

    once = size / rate(ours, 1, 0)  # the first also warms caches up
    batches = max(2, round(0.4 / once))
    found: dict[str, list[float]] = {"ours": [], "loop": [], "ratio": []}
    for turn in range(rounds):
        found["ours"].append(rate(ours, batches, 1 + turn * batches))
        if reference is not None:
            found["loop"].append(rate(theirs, batches, 0))
            found["ratio"].append(found["ours"][-1] / found["loop"][-1])
    line: dict[str, Any] = {"pipeline": name, "rounds": rounds}
    line["examples_per_second"] = float(np.median(found["ours"]))
    if found["ratio"]:
        ratio = found["ratio"]
        line["loop_examples_per_second"] = float(np.median(found["loop"]))
        line["ratio"] = float(np.median(ratio))
        line["ratio_range"] = [min(ratio), max(ratio)]
    return line


TRAINED: dict[str, dict[str, Any]] = {
    "as in the config": {},
    "shift, mirror": {"flip": True, "crop": 2},
    "and RandAugment, erasing, mixup, CutMix": {**STRONG, "mixup": 0.8, "cutmix": 1.0},
}


def waiting(
    folder: pathlib.Path, name: str, fields: dict, steps: int
) -> dict[str, Any]:
    """The small CNN trained with these inputs: shares of time that it waited."""
    settings = config.load("configs/cnn/fashion_mnist.py")
    settings["inputs"] |= fields
    settings |= {"steps": steps, "evaluate": None}
    settings["log"]["every"] = "25 steps"
    fit(folder, settings)
    lines = [x for x in report.read(folder) if "input_wait" in x][1:]
    waits = [line["input_wait"] for line in lines]
    return {
        "trained": f"small CNN, 28x28, batch 64: {name}",
        "steps": steps,
        "input_wait": float(np.median(waits)),
        "input_wait_range": [min(waits), max(waits)],
    } | processor(settings)


def processor(settings: dict[str, Any], steps: int = 20) -> dict[str, Any]:
    """Processor seconds of a batch's input and of a step: they know of no other load.

    The input has one thread. Where a step alone keeps N cores busy, it lasts step / N
    seconds, and input / step below 1 / N means that it never waits for long.
    """
    filled = {"tokenizer": None, "parallel": None, "accum": 1} | settings
    setup = prepare(filled)
    state = jax.jit(setup.create)(jax.random.key(0))
    batch = jax.device_put(setup.train_set.at(0))
    step = jax.jit(setup.step, donate_argnums=0)
    state, _ = jax.block_until_ready(step(state, batch))
    began = time.process_time()
    for _ in range(steps):
        state, _ = jax.block_until_ready(step(state, batch))
    step_seconds = (time.process_time() - began) / steps
    began = time.thread_time()
    for number in range(steps):
        setup.train_set.at(number)
    input_seconds = (time.thread_time() - began) / steps
    return {
        "step_processor_ms": 1e3 * step_seconds,
        "input_processor_ms": 1e3 * input_seconds,
        "input_over_step": input_seconds / step_seconds,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", default="runs/speed_input", type=pathlib.Path)
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--steps", default=150, type=int, help="of the small CNN")
    given = parser.parse_args()
    cli.cache()
    root = given.workdir
    root.mkdir(parents=True, exist_ok=True)
    lines, load = [], os.getloadavg()[1]
    for pipeline in pipelines(root):
        lines.append(measure(pipeline, given.rounds))
        say(json.dumps(lines[-1]))
    for i, (name, fields) in enumerate(TRAINED.items()):
        lines.append(
            waiting(root / f"cnn-{i}-{given.steps}", name, fields, given.steps)
        )
        say(json.dumps(lines[-1]))
    made = provenance.record()
    ran = {k: made[k] for k in ("commit", "uncommitted", "packages", "devices")}
    ran |= {"cores": os.cpu_count(), "load": [load, os.getloadavg()[1]]}
    text = "".join(json.dumps(line | ran) + "\n" for line in lines)
    files.replace(root / "results.jsonl", text)
    for line in lines:
        name = line.get("pipeline") or line["trained"]
        if "input_wait" in line:
            share = line["input_over_step"]
            print(
                f"{name:70} waits {line['input_wait']:6.1%}, input / step {share:.2f}"
            )
        else:
            ratio = f"{line['ratio']:.2f} x the loop" if "ratio" in line else ""
            print(f"{name:40} {line['examples_per_second']:8.0f} / s  {ratio}")
    return 0


if __name__ == "__main__":
    cli.run(main)
