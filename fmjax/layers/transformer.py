"""The parts of a transformer as linen modules: MLP, block, and a stack of blocks.

Parameters are float32 always; `dtype` is what is computed in. Dropout is on where a
call is given a key, so that a block is a function of its parameters and arguments.
"""

# B batch, T tokens, S tokens attended to, D width, M MLP width

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer

from fmjax.layers.activation import activation
from fmjax.layers.attention import Attention, Cache
from fmjax.layers.dense import dense, truncated_normal
from fmjax.layers.dropout import drop
from fmjax.layers.norm import norm
from fmjax.layers.once import once

ORDERS = ("pre", "post", "parallel")
REMAT = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class MLP(nn.Module):
    """Up, activation, down (Vaswani et al. 2017, section 3.3): [..., D] to [..., D].

    gated: the activation of a second map, 'gate', multiplies 'up' (Shazeer 2020).
    dropout: between activation and down, where a key is given.
    """

    mlp_width: int
    activation: str = "gelu"
    gated: bool = False
    use_bias: bool = True
    dropout: float = 0.0
    kernel_init: Initializer = truncated_normal
    out_init: Initializer | None = None
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, rng: jax.Array | None = None) -> jax.Array:
        def project(y: jax.Array, width: int, name: str, init: Initializer):
            return dense(
                width, self.dtype, name, use_bias=self.use_bias, kernel_init=init
            )(y)

        act = activation(self.activation)
        if self.gated:
            gate = project(x, self.mlp_width, "gate", self.kernel_init)
            hidden = act(gate) * project(x, self.mlp_width, "up", self.kernel_init)
        else:
            hidden = act(project(x, self.mlp_width, "up", self.kernel_init))
        if rng is not None and self.dropout:
            hidden = drop(hidden, self.dropout, rng)
        return project(hidden, x.shape[-1], "down", self.out_init or self.kernel_init)


class Block(nn.Module):
    """Attention, attention to a source where `cross`, and MLP, each with a residual.

    order: 'post' normalises the sum (Vaswani et al. 2017, section 3.1; BERT), 'pre'
    what goes into each part (GPT-2, T5), 'parallel' adds attention and MLP of one
    normalised input (Dehghani et al. 2023, section 2). norm: 'layer' or 'rms'.
    out_init: of the maps that end a residual branch; mlp_init: of the MLP's others, if
    unlike the attention's. mlp_bias None: as use_bias, which is otherwise the
    attention's. Other fields: as in `Attention` and `MLP`.
    """

    heads: int
    mlp_width: int
    order: str = "post"
    norm: str = "layer"
    cross: bool = False
    head_width: int | None = None
    kv_heads: int | None = None
    activation: str = "gelu"
    gated: bool = False
    use_bias: bool = True
    mlp_bias: bool | None = None
    qk_norm: str | None = None
    scale: float | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0
    mlp_dropout: float = 0.0
    implementation: str | None = None
    eps: float = 1e-12
    kernel_init: Initializer = truncated_normal
    query_init: Initializer | None = None
    mlp_init: Initializer | None = None
    out_init: Initializer | None = None
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
        segments: jax.Array | None = None,
        causal: bool = False,
        source: jax.Array | Cache | None = None,
        source_mask: jax.Array | None = None,
        cache: Cache | None = None,
        index: jax.Array | int = 0,
        rng: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, Cache]]:
        """x: [B, T, D] to ([B, T, D], what was attended to).

        The latter is 'own', keys and values of the self-attention, and 'source', those
        of the cross-attention where there is one.

        mask, bias, segments, causal, cache, index: of the self-attention, as in
        `Attention`.
        source, source_mask: of the cross-attention. rng: a key where dropout is on.
        """
        if self.order not in ORDERS:
            known = ", ".join(ORDERS)
            raise ValueError(f"unknown order {self.order!r} (known: {known})")
        if self.order == "parallel" and self.cross:
            raise ValueError("order 'parallel' has no cross-attention: use 'pre'")
        keys: Any = [None] * 6 if rng is None else jax.random.split(rng, 6)

        def around(x: jax.Array, name: str, part: Any, key: jax.Array | None):
            normalise = norm(self.norm, self.eps, self.dtype, f"{name}_norm")
            y = part(normalise(x) if self.order == "pre" else x)
            if key is not None and self.dropout:
                y = drop(y, self.dropout, key)
            return once(x + y) if self.order == "pre" else normalise(once(x + y))

        kept: dict[str, Cache] = {}

        def own(y: jax.Array) -> jax.Array:
            out, kept["own"] = self._attention("attention")(
                y,
                mask=mask,
                bias=bias,
                segments=segments,
                causal=causal,
                cache=cache,
                index=index,
                rng=keys[0],
            )
            return out

        def crossed(y: jax.Array) -> jax.Array:
            attention = self._attention("cross_attention")
            out, kept["source"] = attention(y, source, mask=source_mask, rng=keys[2])
            return out

        def mlp(y: jax.Array) -> jax.Array:
            return MLP(
                self.mlp_width,
                self.activation,
                gated=self.gated,
                use_bias=self.use_bias if self.mlp_bias is None else self.mlp_bias,
                dropout=self.mlp_dropout,
                kernel_init=self.mlp_init or self.kernel_init,
                out_init=self.out_init,
                dtype=self.dtype,
                name="mlp",
            )(y, rng=keys[4])

        if self.order == "parallel":
            y = norm(self.norm, self.eps, self.dtype, "norm")(x)
            y = own(y) + mlp(y)
            drops = keys[1] is not None and self.dropout
            return once(x + (drop(y, self.dropout, keys[1]) if drops else y)), kept
        x = around(x, "attention", own, keys[1])
        if self.cross:
            x = around(x, "cross_attention", crossed, keys[3])
        return around(x, "mlp", mlp, keys[5]), kept

    def _attention(self, name: str) -> Attention:
        return Attention(
            self.heads,
            head_width=self.head_width,
            kv_heads=self.kv_heads,
            use_bias=self.use_bias,
            scale=self.scale,
            dropout=self.attention_dropout,
            implementation=self.implementation,
            kernel_init=self.kernel_init,
            query_init=self.query_init,
            out_init=self.out_init,
            qk_norm=self.qk_norm,
            eps=self.eps,
            dtype=self.dtype,
            name=name,
        )


def stack(
    blocks: Sequence[Block],
    x: jax.Array,
    *,
    rng: jax.Array | None = None,
    scan: bool = False,
    remat: str | None = None,
    **given: Any,
) -> jax.Array:
    """x [B, T, D] through bound blocks of equal fields, one after the other.

    scan: one compiled body for all of them (`jax.lax.scan`), which compiles in constant
        time. Parameters stay one tree a block; they are put side by side on the way in.
    remat: None keeps every intermediate for the backward pass; 'dots' only the results
        of matrix products with parameters, 'full' only each block's input, and computes
        the rest again (Chen et al. 2016).
    rng: a key where dropout is on; block i has fold_in(rng, i) in every case, so that
        neither option changes the numbers. given: arguments of every block.
    Raises ValueError for another `remat`, and where blocks to be scanned differ.
    """
    if remat is not None and remat not in REMAT:
        raise ValueError(f"unknown remat {remat!r} (known: None, {', '.join(REMAT)})")
    depth = range(len(blocks))
    keys: list[Any] = [
        None if rng is None else jax.random.fold_in(rng, i) for i in depth
    ]
    if blocks[0].is_initializing() or not (scan or remat):
        for block, key in zip(blocks, keys, strict=True):
            x, _ = block(x, rng=key, **given)
        return x

    pure = blocks[0].clone(parent=None, name=None)
    # What is static for the trace stays out of the checkpointed function's arguments.
    arrays = {k: v for k, v in given.items() if not isinstance(v, bool | None)}
    static = {k: v for k, v in given.items() if k not in arrays}

    def one(x: jax.Array, params: Any, key: Any, arrays: Any) -> jax.Array:
        return pure.apply({"params": params}, x, rng=key, **arrays, **static)[0]

    if remat:
        one = jax.checkpoint(one, policy=REMAT[remat], prevent_cse=not scan)
    params = [block.variables["params"] for block in blocks]
    if scan:
        _alike(blocks, params)
    if not scan:
        for own, key in zip(params, keys, strict=True):
            x = one(x, own, key, arrays)
        return x
    side_by_side = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    every = None if rng is None else jnp.stack(keys)

    def body(x: jax.Array, layer: Any) -> tuple[jax.Array, None]:
        return one(x, layer[0], layer[1], arrays), None

    return jax.lax.scan(body, x, (side_by_side, every))[0]


def _alike(blocks: Sequence[Block], params: Sequence[Any]) -> None:
    first = jax.tree.map(jnp.shape, params[0])
    for block, own in zip(blocks, params, strict=True):
        if jax.tree.map(jnp.shape, own) != first:
            raise ValueError(
                f"{blocks[0].name} and {block.name} have unlike parameters (a "
                "transform changed some blocks alone): set model.scan=False"
            )
