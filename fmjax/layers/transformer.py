"""The parts of a transformer as linen modules: attention, MLP, block.

Parameters are float32 always; `dtype` is what is computed in.
"""

# B batch, T tokens, S tokens attended to, D width, H heads, K head width, M MLP width

import jax
from flax import linen as nn
from flax.typing import Dtype

from fmjax.layers.activation import activation
from fmjax.layers.attend import attend
from fmjax.layers.dropout import Dropout

# BERT's (Devlin et al. 2019, the authors' code): truncated at two deviations and not
# rescaled afterwards.
truncated_normal = nn.initializers.truncated_normal(0.02)


def dense(features: int, dtype: Dtype, name: str, *, use_bias: bool = True) -> nn.Dense:
    """A linear layer with BERT's initialiser, to be made inside a module."""
    return nn.Dense(
        features,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=truncated_normal,
        name=name,
    )


def layer_norm(eps: float, dtype: Dtype, name: str | None = None) -> nn.LayerNorm:
    """Layer normalisation (Ba et al. 2016) with its statistics in float32."""
    # E[x^2] - E[x]^2 loses digits where the mean is large against the deviation.
    return nn.LayerNorm(epsilon=eps, dtype=dtype, use_fast_variance=False, name=name)


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2).

    Kernels are plain matrices, [D, H * K] for query, key and value, [H * K, D] for out.
    head_width None is D / heads; kv_heads None is heads (fewer: grouped queries).
    """

    heads: int
    head_width: int | None = None
    kv_heads: int | None = None
    use_bias: bool = True
    scale: float | None = None
    dropout: float = 0.0
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        source: jax.Array | None = None,
        *,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
        causal: bool = False,
        train: bool = False,
    ) -> jax.Array:
        """x: [B, T, D]; source: [B, S, D] or None for x itself. Returns [B, T, D].

        mask, bias, causal: as in `attend`. Raises ValueError where D does not divide by
        heads and no head_width is given.
        """
        width = x.shape[-1]
        if self.head_width is None and width % self.heads:
            raise ValueError(
                f"width {width} does not divide by {self.heads} heads; heads that fit: "
                f"{_divisors(width)}"
            )
        head_width = self.head_width or width // self.heads
        kv_heads = self.kv_heads or self.heads
        source = x if source is None else source

        def project(y: jax.Array, heads: int, name: str) -> jax.Array:
            y = dense(heads * head_width, self.dtype, name, use_bias=self.use_bias)(y)
            return y.reshape(*y.shape[:2], heads, head_width)

        out = attend(
            project(x, self.heads, "query"),
            project(source, kv_heads, "key"),
            project(source, kv_heads, "value"),
            mask=mask,
            bias=bias,
            causal=causal,
            scale=self.scale,
            dropout=self.dropout,
            rng=self.make_rng("dropout") if train and self.dropout else None,
        )
        out = out.reshape(*out.shape[:2], -1)
        return dense(width, self.dtype, "out", use_bias=self.use_bias)(out)


class MLP(nn.Module):
    """Up, activation, down (Vaswani et al. 2017, section 3.3): [..., D] to [..., D]."""

    mlp_width: int
    activation: str = "gelu"
    use_bias: bool = True
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        up = dense(self.mlp_width, self.dtype, "up", use_bias=self.use_bias)
        down = dense(x.shape[-1], self.dtype, "down", use_bias=self.use_bias)
        return down(activation(self.activation)(up(x)))


class PostNormBlock(nn.Module):
    """Attention and MLP, each with a residual and the norm after it: [B, T, D] to same.

    The order of the original Transformer and of BERT (Devlin et al. 2019, section 3).
    """

    heads: int
    mlp_width: int
    activation: str = "gelu"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    eps: float = 1e-12
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(
        self, x: jax.Array, *, mask: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        attention = Attention(
            self.heads,
            dropout=self.attention_dropout,
            dtype=self.dtype,
            name="attention",
        )
        mlp = MLP(self.mlp_width, self.activation, dtype=self.dtype, name="mlp")
        attention_norm = layer_norm(self.eps, self.dtype, "attention_norm")
        mlp_norm = layer_norm(self.eps, self.dtype, "mlp_norm")
        drop = Dropout(self.dropout)

        x = attention_norm(x + drop(attention(x, mask=mask, train=train), train=train))
        return mlp_norm(x + drop(mlp(x), train=train))


def _divisors(n: int) -> str:
    return ", ".join(str(i) for i in range(1, n + 1) if n % i == 0 and i <= 128)
