"""The vocabulary in chunks of tokens: the same sums and gradients, fewer logits."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.costs import memory
from fmjax.models import bert, gpt, t5, transformer
from fmjax.objectives import bert_pretrain, chunked, next_token
from fmjax.step import pure

# B rows, T tokens, V vocabulary
B, T, V = 2, 7, 33
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(1, V, (B, T))
DECODED = {"tokens": TOKENS, "decoder_tokens": TOKENS[:, ::-1]}
SMALL = dict(vocab_size=V, width=8, depth=1, heads=2, mlp_width=16, dropout=0.1)
NETS = {
    "gpt": (gpt.Model(**SMALL, max_length=8), {"tokens": TOKENS}),
    "t5, head of its own": (t5.Model(**SMALL, head_width=4, tied=False), DECODED),
    "transformer": (transformer.Model(**SMALL, output_bias=True), DECODED),
    "bert, pretrain": (bert.Model(**SMALL, head="pretrain"), {"tokens": TOKENS}),
}
FIELDS = {"label_smoothing": 0.1, "z_loss": 1e-2}


def sums(net, inputs, params, key, chunk):
    """Each term's sum and its gradient, and the metrics."""
    batch = {"inputs": inputs, "targets": jnp.asarray(TOKENS[::-1])}
    batch |= {"weights": jnp.asarray(TOKENS > 9, "float32"), "mask": jnp.ones(B)}
    batch |= {"next": jnp.array([0, 1])}
    masked = isinstance(net, bert.Model)
    objective = bert_pretrain.objective if masked else next_token.objective
    fields = {} if masked else FIELDS

    def loss(params):
        losses, metrics, _ = objective(
            pure(net), params, {}, batch, key, chunk=chunk, **fields
        )
        return sum(total for total, _ in losses.values()), (losses, metrics)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


@pytest.mark.parametrize("name", NETS)
def test_sums_and_gradients_are_those_of_all_at_once(name):
    net, inputs = NETS[name]
    params = net.init(jax.random.key(0), inputs)["params"]
    key = jax.random.key(1)
    # 3 does not divide the 7 tokens.
    whole, parts = (sums(net, inputs, params, key, chunk) for chunk in (None, 3))
    assert jax.tree.structure(whole) == jax.tree.structure(parts)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        size = max(float(jnp.abs(a).max()), 1.0)
        np.testing.assert_allclose(b, a, atol=1e-6 * size)


def test_a_rows_surprise_too():
    net, inputs = NETS["gpt"]
    params = net.init(jax.random.key(0), inputs)["params"]
    batch = {"inputs": inputs, "targets": jnp.asarray(TOKENS)}
    batch |= {"weights": jnp.ones((B, T)), "mask": jnp.ones(B)}
    whole, parts = (
        next_token.predict(pure(net), params, {}, batch, chunk=chunk)
        for chunk in (None, 2)
    )
    np.testing.assert_allclose(parts["nll"], whole["nll"], rtol=1e-6)


def test_the_logits_of_a_batch_are_never_there():
    table = jnp.ones((50, 4))
    hidden, targets = jnp.ones((3, 64, 4)), jnp.zeros((3, 64), int)

    def loss(hidden, table, chunk):
        read = lambda x: jnp.einsum("btd,vd->btv", x, table)  # noqa: E731
        score = lambda logits, y: jax.nn.logsumexp(logits, -1) - y  # noqa: E731
        return chunked(score, read, hidden, targets, chunk).sum()

    gradient = jax.grad(loss, (0, 1))

    def most(chunk):
        computed = lambda *a: gradient(*a, chunk)  # noqa: E731
        found = memory.values(computed, (hidden, table), 1, "cpu")
        return found[0]["shape"]

    assert math.prod(most(64)) == 3 * 64 * 50
    assert math.prod(most(8)) == 3 * 8 * 50


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(ValueError, match="chunk=0: 1 or more tokens"):
        chunked(None, None, jnp.ones((1, 2, 3)), jnp.ones((1, 2), int), 0)
