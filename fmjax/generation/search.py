"""The loops that choose tokens: one by one, and by beam search."""

# B batch, K beams, R = B * K rows, P prompt slots, N new tokens, L = P + N cache slots,
# V vocabulary, C candidates

import jax
import jax.numpy as jnp


def one_by_one(decode, rules, numbers, keys):
    """The likeliest or a sampled token at a time: (tokens [B, N], lengths, scores)."""
    batch, length = decode.batch, rules.length

    def body(state):
        step, tokens = state["step"], state["tokens"]
        logits, own, _ = decode.logits(state["own"], step)
        scores = decode.shape(logits, own.get("seen"), step, numbers["repetition"])
        if rules.sample:
            folded = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
            chosen = _sample(scores, rules, numbers, folded)
        else:
            chosen = scores.argmax(-1).astype("int32")
        open_ = ~state["done"]
        nats = jnp.take_along_axis(logits, chosen[:, None], 1)[:, 0]
        nats -= jax.nn.logsumexp(logits, axis=-1)
        written = jnp.where(open_, chosen, rules.pad)
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, written, step, 1)
        own["last"] = chosen
        if rules.penalised:
            own["seen"] = own["seen"].at[jnp.arange(batch), chosen].set(True)
        return {
            "step": step + 1,
            "tokens": tokens,
            "done": state["done"] | decode.ended(tokens, step),
            "lengths": state["lengths"] + open_,
            "scores": state["scores"] + jnp.where(open_, nats, 0.0),
            "own": own,
        }

    end = jax.lax.while_loop(
        lambda state: (state["step"] < length) & ~state["done"].all(),
        body,
        {
            "step": jnp.int32(0),
            "tokens": jnp.full((batch, length), rules.pad, "int32"),
            "done": jnp.zeros(batch, bool),
            "lengths": jnp.zeros(batch, "int32"),
            "scores": jnp.zeros(batch),
            "own": decode.state,
        },
    )
    scores = end["scores"] / numbers["scale"][end["lengths"] - 1]
    return end["tokens"], end["lengths"], scores


def candidates(scores, top_k, top_p, temperature):
    """What is sampled from: logits [R, C], and their ids [R, C], likeliest first.

    Of scores [R, V] after temperature, top k and top p, in turn; ids None: all V.
    """
    scores, ids = scores / temperature, None
    if top_k is not None or top_p is not None:
        size = scores.shape[-1]
        scores, ids = jax.lax.top_k(scores, min(top_k or size, size))
    if top_p is not None:
        p = jax.nn.softmax(scores)
        scores = jnp.where(p.cumsum(-1) - p < top_p, scores, -jnp.inf)
    return scores, ids


def _sample(scores, rules, numbers, keys):
    """A token [R] for each row of scores [R, V]."""
    top_p = numbers["top_p"] if rules.top_p else None
    scores, ids = candidates(scores, rules.top_k, top_p, numbers["temperature"])
    chosen = jax.vmap(jax.random.categorical)(keys, scores).astype("int32")
    return chosen if ids is None else jnp.take_along_axis(ids, chosen[:, None], 1)[:, 0]


FAR = -1e9  # the score of what is no candidate


def beam_search(decode, rules, numbers):
    """The best of K texts kept at each step: (tokens [B, N], lengths, scores)."""
    batch, beams, length = decode.batch, rules.beams, rules.length
    enders = {*rules.end, *(one[-1] for one in rules.stop)}
    count = max(2, 1 + len(enders)) * beams  # so that `beams` of them go on
    decode.repeat(beams)
    rows = jnp.arange(batch)[:, None]

    def body(state):
        step = state["step"]
        logits, own, same = decode.logits(state["own"], step)
        scores = jax.nn.log_softmax(logits)
        scores = decode.shape(scores, own.get("seen"), step, numbers["repetition"])
        size = scores.shape[-1]
        scores = scores.reshape(batch, beams, size) + state["scores"][:, :, None]
        scores, at = jax.lax.top_k(scores.reshape(batch, -1), count)
        beam, token = at // size, (at % size).astype("int32")
        tokens = state["tokens"][rows, beam].at[:, :, step].set(token)
        hits = decode.ended(tokens, step) | (step + 1 == length)

        # Those that go on.
        running, order = jax.lax.top_k(scores + hits * FAR, beams)
        last = token[rows, order]
        parent = (beam[rows, order] + rows * beams).reshape(-1)
        own["cache"] = jax.tree.map(
            lambda x, kept: x if kept else x[parent], own["cache"], same
        )
        own["last"] = last.reshape(-1)
        if rules.penalised:
            each = jnp.arange(batch * beams)
            own["seen"] = own["seen"][parent].at[each, own["last"]].set(True)

        # Those that ended, where they are among the best, beside those before.
        ended = hits & (jnp.arange(count) < beams)
        final = scores / numbers["scale"][step]
        if rules.early_stopping is True:
            final += state["ended"].all(-1, keepdims=True) * FAR
        final += ~state["hopeful"][:, None] * FAR
        final += ~ended * FAR
        finals, best = jax.lax.top_k(
            jnp.concatenate([state["finals"], final], 1), beams
        )

        def merged(old, new):
            return jnp.concatenate([old, new], 1)[rows, best]

        ended = merged(state["ended"], ended)
        hope = running[:, :1] / numbers["hope"][step]
        worst = jnp.where(ended, finals.min(-1, keepdims=True), FAR)
        lengths = jnp.full((batch, count), step + 1)
        return {
            "step": step + 1,
            "tokens": tokens[rows, order],
            "scores": running,
            "texts": merged(state["texts"], tokens),
            "lengths": merged(state["lengths"], lengths),
            "finals": finals,
            "ended": ended,
            "hopeful": state["hopeful"] & (hope > worst).any(-1),
            "over": hits.all(),
            "own": own,
        }

    def going(state):
        more = state["hopeful"].any() & ~state["over"]
        if rules.early_stopping is True:
            more &= ~state["ended"].all()
        return more

    # Beams of a row are alike at first: only one of them has candidates.
    alone = jnp.tile(jnp.where(jnp.arange(beams) == 0, 0.0, FAR), (batch, 1))
    tokens = jnp.full((batch, beams, length), rules.pad, "int32")
    end = jax.lax.while_loop(
        going,
        body,
        {
            "step": jnp.int32(0),
            "tokens": tokens,
            "scores": alone,
            "texts": tokens,
            "lengths": jnp.zeros((batch, beams), "int32"),
            "finals": jnp.full((batch, beams), FAR),
            "ended": jnp.zeros((batch, beams), bool),
            "hopeful": jnp.ones(batch, bool),
            "over": jnp.bool_(False),
            "own": decode.state,
        },
    )
    return end["texts"][:, 0], end["lengths"][:, 0], end["finals"][:, 0]
