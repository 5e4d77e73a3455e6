"""Predictions of a trained run, as JSON lines.

python -m fmjax.predict --workdir runs/x "A fine film." "A dull one."
python -m fmjax.predict --workdir runs/x --input reviews.jsonl   (or lines of text)
python -m fmjax.predict --workdir runs/x --image shoe.png
cat lines.txt | python -m fmjax.predict --workdir runs/x

A run of segmentation draws each image's classes: NAME.classes.png in --maps, a palette
image of the image's own size whose indices are the class numbers (255: the model says
nothing there). The line has its name, `map`, and by class the share of its pixels.
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from fmjax import cli, config, evaluate, files, flags
from fmjax import workdir as workdirs
from fmjax.data.images import decode
from fmjax.data.images.resize import resize as resized
from fmjax.reporting import pictures

# What a row has one of: a text or two, a sentence's words, the first text of a pair.
TEXTS = ("text", "words", "first")
ANSWERS = ("label", "tags", "score", "mask")  # which are not read


def predict(workdir: str | pathlib.Path, rows: Sequence[dict[str, Any]]) -> list[dict]:
    """For each row (`text`, `text2`, `image` as the inputs need) what the run says.

    A classifier says {'label': name, 'probability': float, 'probabilities': {name:
    float}}; segmentation {'map': uint8 [H, W] of class numbers, at the size that the
    model was given, 255 where it says nothing}. Raises ConfigError where there is no
    run or no row, or rows lack what the inputs read, and whatever the inputs raise for
    a row that they can't take.
    """
    if not rows:
        raise config.ConfigError("nothing to predict: no sentence, file or line given")
    run = workdirs.open_run(workdir)
    rows = [{k: v for k, v in row.items() if k not in ANSWERS} for row in rows]
    try:
        run.parts.inputs(rows[0], None)
    except KeyError as error:
        raise config.ConfigError(
            f"{workdir}: inputs.name={run.settings['inputs']['name']!r} reads {error} "
            f"of a row, which has {', '.join(rows[0])}: it is made for rows of "
            f"data.name={run.settings['data']['name']!r}, which `fmjax evaluate` reads"
        ) from error
    objective = config.find("objective", run.settings["objective"]["name"])
    if hasattr(objective, "maps"):  # in place of what a metric wants
        run = run._replace(parts=run.parts._replace(predict=objective.maps))
    data = run.batches(rows)
    params, extras = run.weights(data.example(0))
    arrays, _ = evaluate.predictions(run, data, params, extras)
    return [
        named(run.classes, {k: v[i] for k, v in arrays.items()})
        for i in range(len(rows))
    ]


def named(classes: Sequence[str], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """One row's arrays as JSON values; probabilities with their classes' names."""
    if "tags" in arrays:
        tags = [int(tag) for tag in arrays["tags"] if tag >= 0]
        return {"tags": [classes[tag] if classes else tag for tag in tags]}
    if "map" in arrays:
        return {"map": arrays["map"]}
    if "probabilities" not in arrays:
        return {name: array.tolist() for name, array in arrays.items()}
    p = arrays["probabilities"]
    names = classes or [str(i) for i in range(len(p))]
    return {
        "label": names[int(p.argmax())],
        "probability": float(p.max()),
        "probabilities": dict(zip(names, map(float, p), strict=True)),
    }


def read_lines(
    lines: Iterable[str], name: str, needed: Sequence[str] = TEXTS
) -> Iterator[dict[str, Any]]:
    """Rows from text lines: a JSON object, or the line itself as a text.

    needed: fields of which an object has one at least, not empty; none: any will do.
    A byte order mark is passed over. Raises ConfigError naming the file and the line,
    of one that is not UTF-8 too.
    """
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            line = line.removeprefix("\ufeff") if number == 1 else line
            row = _row(line.strip(), f"{name}:{number}", needed)
            if row is not None:
                yield row
    except UnicodeDecodeError as error:
        raise config.ConfigError(
            f"{name}: not UTF-8 somewhere after line {number}: {error}; convert it "
            "first, e.g. iconv -f latin1 -t utf-8"
        ) from error


def _row(line: str, where: str, needed: Sequence[str]) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return {"text": line} if line else None
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise config.ConfigError(f"{where}: not JSON: {error}") from error
    if needed and not any(_said(row.get(field)) for field in needed):
        raise config.ConfigError(f"{where}: no text in {sorted(row)}")
    return row


def _said(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else isinstance(value, list)


def read_image(path: str, shape: Sequence[int], resize: bool = True) -> dict[str, Any]:
    """A picture file as uint8 [H, W, C] of the shape that the run was trained on.

    resize False keeps its height and width, for inputs that set `size` themselves;
    `own` of the row is (H, W) of the file in either case. Raises ConfigError, with the
    file and the reason, for what is no picture.
    """
    height, width, channels = shape
    try:
        array = decode.decode(path, channels=channels)
    except decode.Unreadable as error:
        raise config.ConfigError(str(error)) from error
    own = array.shape[:2]
    array = resized(array, (height, width)) if resize else array
    return {"image": array, "file": path, "own": own}


def draw(
    folder: pathlib.Path,
    rows: Sequence[dict[str, Any]],
    found: Sequence[dict[str, Any]],
    classes: Sequence[str],
) -> list[dict[str, Any]]:
    """Writes the maps of `found`, by nearest pixels as large as the rows' files are.

    Returns, for each, {'map': its file, 'size': [H, W], 'shares': {class: share of the
    pixels that are not 255}}. Raises ConfigError where a map would take the place of an
    image that is read.
    """
    given = {pathlib.Path(row["file"]).resolve() for row in rows}
    taken = set[pathlib.Path]()
    lines = []
    for row, said in zip(rows, found, strict=True):
        stem, again = pathlib.Path(row["file"]).stem, 1
        path = folder / f"{stem}.classes.png"
        while path in taken:  # an image of this name in another folder
            again += 1
            path = folder / f"{stem}-{again}.classes.png"
        taken.add(path)
        if path.resolve() in given:
            raise config.ConfigError(
                f"{path} is an image to predict of, and would be its map: choose "
                "another folder by --maps"
            )
        numbers = resized(said["map"], row["own"], "nearest")
        if jax.process_index() == 0:
            files.replace(path, pictures.palette(numbers))
        counts = np.bincount(numbers.ravel(), minlength=256)[:255]
        shares = (counts / max(counts.sum(), 1)).tolist()
        line = {"map": str(path), "size": list(row["own"])}
        lines.append(line | {"shares": dict(zip(classes, shares, strict=False))})
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.parser(__doc__)
    parser.add_argument("--workdir", required=True, help="a trained run's folder")
    parser.add_argument("text", nargs="*", help="texts; without any, standard input")
    parser.add_argument(
        "--input", help="a file with a text or a JSON object on each line"
    )
    parser.add_argument(
        "--image", action="append", default=[], help="an image file; repeatable"
    )
    parser.add_argument(
        "--maps", help="segmentation: the folder for maps (WORKDIR/maps)"
    )
    given = cli.parse(parser, argv)
    rows: list[dict[str, Any]] = [{"text": text} for text in given.text]
    if given.input:
        with open(given.input, encoding="utf-8") as lines:
            rows += read_lines(lines, given.input)
    if given.image:
        run = workdirs.open_run(given.workdir)
        shape = run.shapes.get("image")
        if shape is None:
            raise config.ConfigError(f"{given.workdir} was not trained on images")
        own = run.settings["inputs"].get("size") is None
        rows += [read_image(path, shape, resize=own) for path in given.image]
    if not (given.text or given.input or given.image):
        rows += read_lines(sys.stdin, "standard input")
    try:
        found = predict(given.workdir, rows)
    except ValueError as error:
        raise config.ConfigError(str(error)) from error
    if any("map" in said for said in found):
        folder = pathlib.Path(given.maps or f"{given.workdir}/maps")
        names = run.classes or [str(i) for i in range(run.parts.model["classes"])]
        found = draw(folder, rows, found, names)
    elif given.maps:
        raise config.ConfigError(f"--maps: {given.workdir} is no run of segmentation")
    for row, said in zip(rows, found, strict=True):
        shown = {k: v for k, v in row.items() if isinstance(v, str | int | float)}
        print(json.dumps(shown | said, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    cli.run(main)
