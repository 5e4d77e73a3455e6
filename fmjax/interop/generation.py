"""How a public checkpoint wants its texts written: generation_config.json as data."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from flax import linen as nn

from fmjax import interop
from fmjax.data import weights

# What transformers takes where the files are silent (its global defaults).
DEFAULTS: dict[str, Any] = {
    "max_length": None,
    "max_new_tokens": None,
    "min_length": 0,
    "min_new_tokens": None,
    "do_sample": False,
    "num_beams": 1,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "early_stopping": False,
    "length_penalty": 1.0,
    "repetition_penalty": 1.0,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "bos_token_id": None,
    "decoder_start_token_id": None,
    "forced_eos_token_id": None,
}

NEW_TOKENS = 20  # where neither maximum is given

# Each would change the texts; only these values, which change nothing, are known here.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "begin_suppress_tokens": (None, []),
    "constraints": (None,),
    "diversity_penalty": (None, 0.0),
    "dola_layers": (None,),
    "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
    "exponential_decay_length_penalty": (None,),
    "force_words_ids": (None,),
    "forced_bos_token_id": (None,),
    "forced_decoder_ids": (None, []),
    "guidance_scale": (None, 1, 1.0),
    "max_time": (None,),
    "min_p": (None, 0.0),
    "no_repeat_ngram_size": (None, 0),
    "num_beam_groups": (None, 1),
    "num_return_sequences": (None, 1),
    "penalty_alpha": (None,),
    "prompt_lookup_num_tokens": (None,),
    "renormalize_logits": (None, False),
    "sequence_bias": (None,),
    "stop_strings": (None, []),
    "token_healing": (None, False),
    "top_h": (None,),
    "typical_p": (None, 1.0),
    "watermarking_config": (None,),
}

# How it is computed or what comes with it, and provenance.
HARMLESS = {
    *("_from_model_config", "_commit_hash", "transformers_version", "use_cache"),
    *("cache_implementation", "cache_config", "max_cache_len", "low_memory"),
    *("output_attentions", "output_hidden_states", "output_scores", "output_logits"),
    *("return_dict_in_generate", "remove_invalid_values", "prefill_chunk_size"),
    *("compile_config", "disable_compile", "continuous_batching_config", "use_mtp"),
    *("is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule"),
    *("assistant_confidence_threshold", "assistant_early_exit", "speculation_type"),
    *("assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight"),
    "max_matching_ngram_size",
}


def options(
    directory: str | os.PathLike[str],
    net: nn.Module,
    *,
    prompt: int | None = None,
    without: Collection[str] = (),
) -> dict[str, Any]:
    """Keywords of `fmjax.generation.generate`, for the texts that transformers writes.

    directory: as in `interop.load`. Its generation_config.json is read, or config.json
    where that is absent; what both leave out is as transformers has it.
    prompt: the width of the prompts, for a decoder alone, whose maximum and minimum
        are counted with them in these files. None leaves both out, unless the file
        counts new tokens: `length` is then for the caller to give.
    without: keys of the file that are left out knowingly.
    A checkpoint that samples has temperature, top_k and top_p, and needs a `key`.

    Raises FileNotFoundError where there is neither file; ValueError, naming the keys,
    where the file asks for something that is not implemented or not understood here, or
    a value is none that its key can have.
    """
    folder = weights.directory(directory)
    if not folder.is_dir():
        raise FileNotFoundError(weights.missing(directory))
    path = folder / "generation_config.json"
    if path.is_file():
        found = interop.config_of(folder, path.name)
    else:
        # There, keys of other kinds stand beside these.
        path, found = folder / "config.json", interop.config_of(folder)
        found = {k: v for k, v in found.items() if k in DEFAULTS or k in NEUTRAL}
    found = {k: v for k, v in found.items() if k not in without}
    if refused := [
        f"{key} = {value!r:.60}"
        for key, value in found.items()
        if key not in DEFAULTS
        and key not in HARMLESS
        and value not in NEUTRAL.get(key, ())
    ]:
        raise ValueError(
            f"{path}: {', '.join(refused)}: not implemented here, and texts could "
            "differ; leave it out knowingly with without=... (--without KEY)"
        )
    values = DEFAULTS | {k: v for k, v in found.items() if v is not None}
    return _options(_Settings(path, values), "decoder_depth" in _fields(net), prompt)


def _options(of: _Settings, source: bool, prompt: int | None) -> dict[str, Any]:
    ends = of.ids("eos_token_id")
    pad = of.ids("pad_token_id") or ends or [0]
    made: dict[str, Any] = {"end": ends or None, "pad": pad[0]}
    if source:
        begin = of.ids("decoder_start_token_id") or of.ids("bos_token_id")
        if not begin:
            raise ValueError(
                f"{of.path}: no decoder_start_token_id, and no bos_token_id"
            )
        made["start"], prompt = begin, len(begin)
    made |= of.lengths(prompt)
    if not ends:
        made.pop("min_length", None)
    made["beams"] = of.whole("num_beams", 1)
    for ours in ("length_penalty", "repetition_penalty"):
        made[ours] = of.number(ours)
    made["early_stopping"] = of["early_stopping"]
    if of.switch("do_sample"):
        made["temperature"] = of.number("temperature")
        made["top_k"] = of.whole("top_k", 0) or None
        made["top_p"] = of.number("top_p")
        if made["beams"] > 1:
            raise ValueError(
                f"{of.path}: do_sample with num_beams = {made['beams']}: beams search "
                "and don't sample here; leave one out (--without do_sample)"
            )
    if forced := of.ids("forced_eos_token_id"):
        if sorted(forced) != sorted(ends):
            raise ValueError(
                f"{of.path}: forced_eos_token_id {forced} must be eos_token_id {ends}"
            )
        made["force_end"] = True
    if banned := sorted({*of.words("bad_words_ids", ends), *of.ids("suppress_tokens")}):
        made["suppress"] = banned
    return made


class _Settings:
    """Values by key, checked as hostile input: ValueError names file and key."""

    def __init__(self, path: Path, values: Mapping[str, Any]):
        self.path, self.values = path, values

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def _need(self, fine: bool, key: str, what: str) -> None:
        if not fine:
            raise ValueError(
                f"{self.path}: {key} must be {what}, got {self[key]!r:.80}"
            )

    def whole(self, key: str, least: int) -> int:
        value = self[key]
        fine = type(value) is int and least <= value <= 1_000_000_000
        self._need(fine, key, f"a whole number from {least}")
        return value

    def number(self, key: str) -> float:
        self._need(type(self[key]) in (int, float), key, "a number")
        return float(self[key])

    def switch(self, key: str) -> bool:
        self._need(type(self[key]) is bool, key, "true or false")
        return self[key]

    def ids(self, key: str) -> list[int]:
        value = self[key]
        listed = value if isinstance(value, list) else [] if value is None else [value]
        fine = all(type(one) is int and one >= 0 for one in listed)
        self._need(fine, key, "a token's id, or a list of them")
        return listed

    def words(self, key: str, ends: list[int]) -> list[int]:
        """Single tokens of lists of tokens, but for the ends, which stay possible."""
        value = [] if self[key] is None else self[key]
        fine = isinstance(value, list) and all(
            isinstance(word, list) and len(word) == 1 and type(word[0]) is int
            for word in value
        )
        self._need(fine, key, "a list of lists of one id (longer ones are not known)")
        return [word[0] for word in value if word[0] not in ends]

    def lengths(self, begun: int | None) -> dict[str, int]:
        """`length` and `min_length`; begun: tokens that the totals count as well."""
        made = {}
        if self["max_new_tokens"] is not None:
            made["length"] = self.whole("max_new_tokens", 1)
        elif self["max_length"] is None:
            made["length"] = NEW_TOKENS
        elif begun is not None:
            made["length"] = self.whole("max_length", 1) - begun
            if made["length"] < 1:
                raise ValueError(
                    f"{self.path}: max_length {self['max_length']} leaves no room "
                    f"after {begun} tokens of the prompt; give a length"
                )
        if self["min_new_tokens"] is not None:
            made["min_length"] = self.whole("min_new_tokens", 0)
        elif begun is not None:
            made["min_length"] = self.whole("min_length", 0) - begun
        if made.get("min_length", 0) <= 0:
            made.pop("min_length", None)
        return made


def _fields(net: nn.Module) -> set[str]:
    return {*getattr(net, "__dataclass_fields__", ())}
