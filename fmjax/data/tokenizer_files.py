"""Tokenizers as public checkpoints have them, in files of several kinds."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
)

from fmjax.data import vocabulary
from fmjax.data.vocabulary import SPECIALS

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
        return _wordpiece(folder / "vocab.txt", _settings(folder))
    if {"vocab.json", "merges.txt"} <= there:
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
    lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
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
    lower = settings.get("do_lower_case")
    if not isinstance(lower, bool):
        lower = not any(p != p.lower() for p in pieces if p not in SPECIALS)
    return vocabulary.wordpiece(vocab, cased=not lower)


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer_config.json"
    if not file.is_file():
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    changed = {"strip_accents": None, "tokenize_chinese_chars": True}
    for name, usual in changed.items():
        if settings.get(name, usual) != usual:
            raise ValueError(
                f"{file}: {name}={settings[name]!r} is not what is read from a "
                "vocab.txt; give a tokenizer.json"
            )
    return settings


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
