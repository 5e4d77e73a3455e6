"""Text to text: translation, and tasks as T5 writes them (Raffel et al. 2020)."""

import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from fmjax.data.inputs.span_corruption import sides
from fmjax.data.source import Row
from fmjax.data.tokenizer import encode, role

SOURCE, TARGET = "{source}", "{target}"


def make(
    *,
    tokenizer: Tokenizer,
    length: int = 128,
    target_length: int = 128,
    source: str = SOURCE,
    target: str = TARGET,
    classes: Sequence[str] = (),
) -> Callable[[Row, np.random.Generator | None], dict[str, Any]]:
    """Encode two texts, made from a row's fields, for an encoder and a decoder.

    source, target: templates with fields in braces, such as 'question: {text} passage:
        {text2}' and '{label}'; a label is written as its class's name.
    length, target_length: S and T; longer texts are cut at their end, before the end
        token that both sides have.

    Returns inputs {tokens int32 [S], mask bool [S], decoder_tokens int32 [T] (targets
    shifted right behind the padding token)}, targets int32 [T], weights float32 [T].
    A row without the target's fields (prediction) has the start token alone and weight
    0. The generator is not used. Raises ValueError for a template that cannot be filled
    and for empty texts.
    """
    if length < 2 or target_length < 2:
        raise ValueError(f"length={length}, target_length={target_length}: 2 or more")
    pad, end = role(tokenizer, "pad"), role(tokenizer, "end")
    fields("source", source)  # refused here rather than at the first row
    answered = fields("target", target)

    def fill(row: Row, template: str, name: str) -> list[int]:
        text = render(row, template, classes, name)
        return encode(tokenizer, {"id": row.get("id", "(no id)"), name: text}, name)

    def inputs(row: Row, rng: np.random.Generator | None = None) -> dict[str, Any]:
        del rng
        given = [*fill(row, source, "source")[: length - 1], end]
        answer: list[int] = []
        if all(row.get(field) is not None for field in answered):
            found = fill(row, target, "target")
            answer = [*found[: target_length - 1], end]
        return sides(given, answer, length, target_length, pad)

    return inputs


def render(row: Row, template: str, classes: Sequence[str], name: str) -> str:
    """A template filled from a row; a label is written as its class's name.

    Raises ValueError, naming the row, where it has no such fields; `name` is the
    template's.
    """
    values = dict(row)
    if classes and row.get("label") is not None:
        values["label"] = classes[int(row["label"])]
    missing = [field for field in fields(name, template) if values.get(field) is None]
    if missing:
        raise ValueError(
            f"row {row.get('id', '(no id)')} has no {', '.join(missing)} for "
            f"inputs.{name}={template!r}; it has {', '.join(row)}"
        )
    return template.format_map(values)


def fields(name: str, template: str) -> list[str]:
    """The fields that a template names. Raises ValueError where it has none."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"inputs.{name}={template!r}: {error}") from error
    found = [field for _, field, _, _ in parts if field is not None]
    if not found or not all(field.isidentifier() for field in found):
        raise ValueError(
            f"inputs.{name}={template!r}: name a row's fields in braces, such as "
            "'{text}'"
        )
    return found
