"""The cases in which GPT-2, T5 and Marian are held against transformers.

As `bert_cases`: shared by the ordinary test and the parity test, no torch, and flat
dicts of arrays with the reference's names: input/, output/, act/, grad/, and loss.
"""

import dataclasses
import importlib
from typing import Any

import jax
import numpy as np
import optax

from fmjax.interop import names


@dataclasses.dataclass(frozen=True)
class Case:
    """kind: a transformers class; fields: of its config; padding: of the source, for
    GPT-2 of the text; length, target: tokens of each; golden: committed."""

    kind: str
    fields: tuple[tuple[str, Any], ...]
    padding: str = "none"
    length: int = 7
    target: int = 5
    own_head: bool = False  # T5 1.1: an output map of its own, made by hand
    golden: bool = False

    def config(self):
        """Keywords of the reference's config."""
        return dict(self.fields)

    @property
    def vocab(self):
        return self.config()["vocab_size"]

    @property
    def width(self):
        config = self.config()
        return config.get("n_embd") or config["d_model"]

    @property
    def family(self):
        name = {"GPT2LMHeadModel": "gpt", "MarianMTModel": "transformer"}
        return importlib.import_module(f"fmjax.interop.{name.get(self.kind, 't5')}")


def gpt2(padding="none", length=7, golden=False, **changes):
    fields = dict(vocab_size=31, n_positions=12, n_embd=12, n_layer=2, n_head=3)
    fields |= dict(bos_token_id=None, eos_token_id=None) | changes
    fields = tuple(fields.items())
    return Case("GPT2LMHeadModel", fields, padding, length, golden=golden)


def t5(padding="right", length=7, target=5, own_head=False, golden=False, **changes):
    fields = dict(vocab_size=31, d_model=12, d_kv=5, d_ff=20, num_layers=2, num_heads=3)
    # No padding id: the reference would stop that row's gradient.
    fields |= dict(pad_token_id=None, decoder_start_token_id=0, eos_token_id=None)
    fields = tuple((fields | changes).items())
    kind = "T5ForConditionalGeneration"
    return Case(kind, fields, padding, length, target, own_head, golden)


def marian(padding="right", length=7, target=5, golden=False, **changes):
    fields = dict(vocab_size=31, d_model=12, max_position_embeddings=12)
    for side in ("encoder", "decoder"):
        fields |= {f"{side}_layers": 2, f"{side}_ffn_dim": 20}
        fields |= {f"{side}_attention_heads": 3}
    fields |= dict(pad_token_id=30, decoder_start_token_id=30, eos_token_id=0)
    fields |= dict(forced_eos_token_id=None) | changes
    kind = "MarianMTModel"
    return Case(kind, tuple(fields.items()), padding, length, target, golden=golden)


CASES = {
    "gpt2": gpt2("left", golden=True),
    "gpt2-full-length": gpt2("none", 12, activation_function="gelu"),
    "gpt2-one-token": gpt2("none", 1, n_head=1),
    "gpt2-right": gpt2("right", n_inner=17, activation_function="relu"),
    "gpt2-untied": gpt2("left", tie_word_embeddings=False, n_layer=3),
    "gpt2-seven-heads": gpt2(
        *("left", 33), n_embd=49, n_head=7, n_positions=40, vocab_size=257
    ),
    "gpt2-wide": gpt2(
        *("right", 64), n_embd=192, n_head=3, n_positions=64, vocab_size=1001, n_layer=6
    ),
    "t5": t5(golden=True),
    "t5-left": t5("left", 9, num_decoder_layers=3, relative_attention_num_buckets=6),
    "t5-one-token": t5("none", 1, 1, num_heads=1),
    "t5-far": t5(
        *("right", 40, 37),
        relative_attention_num_buckets=8,
        relative_attention_max_distance=17,
    ),
    "t5-1.1": t5(
        own_head=True,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        golden=True,
    ),
    "t5-tied-unscaled": t5(
        feed_forward_proj="gated-silu", tie_word_embeddings=False, num_layers=1
    ),
    "t5-wide": t5(
        *("right", 48, 32),
        d_model=192,
        d_kv=64,
        d_ff=512,
        num_layers=4,
        vocab_size=1001,
    ),
    "marian": marian(activation_function="swish", scale_embedding=True, golden=True),
    "marian-unscaled": marian("left", decoder_layers=1, decoder_attention_heads=2),
    "marian-one-token": marian("none", 1, 1, encoder_attention_heads=1),
    "marian-odd": marian(
        *("middle", 12, 12), d_model=15, decoder_ffn_dim=11, activation_function="relu"
    ),
    "marian-wide": marian(
        *("right", 48, 32),
        d_model=192,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        vocab_size=1001,
        max_position_embeddings=64,
        pad_token_id=1000,
        decoder_start_token_id=1000,
        scale_embedding=True,
    ),
}


def inputs(case, seed=0, batch=3):
    """Random inputs and targets; ids stay below the last one, Marian's padding."""
    random = np.random.default_rng(seed)
    mask = np.ones((batch, case.length), bool)
    for row, padding in enumerate((0, 1, case.length // 2)[:batch]):
        match case.padding:
            case "left":
                mask[row, :padding] = False
            case "right":
                mask[row, case.length - padding :] = False
            case "middle":
                mask[row, 1 : 1 + padding] = False

    def ids(length):
        return random.integers(0, case.vocab - 1, (batch, length), np.int32)

    out = {"tokens": ids(case.length), "mask": mask}
    if case.kind != "GPT2LMHeadModel":
        out["decoder_tokens"] = ids(case.target)
    out["targets"] = ids(out.get("decoder_tokens", out["tokens"]).shape[1])
    return {f"input/{name}": value for name, value in out.items()}


def ours(case, net, variables, given):
    """What fmjax computes for `inputs`, under the reference's names."""
    feed = {name.removeprefix("input/"): value for name, value in given.items()}
    targets = feed.pop("targets")
    weights = np.ones(targets.shape)
    if "decoder_tokens" not in feed:
        weights = feed["mask"]  # what padding says is nobody's business

    def loss(params):
        logits = net.apply({"params": params}, feed)
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return (entropy * weights).sum() / weights.sum()

    @jax.jit
    def everything(variables):
        logits, seen = net.apply(variables, feed, capture_intermediates=True)
        value, grads = jax.value_and_grad(loss)(variables["params"])
        return logits, seen["intermediates"], value, grads

    logits, seen, value, grads = everything(variables)
    out = {"output/0": logits, "loss": value}
    entries, seen = case.family.entries(net), names.flatten(seen)
    for entry in entries:
        leaf = entry.path.rpartition("/")[2]
        if leaf in ("kernel", "scale") and entry.path != "head/kernel":
            # Each linear map and norm is a module in both; its output is the same.
            modules = [path.rpartition("/")[0] for path in entry.paths]
            found = [seen[f"{module}/__call__"][0] for module in modules]
            out[f"act/{entry.name.removesuffix('.weight')}"] = np.concatenate(found, -1)
    flat = {path: np.asarray(grad) for path, grad in names.flatten(grads).items()}
    for name, grad in names.collect(flat, entries).items():
        # The reference keeps this one as a buffer, which has no gradient.
        if name != "final_logits_bias":
            out[f"grad/{name}"] = grad
    return {name: np.asarray(array) for name, array in out.items()}
