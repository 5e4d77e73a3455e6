"""The model between two new tokens: its cache, and the rules that its logits obey."""

# B batch, K beams, R = B * K rows, P prompt slots, N new tokens, L = P + N cache slots,
# V vocabulary, C candidates

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Rules(NamedTuple):
    """What the compiled program is made for; as in `generate`."""

    length: int
    beams: int
    sample: bool
    top_k: int | None
    top_p: bool
    penalised: bool
    early_stopping: bool | str
    min_length: int
    force_end: bool
    end: tuple[int, ...]
    stop: tuple[tuple[int, ...], ...]
    suppress: tuple[int, ...]
    pad: int
    source: bool


class Decoder:
    """The model after its prompts but for the last tokens, with which the loop begins.

    state: {last: int32 [R], cache, seen: bool [R, V] where repetitions are penalised}.
    """

    def __init__(self, net, rules, variables, inputs, prompt, mask):
        self.net, self.rules, self.variables = net, rules, variables
        self.batch, self.prompt = prompt.shape
        slots = self.prompt + rules.length
        self.mask = jnp.pad(mask, ((0, 0), (0, rules.length)), constant_values=True)
        self.skipped = (~mask).sum(1)
        cache = net.apply(variables, inputs, slots, method="prepare")
        if self.prompt > 1:
            # Nobody looks at these logits, so that they are never computed.
            _, cache = self._apply(prompt[:, :-1], cache, 0)
        self.state = {"last": prompt[:, -1], "cache": cache}
        if rules.penalised:
            size = self._vocabulary(prompt, cache)
            rows = jnp.arange(self.batch)[:, None]
            self.state["seen"] = (
                jnp.zeros((self.batch, size), bool).at[rows, prompt].max(mask)
            )

    def _vocabulary(self, prompt, cache):
        last = functools.partial(self._apply, prompt[:, -1:], index=self.prompt - 1)
        return jax.eval_shape(last, cache)[0].shape[-1]

    def repeat(self, times: int) -> None:
        """Every row `times` times, one after the other."""
        again = functools.partial(jnp.repeat, repeats=times, axis=0)
        self.state = jax.tree.map(again, self.state)
        self.mask, self.skipped = again(self.mask), again(self.skipped)

    def _apply(self, tokens, cache, index):
        queries = jnp.arange(tokens.shape[1]) + index
        written = jnp.arange(self.mask.shape[1]) <= queries[-1]
        return self.net.apply(
            self.variables,
            tokens,
            cache,
            index=index,
            mask=self.mask & written,
            positions=(queries[None] - self.skipped[:, None]).clip(0),
            method="decode",
        )

    def logits(self, state, step):
        """(logits float32 [R, V] of new token number `step`, the state with its cache,
        a tree of which leaves of the cache are as they were)."""
        old = state["cache"]
        logits, new = self._apply(state["last"][:, None], old, self.prompt - 1 + step)
        same = jax.tree.map(lambda a, b: a is b, old, new)
        if any(jax.tree.leaves(same)) != self.rules.source:
            raise ValueError(
                "this model reads a source: give the start token of its texts, `start`"
                if not self.rules.source
                else "this model reads prompts and no source: leave `start` out"
            )
        return logits[:, 0].astype("float32"), state | {"cache": new}, same

    def shape(self, scores, seen, step, penalty):
        """Logits or log probabilities [R, V] after the rules that aren't sampling's."""
        rules, never = self.rules, -jnp.inf
        if rules.penalised:
            less = jnp.where(scores < 0, scores * penalty, scores / penalty)
            scores = jnp.where(seen, less, scores)
        if rules.suppress:
            scores = jnp.where(among(rules.suppress, scores), never, scores)
        ends = among(rules.end, scores)
        if rules.min_length:
            scores = jnp.where(ends & (step < rules.min_length), never, scores)
        if rules.force_end:
            forced = jnp.where(ends, 0.0, never)
            scores = jnp.where(step == rules.length - 1, forced, scores)
        return scores

    def ended(self, tokens, step):
        """Does token number `step` end tokens [..., N]? bool [...]"""
        last = jax.lax.dynamic_index_in_dim(tokens, step, axis=-1, keepdims=False)
        hit = jnp.isin(last, jnp.array(self.rules.end, "int32"))
        for one in self.rules.stop:
            where = step + 1 - len(one) + np.arange(len(one))
            found = jnp.take(tokens, where.clip(0), axis=-1)
            hit |= (found == np.array(one)).all(-1) & (where[0] >= 0)
        return hit


def among(ids: tuple[int, ...], scores: jax.Array) -> np.ndarray:
    """bool [V]: which columns of scores [R, V] are ids'."""
    return np.isin(np.arange(scores.shape[-1]), np.array(ids, int))
