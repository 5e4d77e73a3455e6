"""Checks of what a model is given, made when it is traced: no cost in the step."""

import jax
import jax.numpy as jnp


def tokens(
    ids: jax.Array,
    max_length: int,
    *,
    name: str = "tokens",
    ranks: tuple[int, ...] = (2,),
    **beside: jax.Array | None,
) -> None:
    """Raises ValueError where token ids are not what a model takes.

    ids: int [B, T] (or [B, N, T] where ranks has 3), 1 <= T <= max_length. beside: by
    name, arrays of the same shape, or None; the one called `mask`, or that ends in
    `_mask`, is bool.
    """
    if ids.ndim not in ranks:
        wanted = " or ".join({2: "[B, T]", 3: "[B, N, T]"}[rank] for rank in ranks)
        raise ValueError(f"{name} must be {wanted}, got shape {ids.shape}")
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"{name} must be integers, got {ids.dtype}")
    if not 1 <= ids.shape[-1] <= max_length:
        raise ValueError(
            f"{name} are {ids.shape[-1]} long, but the model has positions for 1 to "
            f"{max_length}; truncate them or raise max_length"
        )
    for other, array in beside.items():
        if array is None:
            continue
        if array.shape != ids.shape:
            raise ValueError(
                f"{other} has shape {array.shape}, {name} have {ids.shape}"
            )
        if other.endswith("mask") and array.dtype != jnp.bool_:
            raise ValueError(
                f"{other} must be bool, True for a real token; got {array.dtype}"
            )
