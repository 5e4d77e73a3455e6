"""Checkpoints of the Hugging Face hub, fetched where they are asked for by `hf:`.

The prefix is required so that a path which is not there, such as runs/pretrain, is
never taken for somebody's repository. Needs the extra `hub`.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from fmjax.data.index import Unreachable

log = logging.getLogger(__name__)

PREFIX = "hf:"

# Weights as safetensors, settings, and tokenizers: nothing that is a pickle or a
# program is ever fetched.
FILES = (
    "config.json",
    "generation_config.json",
    "modules.json",
    "*_Pooling/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "source.spm",
    "target.spm",
)

_NAME = r"\w[\w.-]{0,95}/\w[\w.-]{0,95}"


def is_name(text: str) -> bool:
    """Could this be a repository of the hub, 'org/name' or 'org/name@revision'?"""
    known = re.fullmatch(rf"{_NAME}(@\w[\w./-]*)?", text, re.ASCII)
    return known is not None and ".." not in text


def fetch(name: str) -> Path:
    """The folder of a repository's FILES, 'org/name' or 'org/name@revision'.

    revision: a commit, tag or branch; without one the newest is taken, and the log says
        which it was, to pin it. The files are kept by `huggingface_hub`, whose settings
        (HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE) hold.
    Raises ValueError for what is no such name, LookupError where the hub has no such
    repository or revision or does not give it away, and Unreachable where the library
    is not installed or the hub cannot be reached.
    """
    if not is_name(name):
        raise ValueError(
            f"{PREFIX}{name} names no repository: write {PREFIX}org/name or "
            f"{PREFIX}org/name@revision"
        )
    try:
        import huggingface_hub as library
    except ImportError as error:
        raise Unreachable(
            f"{PREFIX}{name} needs the package huggingface_hub: pip install "
            "'fmjax[hub]', or copy the repository's files here and give their folder"
        ) from error
    repository, _, revision = name.partition("@")
    errors = library.errors
    try:
        folder = library.snapshot_download(
            repository, revision=revision or None, allow_patterns=list(FILES)
        )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise LookupError(
            f"{PREFIX}{name}: the hub has no such repository or revision, or asks for "
            f"a login: {_first(error)}"
        ) from error
    except Exception as error:  # the library's and its HTTP client's, of many kinds
        raise Unreachable(
            f"{PREFIX}{name} could not be fetched: {_first(error)}. Where the hub is "
            "out of reach, copy the repository's files here and give their folder"
        ) from error
    found = Path(str(folder))
    if not revision:
        log.warning(
            "%s%s: took %s; pin it as %s%s@%s",
            *(PREFIX, name, found.name, PREFIX, name, found.name),
        )
    return found


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
