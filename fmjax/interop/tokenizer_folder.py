"""A checkpoint directory's tokenizer, read with its config and written beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors

from fmjax import files
from fmjax.data import tokenizer as tokenizers

# config.json's names of tokens' ids.
IDS = (
    *("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id"),
    *("decoder_start_token_id", "forced_eos_token_id"),
)

# model_type -> {transformers' name of a special token: the role it has here}
_BOTH_SIDES = {"pad_token": "pad", "unk_token": "unknown", "eos_token": "end"}
_TOKENS: dict[str, dict[str, str]] = {
    "bert": {
        **{"pad_token": "pad", "unk_token": "unknown", "mask_token": "mask"},
        **{"cls_token": "cls", "sep_token": "sep"},
    },
    "gpt2": {
        **{"pad_token": "pad", "unk_token": "unknown"},
        **{"bos_token": "document", "eos_token": "document"},
    },
    "t5": _BOTH_SIDES,
    "marian": _BOTH_SIDES,
    "clip": _BOTH_SIDES,
}

# Which tokens stand before and after a text that the models' inputs make, where the
# tokenizer itself adds none.
_AROUND = {
    "gpt2": ("{} $A", "document"),
    "t5": ("$A {}", "end"),
    "marian": ("$A {}", "end"),
    "clip": ("$A {}", "end"),
}


def read(directory: Path, config: Mapping[str, Any]) -> Tokenizer:
    """The folder's tokenizer, checked against its config.json: see `interop`."""
    tokenizer = tokenizers.load(directory)
    words, size = tokenizer.get_vocab(with_added_tokens=True), config.get("vocab_size")
    if isinstance(size, int) and words and (last := max(words.values())) >= size:
        word = tokenizer.id_to_token(last)
        raise ValueError(
            f"{directory}: the tokenizer does not match the checkpoint: its id {last} "
            f"({word!r:.40}) is beyond the vocabulary of {size:,}"
        )
    for key in IDS:
        number = config.get(key)
        if type(number) is int and (
            number < 0 or tokenizer.id_to_token(number) is None
        ):
            raise ValueError(
                f"{directory}: the tokenizer does not match the checkpoint: config.json"
                f" has {key} = {number}, which is no token of its {len(words):,}"
            )
    return tokenizer


def ids(tokenizer: Tokenizer, kind: str) -> dict[str, int | None]:
    """What config.json says of special tokens: their ids by its names of them.

    kind: config.json's model_type. Raises ValueError where the tokenizer lacks a token
    that texts of this kind begin or end with.
    """
    found: dict[str, int | None] = {
        f"{name}_id": int(tokenizer.token_to_id(word) or 0)
        for name, word in _special(tokenizer, kind).items()
        if f"{name}_id" in IDS
    }
    if kind in ("t5", "marian"):
        found["decoder_start_token_id"] = tokenizers.role(tokenizer, "pad")
    if kind == "marian":
        found["forced_eos_token_id"] = None  # no text is cut by an end of its own
    return found


def write(directory: Path, tokenizer: Tokenizer, *, kind: str, max_length: int) -> None:
    """Writes the files from which transformers' AutoTokenizer reads a tokenizer.

    kind: config.json's model_type. The files are tokenizer.json, tokenizer_config.json
    and special_tokens_map.json. Encoded by them a text is what the model's inputs make
    of it here: where the tokenizer adds no special tokens itself, the written one adds
    the document token before (GPT-2), or the end token after (T5, Marian, CLIP).
    Raises ValueError as `ids`.
    """
    special = _special(tokenizer, kind)
    written = Tokenizer.from_str(tokenizer.to_str())
    if kind in _AROUND and written.post_processor is None:
        template, role = _AROUND[kind]
        number = tokenizers.role(tokenizer, role)
        word = tokenizer.id_to_token(number)
        written.post_processor = processors.TemplateProcessing(
            single=template.format(word), special_tokens=[(word, number)]
        )
    inputs = ["input_ids", "attention_mask"]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special,
        "model_max_length": max_length,
        "model_input_names": inputs + ["token_type_ids"] * (kind == "bert"),
        "padding_side": "left" if kind == "gpt2" else "right",
        "clean_up_tokenization_spaces": False,
    }
    written.save(str(directory / "tokenizer.json"))
    for file, value in (
        ("tokenizer_config.json", settings),
        ("special_tokens_map.json", special),
    ):
        files.write_json(directory / file, value)


def _special(tokenizer: Tokenizer, kind: str) -> dict[str, str]:
    """transformers' names of special tokens, and the tokens."""
    roles = tokenizers.roles(tokenizer)
    needed = {"bert": ("pad", "cls", "sep"), "gpt2": ("document",), "clip": ("end",)}
    for role in needed.get(kind, ("pad", "end")):
        tokenizers.role(tokenizer, role)
    if kind in ("gpt2", "clip"):  # which have no padding of their own
        roles.setdefault("pad", roles["document" if kind == "gpt2" else "end"])
    return {
        name: str(tokenizer.id_to_token(roles[role]))
        for name, role in _TOKENS[kind].items()
        if role in roles
    }
