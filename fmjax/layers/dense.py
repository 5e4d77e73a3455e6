"""Linear maps with the house's settings, made inside a module."""

from flax import linen as nn
from flax.typing import Dtype, Initializer

# BERT's (Devlin et al. 2019, the authors' code): truncated at two deviations and not
# rescaled afterwards.
truncated_normal = nn.initializers.truncated_normal(0.02)


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
