"""Attention that never holds its weights: jax's splash attention, a kernel for TPUs.

The plain code of `attend` keeps [B, H, T, S] scores in HBM, which for long sequences
are most of a step's memory traffic and, without remat, of its memory. The kernel
(FlashAttention, Dao et al. 2022, as jax.experimental.pallas.ops.tpu.splash_attention
has it) computes them a block at a time. A compiler can't cut it over devices, so it is
called by each device on its own rows and heads, for which the mesh has to be known:
`placed` tells it to what is traced.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from fmjax.layers import attend

LANES = 128  # a length is filled up to a multiple of it
BLOCKS = (512, 256, 128)  # queries and keys of a block: the first that divides


class Place(NamedTuple):
    """Devices that attention is computed on."""

    mesh: Any = None  # None: one device, or each its own call
    rows: tuple[str, ...] = ()  # the mesh axes over which a batch is cut
    interpret: bool = False  # by jax's interpreter of kernels: on a CPU, slow


@contextlib.contextmanager
def on(place: Place) -> Iterator[None]:
    """What is traced inside has the kernel, where it serves."""
    token = attend.KERNEL.set(functools.partial(flash, place=place))
    try:
        yield
    finally:
        attend.KERNEL.reset(token)


def placed(apply: Callable, plan: Any) -> Callable:
    """`apply`, traced where the kernel may serve: on the TPUs of a plan (`Plan`).

    Itself for devices that are others or nowhere, in the deterministic mode, which cuts
    a batch in its own way, and where an axis 'sequence' cuts what a query has to see.
    """
    nowhere = isinstance(plan.mesh, AbstractMesh) or plan.shards
    if nowhere or plan.mesh.devices.flat[0].platform != "tpu":
        return apply
    if plan.mesh.shape.get("sequence", 1) > 1:
        return apply
    place = Place() if plan.how == "pmap" else Place(plan.mesh, plan.cut)

    @functools.wraps(apply)
    def there(*args: Any, **kwargs: Any) -> Any:
        with on(place):
            return apply(*args, **kwargs)

    return there


def serves(
    place: Place,
    query: jax.Array,
    key: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
) -> bool:
    """Whether the kernel can compute `attend` of such arrays there, and is worth it.

    It has no bias, and of masks those that hide a key from all queries, [B, 1, 1, S].
    Rows and heads must divide over the mesh; one query, or few, are the plain code's.
    """
    if bias is not None or min(query.shape[1], key.shape[1]) < LANES:
        return False
    if mask is not None and (mask.ndim != 4 or mask.shape[1:3] != (1, 1)):
        return False
    if place.mesh is None:
        return True
    model = place.mesh.shape.get("model", 1)
    rows = math.prod(place.mesh.shape[name] for name in place.rows)
    heads = (query.shape[2], key.shape[2])
    return query.shape[0] % rows == 0 and all(n % model == 0 for n in heads)


def flash(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    place: Place,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    segments: tuple[jax.Array, jax.Array] | None = None,
    causal: bool = False,
    scale: float,
) -> jax.Array | None:
    """`attend` by the kernel, where it `serves`: [B, T, H, K] in value's dtype."""
    if not serves(place, query, key, mask, bias):
        return None
    batch, queries = query.shape[:2]
    keys = key.shape[1]
    ids = _ids(batch, queries, keys, mask, segments)
    long, wide = (-(-n // LANES) * LANES for n in (queries, keys))
    if ids is None and wide > keys and not causal:  # what fills up is to be unseen
        ids = _ids(batch, queries, keys, jnp.ones((batch, 1, 1, keys), bool), None)
    if ids is not None:
        ids = (_filled(ids[0], long, 0), _filled(ids[1], wide, -1))
    heads = [
        _filled(x, n, 0).swapaxes(1, 2)
        for x, n in ((query * scale, long), (key, wide), (value, wide))
    ]
    call: Callable = functools.partial(
        _kernel, causal=causal, interpret=place.interpret
    )
    if place.mesh is not None:
        model = "model" if "model" in place.mesh.shape else None
        cut, rows = P(place.rows or None, model), P(place.rows or None)
        call = jax.shard_map(
            call,
            mesh=place.mesh,
            in_specs=(cut, cut, cut, None if ids is None else (rows, rows)),
            out_specs=cut,
            check_vma=False,
        )
    return call(*heads, ids).swapaxes(1, 2)[:, :queries].astype(value.dtype)


def _kernel(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    ids: tuple[jax.Array, jax.Array] | None,
    *,
    causal: bool,
    interpret: bool,
) -> jax.Array:
    """One device's rows and heads: [B, H, T, K], [B, G, S, K] twice, [B, T], [B, S]."""
    # Not at the top: half a second, and no other device needs it.
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as splash,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_mask as masks,
    )

    shape = (query.shape[2], key.shape[2])
    rows, columns = (next(b for b in BLOCKS if n % b == 0) for n in shape)
    sizes = splash.BlockSizes(
        block_q=rows,
        block_kv=columns,
        block_q_dkv=rows,
        block_kv_dkv=columns,
        block_q_dq=rows,
        block_kv_dq=columns,
    )
    kind = masks.CausalMask if causal else masks.FullMask
    call = splash.make_splash_mha_single_device(
        masks.MultiHeadMask([kind(shape)] * query.shape[1]),
        block_sizes=sizes,
        interpret=interpret,
    )
    if ids is None:
        return jax.vmap(call)(query, key, value)
    return jax.vmap(call)(query, key, value, splash.SegmentIds(*ids))


def _ids(
    batch: int,
    queries: int,
    keys: int,
    mask: jax.Array | None,
    segments: tuple[jax.Array, jax.Array] | None,
) -> tuple[jax.Array, jax.Array] | None:
    """Numbers of queries [B, T] and keys [B, S]: the same number sees; -1: unseen."""
    if mask is None and segments is None:
        return None
    if segments is None:
        segments = jnp.ones((batch, queries), int), jnp.ones((batch, keys), int)
    of_queries, of_keys = (x.astype("int32") for x in segments)
    if mask is not None:
        of_keys = jnp.where(mask[:, 0, 0], of_keys, -1)
    return (
        jnp.broadcast_to(of_queries, (batch, queries)),
        jnp.broadcast_to(of_keys, (batch, keys)),
    )


def _filled(x: jax.Array, length: int, value: int) -> jax.Array:
    """x [B, T, ...] up to that T."""
    sides = [(0, 0), (0, length - x.shape[1]), *[(0, 0)] * (x.ndim - 2)]
    return jnp.pad(x, sides, constant_values=value)
