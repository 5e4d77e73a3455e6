"""Copies of the parameters beside them in a state: averages, and float32 masters.

Parameters in bfloat16 (`optim.params_dtype`) take half the room, and so do a
microbatch's gradient and what devices send each other of both. But a bfloat16 has 8
bits: an update 500 times smaller than its parameter is lost where the sum is rounded to
the nearest. There are two ways out. Masters (Micikevicius et al. 2018, section 3.1):
the optimizer's state holds the parameters in float32 and moves those; the run computes
with their roundings. Or stochastic rounding (Gupta et al. 2015, eq. 1): up or down by
chance, as often as makes the mean right, and there is no second copy.

Optimizers, averages and sums of gradients are in float32 either way, and so is what is
evaluated and kept as the best: the average, else the masters, else the parameters.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fmjax import trees


class Average(NamedTuple):
    """State of `average`: the moving average of the parameters."""

    params: Any


class Masters(NamedTuple):
    """Trained parameters in float32; a MaskedNode stands for a frozen one."""

    params: Any


class Narrow(NamedTuple):
    """An optax transformation whose parameters are not in float32."""

    init: Callable  # of parameters in float32
    update: Callable
    cast: Callable  # params in float32 -> those that a run begins with
    apply: Callable  # (params, updates, state, key) -> params; state: the one after


def average(decay: float) -> optax.GradientTransformation:
    """Keeps an exponential moving average of the parameters; changes no update."""

    def update(updates, state, params):
        new = optax.apply_updates(params, updates)
        mix = lambda old, p: decay * old + (1 - decay) * p  # noqa: E731
        return updates, Average(jax.tree.map(mix, state.params, new))

    copy = lambda params: Average(jax.tree.map(jnp.copy, params))  # noqa: E731
    return optax.GradientTransformation(copy, update)


def full(tree: Any) -> Any:
    """The same numbers in float32, where they are in bfloat16."""
    wide = lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x  # noqa: E731
    return jax.tree.map(wide, tree)


def _joined(masters: Masters, params: Any) -> Any:
    """Masters where there are, else the parameters in float32."""
    masked = lambda x: isinstance(x, optax.MaskedNode)  # noqa: E731
    choose = lambda m, p: p if masked(m) else m  # noqa: E731
    return jax.tree.map(choose, masters.params, full(params), is_leaf=masked)


def _masked(params: Any, trainable: Any) -> Masters:
    """Masters of the trained ones of `params`, which are in float32."""
    if trainable is None:
        return Masters(params)
    keep = lambda on, p: p if on else optax.MaskedNode()  # noqa: E731
    return Masters(jax.tree.map(keep, trainable, params))


def narrow(
    tx: optax.GradientTransformation, masters: bool, trainable: Any = None
) -> Narrow:
    """`tx` for parameters in bfloat16, with float32 masters or stochastic rounding.

    trainable: a tree of bools like the parameters, or None: all of them. tx sees
    gradients and parameters in float32.
    """
    cast = lambda params: jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)  # noqa: E731
    if not masters:
        update = lambda grads, state, params: tx.update(  # noqa: E731
            full(grads), state, full(params)
        )

        def rounded(params, updates, state, key):
            keys = trees.by_path(
                lambda path: jax.random.fold_in(key, zlib.crc32(path.encode())), params
            )
            new = optax.apply_updates(full(params), updates)
            return jax.tree.map(round_stochastically, keys, new)

        return Narrow(tx.init, update, cast, rounded)

    def init(params):
        return _masked(params, trainable), tx.init(params)

    def moved(grads, state, params):
        whole = _joined(state[0], params)
        updates, inner = tx.update(full(grads), state[1], whole)
        new = optax.apply_updates(whole, updates)
        return updates, (_masked(new, trainable), inner)

    apply = lambda params, _, state, __: cast(_joined(state[0], params))  # noqa: E731
    return Narrow(init, moved, cast, apply)


def round_stochastically(key: jax.Array, x: jax.Array) -> jax.Array:
    """x, float32, as bfloat16: one of its two neighbours, with the mean x.

    A bfloat16 is a float32 without its last 16 bits: 16 random ones are added to those,
    and what they carry over is kept.
    """
    chance = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    words = jax.lax.bitcast_convert_type(x, jnp.uint32) + chance
    cut = jax.lax.bitcast_convert_type(words & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(jnp.isfinite(x), cut, x).astype(jnp.bfloat16)


def begun(tx: Any, params: Any) -> Any:
    """The parameters, made in float32, as a run of this optimizer begins with them."""
    return tx.cast(params) if isinstance(tx, Narrow) else params


def moved(tx: Any, params: Any, updates: Any, state: Any, key: jax.Array) -> Any:
    """The parameters after an update. state: tx's after it; key: of this step."""
    if not isinstance(tx, Narrow):
        return optax.apply_updates(params, updates)
    return tx.apply(
        params, updates, state, jax.random.fold_in(key, zlib.crc32(b"rounding"))
    )


def averaged(opt_state: Any, params: Any) -> Any:
    """The averaged parameters where they are kept, else the masters, else `params`."""
    kinds = (Average, Masters)
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kinds))
    for node in nodes:
        if isinstance(node, Average):
            return node.params
    masters = [node for node in nodes if isinstance(node, Masters)]
    return _joined(masters[0], params) if masters else full(params)


def restart(opt_state: Any, params: Any) -> Any:
    """The state with its copies begun anew from `params`, in float32, of elsewhere."""
    masked = lambda x: isinstance(x, optax.MaskedNode)  # noqa: E731
    copy = lambda old, p: old if masked(old) else jnp.copy(p)  # noqa: E731

    def again(node):
        if not isinstance(node, Average | Masters):
            return node
        return type(node)(jax.tree.map(copy, node.params, params, is_leaf=masked))

    kinds = lambda node: isinstance(node, Average | Masters)  # noqa: E731
    return jax.tree.map(again, opt_state, is_leaf=kinds)
