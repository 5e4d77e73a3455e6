"""sentence-transformers' files beside a BERT: how texts become vectors, both ways."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmjax import files
from fmjax.data import tokenizer as tokenizers
from fmjax.interop import safetensors, settings

# What head 'embed' does of the modules, and of the poolings.
MODULES = ("Transformer", "Pooling", "Normalize")
MEANS: tuple[dict[str, Any], ...] = (
    {},
    {"pooling_mode_mean_tokens": True},
    {"pooling_mode": "mean"},
)
PACKAGE = "sentence_transformers.models"  # where all its versions find the modules
LIMITS = "sentence_bert_config.json"
PROMPTS = "config_sentence_transformers.json"
POOLINGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")


def check(directory: Path) -> None:
    """Raises ValueError where a folder's sentence vectors are not those of 'embed'.

    modules.json, 1_Pooling/config.json, sentence_bert_config.json and
    config_sentence_transformers.json say how they are made; a folder may be without
    these files.
    """
    for file in directory.glob("modules.json"):
        for module in _said(file, list):
            name = module.get("type") if isinstance(module, dict) else module
            if str(name).rpartition(".")[2] not in MODULES:
                raise ValueError(
                    f"{file}: {name!r:.80} is not implemented here (only "
                    f"{', '.join(MODULES)}); the vectors would be others"
                )
    for file in sorted(directory.glob("*_Pooling/config.json")):
        modes = {
            k: v for k, v in _said(file, dict).items() if "pooling_mode" in k and v
        }
        if modes not in MEANS:
            raise ValueError(
                f"{file}: {modes!r:.160} is not implemented here (only the mean of a "
                "text's tokens); the vectors would be others. head=None gives every "
                "token's state"
            )
    for file in directory.glob(LIMITS):
        if _said(file, dict).get("do_lower_case") and not _lowers(directory):
            raise ValueError(
                f"{file}: do_lower_case lowers texts before a tokenizer for which case "
                "counts, which is not done here; the vectors would be others. Give the "
                "folder a tokenizer.json that lowers"
            )
    for file in directory.glob(PROMPTS):
        said = _said(file, dict)
        name, prompts = said.get("default_prompt_name"), said.get("prompts")
        if name is not None and (not isinstance(prompts, dict) or prompts.get(name)):
            raise ValueError(
                f"{file}: default_prompt_name {name!r:.80} puts a prompt before every "
                "text, which is not done here; the vectors would be others. Put it "
                "there yourself, and null here"
            )


def limit(directory: Path, config: Mapping[str, Any]) -> int:
    """How many pieces of a text, [CLS] and [SEP] included, its vector is made of.

    config: config.json. As sentence-transformers: the least of max_position_embeddings
    and of max_seq_length, or where the latter is not said of the tokenizer's
    model_max_length. Raises ValueError naming the file where one is no length.
    """
    positions = {"max_position_embeddings": 512} | dict(config)  # BertConfig's default
    known = settings.integer(positions, "max_position_embeddings", 100_000_000)
    for name, key in (
        (LIMITS, "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    ):
        file = directory / name
        value = _said(file, dict).get(key) if file.is_file() else None
        if value is None:
            continue
        # Where there is no limit, transformers writes 1e30.
        if type(value) not in (int, float) or not 1 <= value < 1e40:
            raise ValueError(
                f"{file}: {key} must be a whole number from 1, got {value!r:.80}"
            )
        return min(known, int(value))
    return known


def write(directory: Path, *, width: int, length: int) -> None:
    """The files that make a folder of a BERT and its tokenizer sentence-transformers'.

    width: of the vectors, which are those of 'embed'. length: as `limit` finds it.
    """
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"{PACKAGE}.{kind}"}
        for i, (kind, path) in enumerate(kinds.items())
    ]
    pooling: dict[str, Any] = {"word_embedding_dimension": width}
    pooling |= {f"pooling_mode_{mode}": mode == "mean_tokens" for mode in POOLINGS}
    limits = {"max_seq_length": length, "do_lower_case": False}
    for name, value in (
        ("modules.json", modules),
        ("1_Pooling/config.json", pooling),
        (LIMITS, limits),
    ):
        files.write_json(directory / name, value)


def _said(file: Path, kind: type) -> Any:
    try:
        found = safetensors.parse_json(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    if not isinstance(found, kind):
        raise ValueError(f"{file} is not a JSON {kind.__name__}")
    return found


def _lowers(directory: Path) -> bool:
    normalizer = tokenizers.load(directory).normalizer
    return normalizer is not None and normalizer.normalize_str("AÉ") in ("ae", "aé")
