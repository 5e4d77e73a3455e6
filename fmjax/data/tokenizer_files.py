"""Tokenizers as public checkpoints have them, in files of several kinds."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
)

from fmjax.data import vocabulary
from fmjax.data.vocabulary import SPECIALS


class Kind(NamedTuple):
    """What the files of a folder may say beside a vocabulary, for it to be read here.

    file: the vocabulary. classes: transformers' tokenizers that read it so. usual:
    values of tokenizer_config.json that change the tokens; others are refused. tokens:
    special tokens by their role there, others that play the role are refused.
    """

    file: str
    classes: tuple[str, ...]
    usual: Mapping[str, tuple[Any, ...]]
    tokens: Mapping[str, str]


WORDPIECE = Kind(
    "vocab.txt",
    ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"),
    {"word_tokenizer_type": (None,)},  # Japanese BERT's
    {f"{name[1:-1].lower()}_token": name for name in SPECIALS},
)
BYTES = Kind(
    "vocab.json",
    ("GPT2Tokenizer",),
    dict.fromkeys(("add_prefix_space", "add_bos_token"), (False, None)),
    {f"{name}_token": vocabulary.DOCUMENT for name in ("bos", "eos", "unk")},
)

_MARK = re.compile(r"\[[^][]+\]|<[^<>]+>")  # no piece of a text, whatever its letters

SENTENCEPIECE = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
PAIRED = ("source.spm", "target.spm")  # Marian's


def read(path: Path) -> Tokenizer:
    """The tokenizer of a file, or of a folder's best: see `tokenizer.load`."""
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no tokenizer at {path}; give a tokenizer.json, a directory with one, "
            "or a vocab.txt"
        )
    return _wordpiece(path, {}) if path.suffix == ".txt" else _whole(path)


def _folder(folder: Path) -> Tokenizer:
    there = {file.name for file in folder.iterdir() if file.is_file()}
    if "tokenizer.json" in there:
        return _whole(folder / "tokenizer.json")
    if "vocab.txt" in there:
        return _wordpiece(folder / "vocab.txt", _settings(folder, WORDPIECE))
    if {"vocab.json", "merges.txt"} <= there:
        _settings(folder, BYTES)
        return _bytes(folder)
    if found := sorted(there & {*SENTENCEPIECE, *PAIRED}):
        remedy = (
            "write it once, where transformers and sentencepiece are installed: "
            f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained(...)"
        )
        if set(found) & set(PAIRED):
            remedy = (
                "Marian's pairs of models have no such form: give the nets ids from "
                "transformers' MarianTokenizer"
            )
        raise ValueError(
            f"{folder} has {', '.join(found)} of sentencepiece and no tokenizer.json, "
            f"which is what is read here; {remedy}"
        )
    raise FileNotFoundError(
        f"{folder} has no tokenizer.json and no vocab.txt, nor vocab.json with "
        "merges.txt"
    )


def _whole(file: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises no narrower type
        raise ValueError(
            f"{file} is not a tokenizer.json of the tokenizers library: {error}"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _wordpiece(file: Path, settings: dict[str, Any]) -> Tokenizer:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8: {error}") from error
    lines = text.removesuffix("\n").split("\n")
    pieces = [line.rstrip("\r") for line in lines]
    twice = [piece for piece, n in Counter(pieces).items() if n > 1]
    if twice:
        raise ValueError(f"{file}: piece {twice[0]!r} has two lines; ids are unclear")
    vocab = {piece: i for i, piece in enumerate(pieces)}
    missing = [name for name in SPECIALS if name not in vocab]
    if missing:
        raise ValueError(
            f"{file} lacks the special tokens {', '.join(missing)}; a BERT vocabulary "
            f"has {', '.join(SPECIALS)}"
        )
    lower = _switch(file, settings, "do_lower_case")
    if lower is None:
        words = (p for p in pieces if not _MARK.fullmatch(p))
        lower = all(p == p.lower() for p in words)
    chinese = _switch(file, settings, "tokenize_chinese_chars")
    return vocabulary.wordpiece(
        vocab,
        cased=not lower,
        strip_accents=_switch(file, settings, "strip_accents"),
        split_chinese=chinese is not False,
    )


def _switch(file: Path, settings: dict[str, Any], name: str) -> bool | None:
    """A setting beside a vocabulary: true, false, or None where it is not said."""
    value = settings.get(name)
    if value is not None and not isinstance(value, bool):
        raise ValueError(
            f"{file.with_name('tokenizer_config.json')}: {name} must be true or "
            f"false, got {value!r:.80}"
        )
    return value


def _settings(folder: Path, kind: Kind) -> dict[str, Any]:
    """tokenizer_config.json; ValueError where a file asks for other tokens."""
    settings, config = (_json(folder / f"{n}config.json") for n in ("tokenizer_", ""))
    own = settings.get("tokenizer_class") or config.get("tokenizer_class")
    if own is not None and str(own).removesuffix("Fast") not in kind.classes:
        raise _unlike(folder, kind, f"tokenizer_class={own!r:.80}")
    for name, usual in kind.usual.items():
        if name in settings and settings[name] not in usual:
            raise _unlike(folder, kind, f"{name}={settings[name]!r:.80}")
    for role, word in _named(folder, settings):
        plain = [*kind.tokens.values()]
        if word not in ([kind.tokens[role]] if role in kind.tokens else plain):
            raise _unlike(folder, kind, f"the special token {role}={word!r:.80}")
    return settings


def _named(folder: Path, settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Pairs of a role, and a token that the files beside a vocabulary give it."""
    added = settings.get("added_tokens_decoder")
    for word in [*_json(folder / "added_tokens.json"), *_values(added)]:
        yield "added", _word(word)
    for found in (settings, _json(folder / "special_tokens_map.json")):
        for key, value in found.items():
            if key in ("additional_special_tokens", "extra_special_tokens"):
                yield from ((key, _word(word)) for word in _values(value))
            elif key.endswith("_token") and isinstance(value, str | dict):
                yield key, _word(value)


def _values(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.values()]
    return value if isinstance(value, list) else []


def _word(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _unlike(folder: Path, kind: Kind, what: str) -> ValueError:
    return ValueError(
        f"{folder}: {what} is not what is read from a {kind.file}; write a "
        "tokenizer.json once, where transformers is installed: "
        f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained(...)"
    )


def _json(file: Path) -> dict[str, Any]:
    """An object in a file beside the vocabulary, which may be absent."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} is not a JSON object")
    return found


def _bytes(folder: Path) -> Tokenizer:
    """GPT-2's: byte pairs, with <|endoftext|> as the one special token."""
    try:
        model = models.BPE.from_file(
            str(folder / "vocab.json"), str(folder / "merges.txt")
        )
    except Exception as error:  # the library raises no narrower type
        raise ValueError(
            f"{folder}: vocab.json and merges.txt do not make a tokenizer: {error}"
        ) from error
    tokenizer = Tokenizer(model)
    if tokenizer.token_to_id(vocabulary.DOCUMENT) is None:
        raise ValueError(
            f"{folder}/vocab.json has no {vocabulary.DOCUMENT}: it is not GPT-2's "
            "kind; give a tokenizer.json"
        )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([vocabulary.DOCUMENT])
    return tokenizer
