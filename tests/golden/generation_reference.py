"""What transformers' `generate` writes in the cases of `generation_cases`."""

import numpy as np
import torch
import transformers

from . import generation_cases, lm_reference

# Ours -> theirs, where the value is the same.
NAMES = {
    "length": "max_new_tokens",
    "beams": "num_beams",
    "end": "eos_token_id",
    "pad": "pad_token_id",
    "start": "decoder_start_token_id",
    "min_length": "min_new_tokens",
    "suppress": "suppress_tokens",
    "early_stopping": "early_stopping",
    "length_penalty": "length_penalty",
    "repetition_penalty": "repetition_penalty",
}


class Stop(transformers.StoppingCriteria):
    """Sequences of ids that end a text, among those after the first `begin`."""

    def __init__(self, sequences, begin):
        self.sequences, self.begin = sequences, begin

    def __call__(self, input_ids, scores, **kwargs):
        rows = input_ids[:, self.begin :].tolist()
        hits = [any(tuple(r[-len(s) :]) == s for s in self.sequences) for r in rows]
        return torch.tensor(hits)


def model(text):
    """As of `lm_reference`, but with small biases and a last norm of both signs: else
    the output table, which is the input's, writes one token over and over."""
    net = lm_reference.model(text.case, text.seed, text.sharp)
    lasts = []
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith(("ln_f.weight", "final_layer_norm.weight")):
                lasts.append(parameter)
            elif parameter.ndim == 1 and name.endswith("bias"):
                parameter *= 0.2
        generator = torch.Generator().manual_seed(text.seed)
        lasts[-1].copy_(torch.randn(lasts[-1].shape, generator=generator))
    return net


def settle(net, text):
    """Makes `generation_cases.OWN` and the text's ids the checkpoint's own settings."""
    pad = text.case.config().get("pad_token_id") or 0
    ids = dict(eos_token_id=text.end, pad_token_id=pad, forced_eos_token_id=text.end)
    ids |= dict(decoder_start_token_id=text.start)
    net.generation_config.update(**generation_cases.OWN, **ids)


def compute(net, text, name):
    """{tokens: [B, N], lengths: [B], scores: [B] of beams}, as `Generated`.

    name: of the case, or "own" for what the checkpoint itself says.
    """
    options, stop = {}, ()
    if name != "own":
        given = dict(generation_cases.options(text, name))
        stop, force_end = given.pop("stop", ()), given.pop("force_end", False)
        options = {NAMES[k]: v for k, v in given.items() if v is not None}
        for key in ("eos_token_id", "suppress_tokens"):
            if isinstance(options.get(key), tuple):
                options[key] = list(options[key])
        if force_end:
            options["forced_eos_token_id"] = options["eos_token_id"]
        options["do_sample"] = False
    arrays = generation_cases.padded(text)
    tokens = torch.tensor(arrays["tokens"].copy()).long()
    begin = tokens.shape[1] if text.start is None else 1
    if stop:
        options["stopping_criteria"] = [Stop(stop, begin)]
    with torch.no_grad():
        found = net.generate(
            tokens,
            attention_mask=torch.tensor(arrays["mask"].copy()).long(),
            return_dict_in_generate=True,
            output_scores=True,
            **options,
        )
    settings = net.generation_config.to_dict() | options
    length = settings["max_new_tokens"] or settings["max_length"] - begin
    made = {
        "tokens": np.full((len(tokens), length), settings["pad_token_id"], np.int32),
        "lengths": np.zeros(len(tokens), np.int32),
    }
    ends = {*np.atleast_1d(settings["eos_token_id"]).tolist()}
    for i, row in enumerate(found.sequences[:, begin:].tolist()):
        n = 1
        while n < len(row) and not (
            row[n - 1] in ends or any(tuple(row[:n][-len(s) :]) == s for s in stop)
        ):
            n += 1
        # After the end, beam search has another filling than padding.
        made["tokens"][i, :n], made["lengths"][i] = row[:n], n
    if "sequences_scores" in found:
        # A column of a table, which safetensors would write as if it were whole.
        made["scores"] = np.ascontiguousarray(found.sequences_scores.numpy())
    return made
