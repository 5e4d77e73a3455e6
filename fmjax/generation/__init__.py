"""Text from a language model: greedy, sampled, or by beam search, with a cache.

    found = generate(net, variables, left_pad(prompts), length=40, end=0)

Any model with `prepare` and `decode` serves (`fmjax.models.gpt`, `.t5`,
`.transformer`).
"""

# B batch, K beams, R = B * K rows, P prompt slots, N new tokens, L = P + N cache slots,
# V vocabulary, C candidates

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fmjax.generation.decoder import Decoder, Rules
from fmjax.generation.search import beam_search, one_by_one

__all__ = ["Generated", "generate", "left_pad"]

Arrays = Mapping[str, Any]


class Generated(NamedTuple):
    """tokens: int32 [B, N], new ones only, `pad` after the end; lengths: int32 [B], how
    many of them there are, the end included; scores: float32 [B], the sum of their log
    probabilities (nats) over lengths ** length_penalty (or GNMT's). For one beam these
    are the model's own, whatever was done to its logits; for several they are those
    that the search compared, with the repetition penalty in them.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    scores: np.ndarray


def left_pad(rows: Sequence[Sequence[int]], pad: int = 0) -> dict[str, np.ndarray]:
    """Prompts of any lengths as {tokens: int32 [B, T], mask: bool [B, T]}.

    Padding is on the left. Raises ValueError where there is no row or an empty one.
    """
    if not rows or not all(len(row) for row in rows):
        raise ValueError("a prompt is empty: give it one token at least, as the start")
    width = max(map(len, rows))
    tokens = np.full((len(rows), width), pad, np.int32)
    mask = np.zeros((len(rows), width), bool)
    for i, row in enumerate(rows):
        tokens[i, width - len(row) :] = row
        mask[i, width - len(row) :] = True
    return {"tokens": tokens, "mask": mask}


def generate(
    net: nn.Module,
    variables: Mapping[str, Any],
    inputs: Arrays,
    *,
    length: int,
    key: jax.Array | None = None,
    beams: int = 1,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    length_penalty: float = 1.0,
    gnmt: bool = False,
    early_stopping: bool | str = False,
    end: int | Sequence[int] | None = None,
    min_length: int = 0,
    force_end: bool = False,
    stop: Sequence[Sequence[int]] = (),
    suppress: Sequence[int] = (),
    pad: int = 0,
    start: int | Sequence[int] | None = None,
    pad_to: int | None = None,
) -> Generated:
    """Up to `length` new tokens for each row of `inputs`.

    net, variables: a model with `prepare` and `decode`, and what `net.init` gives.
    inputs: tokens int [B, T], and mask bool [B, T], True is a real token, absent: all
        are. Where `start` is None they are prompts, padded on the left (`left_pad`);
        else they are sources, which go to `prepare` as they are, and every row's text
        begins with `start`, an id or several.
    temperature: 0 takes the likeliest token. More than 0 divides the logits, which are
        then sampled from, for which `key` is needed: one key, which row i folds i into,
        or keys [B]; each step folds in its number. A row's text follows from its key
        and prompt alone, whatever else is in the batch.
    top_k: sample from the k likeliest tokens. top_p: from the fewest likeliest tokens
        that have this much probability together (Holtzman et al. 2020).
    repetition_penalty: logits of tokens that are in the text or its prompt are divided
        by it where positive, else multiplied (Keskar et al. 2019, section 4.1).
    beams: more than 1 is beam search for the highest score. Sums of log probabilities
        are divided by lengths ** length_penalty where a text ends, and a row is done
        once it has `beams` texts (early_stopping True), or none of those in progress
        can get better at its present length (False) or at the likeliest length
        ('never'). gnmt: by ((5 + lengths) / 6) ** length_penalty instead (Wu et al.
        2016, equation 14; Vaswani et al. 2017 have 0.6, which is not transformers').
    end: id or ids that end a text. stop: sequences of ids that do, among the new ones.
    min_length: `end` is impossible before so many new tokens. force_end: `end` is what
        the last of `length` tokens is. suppress: ids that are impossible.
    pad_to: the width that inputs are padded to, None: the next power of two, so that
        one compiled program serves prompts of many lengths.

    All but temperature, top_p, the penalties, the key and the arrays is compiled in.
    Order and meaning are those of transformers 5.23 (`GenerationMixin`), whose texts
    these are, token for token, where nothing is sampled.
    Raises ValueError where an option has no meaning, a prompt is empty or padded on the
    right, an id is not in the vocabulary (`net.vocab_size`), or there are more tokens
    than positions (`net.max_length`); the last two where the model has these fields.
    """
    ends = _ids(end)
    begin = _ids(start)
    limit = getattr(net, "max_length", None)
    rules = Rules(
        length=length,
        beams=beams,
        sample=temperature > 0,
        top_k=top_k,
        top_p=top_p is not None and top_p < 1,
        penalised=repetition_penalty != 1,
        early_stopping=early_stopping,
        min_length=min_length,
        force_end=force_end,
        end=ends,
        stop=tuple(tuple(map(int, one)) for one in stop),
        suppress=_ids(suppress),
        pad=pad,
        source=bool(begin),
    )
    _check(rules, temperature, top_p, repetition_penalty, key)
    _check_ids(net, rules, begin)
    tokens, mask = _read(net, inputs)
    width = tokens.shape[1]
    room = limit
    if begin:
        if limit is not None and len(begin) + length > limit:
            raise ValueError(
                f"{len(begin)} start tokens and length {length} are more than the "
                f"model's {limit} positions; ask for {limit - len(begin)} at most"
            )
    else:
        if (mask[:, :-1] & ~mask[:, 1:]).any():
            raise ValueError("prompts must be padded on the left; see `left_pad`")
        first = int(mask.any(0).argmax())
        tokens, mask = tokens[:, first:], mask[:, first:]
        width = tokens.shape[1]
        room = None if limit is None else limit - length
    if room is not None and width > room:
        what = "a source" if begin else "a prompt"
        more = "" if begin else f", less the length {length} asked for"
        raise ValueError(
            f"{what} has {width} tokens, but there is room for {max(room, 0)}: the "
            f"model has {limit} positions{more}; truncate it or ask for fewer"
        )
    if pad_to is None:
        pad_to = max(16, 1 << (width - 1).bit_length())
        pad_to = pad_to if room is None else min(pad_to, room)
    if pad_to < width or (room is not None and pad_to > room):
        raise ValueError(
            f"pad_to {pad_to} must be from the longest row's {width} tokens to "
            f"{'any' if room is None else room}"
        )
    extra = pad_to - width
    sides = ((0, 0), (0, extra) if begin else (extra, 0))
    tokens, mask = np.pad(tokens, sides), np.pad(mask, sides)
    given = {**inputs, "tokens": tokens, "mask": mask}
    if begin:
        prompt = np.tile(np.array(begin, np.int32), (len(tokens), 1))
        seen = np.ones(prompt.shape, bool)
    else:
        prompt, seen = tokens, mask
    # In float64 and then rounded, as Python's numbers are.
    lengths = np.arange(1, length + 1, dtype=np.float64)
    scale = ((5 + lengths) / 6 if gnmt else lengths) ** length_penalty
    hope = scale
    if early_stopping == "never" and length_penalty > 0:
        hope = np.full_like(scale, scale[-1])
    numbers = {
        "temperature": np.float32(temperature),
        "top_p": np.float32(1 if top_p is None else top_p),
        "repetition": np.float32(repetition_penalty),
        "scale": scale.astype(np.float32),
        "hope": hope.astype(np.float32),
    }
    keys = _keys(key, len(tokens)) if rules.sample else None
    found = _run(net, rules, variables, given, prompt, seen, numbers, keys)
    return Generated(*map(np.asarray, found))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(net, rules, variables, inputs, prompt, seen, numbers, keys):
    """The compiled program: (tokens [B, N], lengths [B], scores [B])."""
    decode = Decoder(net, rules, variables, inputs, prompt, seen)
    if rules.beams > 1:
        return beam_search(decode, rules, numbers)
    return one_by_one(decode, rules, numbers, keys)


def _ids(given: int | Sequence[int] | None) -> tuple[int, ...]:
    if given is None:
        return ()
    return tuple(int(i) for i in np.atleast_1d(np.asarray(given, int)))


def _keys(key: jax.Array | None, batch: int) -> jax.Array:
    """A key a row."""
    if key is None or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise ValueError("sampling needs a key: jax.random.key(0), or temperature 0")
    if key.shape == (batch,):
        return key
    if key.shape:
        raise ValueError(f"key has shape {key.shape}, expected () or ({batch},)")
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))


def _read(net: nn.Module, inputs: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int32 [B, T], 0 where there are none, and their mask."""
    tokens = np.asarray(inputs["tokens"])
    if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer):
        raise ValueError(
            f"tokens must be integers [B, T], got {tokens.dtype} {tokens.shape}"
        )
    mask = inputs.get("mask")
    mask = np.ones(tokens.shape, bool) if mask is None else np.asarray(mask)
    if mask.shape != tokens.shape or mask.dtype != bool:
        raise ValueError(
            f"mask must be bool {tokens.shape}, True for a real token; got "
            f"{mask.dtype} {mask.shape}"
        )
    if not tokens.size or not mask.any(1).all():
        empty = int(mask.any(1).argmin()) if tokens.size else 0
        raise ValueError(
            f"row {empty} is empty: give it one token at least, as the start token"
        )
    size = getattr(net, "vocab_size", None)
    wrong = mask & ((tokens < 0) | (tokens >= (np.inf if size is None else size)))
    if wrong.any():
        raise ValueError(
            f"tokens have id {tokens[wrong][0]}, but the vocabulary is 0 to "
            f"{size and size - 1}; use the model's own tokenizer"
        )
    return np.where(mask, tokens, 0).astype(np.int32), mask


def _check_ids(net: nn.Module, rules: Rules, start: tuple[int, ...]) -> None:
    size = getattr(net, "vocab_size", None)
    named = {"end": rules.end, "start": start, "suppress": rules.suppress}
    named |= {"pad": (rules.pad,), "stop": sum(rules.stop, ())}
    for name, ids in named.items():
        for one in ids:
            if one < 0 or (size is not None and one >= size):
                raise ValueError(
                    f"{name} has id {one}, but the vocabulary is 0 to "
                    f"{size and size - 1}; use the model's own tokenizer"
                )
    if not all(rules.stop):
        raise ValueError("a stop sequence is empty: leave it out")


def _check(rules: Rules, temperature, top_p, penalty, key) -> None:
    def need(fine: bool, what: str) -> None:
        if not fine:
            raise ValueError(what)

    need(rules.length >= 1, f"length is {rules.length}: ask for 1 new token or more")
    need(rules.beams >= 1, f"beams is {rules.beams}: 1 is no search, 4 is common")
    need(
        temperature >= 0,
        f"temperature is {temperature}: 0 takes the likeliest token, 1 samples",
    )
    need(
        rules.top_k is None or rules.top_k >= 1,
        f"top_k is {rules.top_k}: 1 or more, or None for all tokens",
    )
    need(
        top_p is None or 0 < top_p <= 1,
        f"top_p is {top_p}: a probability in (0, 1], or None for all tokens",
    )
    need(
        penalty > 0,
        f"repetition_penalty is {penalty}: more than 0, 1 is none",
    )
    need(
        not (rules.beams > 1 and rules.sample),
        "beams search for the likeliest text and don't sample: leave temperature 0, or "
        "beams 1",
    )
    need(
        rules.sample or (rules.top_k is None and top_p is None),
        "top_k and top_p are of sampling: give a temperature, 1 is the model's own",
    )
    need(
        rules.early_stopping in (False, True, "never"),
        f"early_stopping is {rules.early_stopping!r} (known: False, True, 'never')",
    )
    need(
        0 <= rules.min_length <= rules.length,
        f"min_length is {rules.min_length}: 0 to length, {rules.length}",
    )
    need(
        bool(rules.end) or not (rules.min_length or rules.force_end),
        "min_length and force_end are about the end token: give `end`",
    )
