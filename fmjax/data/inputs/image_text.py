"""An image and a text that belongs to it (CLIP: Radford et al. 2021)."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from fmjax.data.images import augment
from fmjax.data.images.normalise import Numbers, scaler
from fmjax.data.images.threads import threaded
from fmjax.data.inputs.image import labelled
from fmjax.data.source import Row
from fmjax.data.tokenizer import encode, role

START = "<|startoftext|>"  # CLIP's


def make(
    *,
    tokenizer: Tokenizer,
    length: int = 77,
    templates: Sequence[str] = ("{}",),
    size: int | Sequence[int] | None = None,
    mean: Numbers = 0.0,
    std: Numbers = 1.0,
    area: Sequence[float] | None = None,
    centre: float = 1.0,
    resample: str = "bicubic",
    flip: bool = False,
    jitter: Sequence[float] | None = None,
    threads: int = 1,
) -> Callable[[Row, np.random.Generator | None], dict[str, Any]]:
    """Rows of `image` and `text`, which is a str or a list of such.

    length: T; a longer text is cut at its end, before the end token. templates: texts
        around the row's own, such as 'a photo of a {}.'. Training draws one of the
        texts and one of the templates; evaluation takes the first of each. The image's
        settings and threads are those of `inputs/image` (the paper's only change is a
        random square of the scaled image, OpenCLIP's an area of 0.9 to 1).

    Returns inputs {image float32 [H, W, C], tokens int32 [T], mask bool [T] (True is a
    real token)} and, where the row has a label, label int32. Tokens are the text's
    between the tokenizer's own start and end tokens, as far as it has them. Raises
    ValueError on a row without a text or image.
    """
    scaled = scaler(mean, std)
    start, end, pad = _specials(tokenizer)
    if length < 3:
        raise ValueError(f"inputs.length={length} leaves no room for text: 3 or more")
    for template in templates or ("",):  # an empty list is wrong, too
        if template.count("{}") != 1:
            raise ValueError(f"inputs.templates: {template!r} needs one {{}} in it")
    changes = augment.changes(
        size,
        area=area,
        centre=centre,
        resample=resample,
        flip=flip,
        jitter=jitter,
    )

    def inputs(row: Row, rng: np.random.Generator | None) -> dict[str, Any]:
        image, texts = augment.of_row(row), row.get("text")
        texts = list(texts) if isinstance(texts, list | tuple) else [texts]
        text, template = texts[0] if texts else None, templates[0]
        if rng is None:
            image = augment.evaluate(image, changes)
        else:
            if len(texts) > 1:
                text = texts[int(rng.integers(len(texts)))]
            if len(templates) > 1:
                template = templates[int(rng.integers(len(templates)))]
            image = augment.train(image, rng, changes)
        if isinstance(text, str) and text.strip():
            text = template.replace("{}", text)
        return {"inputs": {"image": scaled(image)} | tokens(row, text)} | labelled(row)

    def tokens(row: Row, text: Any) -> dict[str, Any]:
        found = encode(tokenizer, {**row, "text": text}, "text")
        line = [*start, *found[: length - len(start) - len(end)], *end]
        made = np.full(length, pad, np.int32)
        made[: len(line)] = line
        return {"tokens": made, "mask": np.arange(length) < len(line)}

    return threaded(inputs, threads)


def _specials(tokenizer: Tokenizer) -> tuple[list[int], list[int], int]:
    """What a text begins and ends with, if anything, and what fills it up.

    [CLS] and [SEP] or their like, or CLIP's own two; else an end token alone. Where
    nothing is for padding, the end token is (as in CLIP).
    """
    found: dict[str, int] = {}
    for name in ("cls", "sep", "end", "pad"):
        with contextlib.suppress(ValueError):
            found[name] = role(tokenizer, name)
    start = tokenizer.token_to_id(START)
    end = found.get("end")
    if start is None and "cls" in found and "sep" in found:
        start, end = found["cls"], found["sep"]
    pad = found.get("pad", end)
    if pad is None:
        role(tokenizer, "pad")  # says what the tokenizer has
    return (
        [] if start is None else [start],
        [] if end is None else [end],
        int(pad or 0),
    )
