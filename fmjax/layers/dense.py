"""Linear maps and norms with the house's settings, made inside a module."""

from flax import linen as nn
from flax.typing import Dtype, Initializer

# BERT's (Devlin et al. 2019, the authors' code): truncated at two deviations and not
# rescaled afterwards.
truncated_normal = nn.initializers.truncated_normal(0.02)

NORMS = ("layer", "rms")


def dense(
    features: int,
    dtype: Dtype,
    name: str | None = None,
    *,
    use_bias: bool = True,
    kernel_init: Initializer = truncated_normal,
) -> nn.Dense:
    """A linear layer, [..., D] to [..., features], with BERT's initialiser."""
    return nn.Dense(
        features, use_bias=use_bias, dtype=dtype, kernel_init=kernel_init, name=name
    )


def layer_norm(eps: float, dtype: Dtype, name: str | None = None) -> nn.LayerNorm:
    """Layer normalisation (Ba et al. 2016) with its statistics in float32."""
    # E[x^2] - E[x]^2 loses digits where the mean is large against the deviation.
    return nn.LayerNorm(epsilon=eps, dtype=dtype, use_fast_variance=False, name=name)


def norm(
    kind: str, eps: float, dtype: Dtype, name: str | None = None
) -> nn.LayerNorm | nn.RMSNorm:
    """'layer' as above, or 'rms' (Zhang & Sennrich 2019): no mean, no bias.

    Raises ValueError for another kind.
    """
    if kind == "layer":
        return layer_norm(eps, dtype, name)
    if kind == "rms":
        return nn.RMSNorm(epsilon=eps, dtype=dtype, name=name)
    raise ValueError(f"unknown norm {kind!r} (known: {', '.join(NORMS)})")
