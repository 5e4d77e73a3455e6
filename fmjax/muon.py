"""Muon (Jordan et al. 2024): momentum whose singular values are brought near to 1."""

from typing import Any

import jax
import optax


def matrices(params: Any) -> Any:
    """Which parameters are matrices, and how, as optax's MuonDimensionNumbers.

    All of two axes, embeddings among them, and kernels of convolutions, [..., in, out],
    as one of prod(..., in) rows, which is how Jordan et al. flatten them. None for the
    rest.
    """

    def numbers(path: tuple, leaf: jax.Array) -> Any:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        if leaf.ndim == 2 or (leaf.ndim > 2 and name == "kernel"):
            rows = tuple(range(leaf.ndim - 1))
            return optax.contrib.MuonDimensionNumbers(rows, leaf.ndim - 1)
        return None

    return jax.tree_util.tree_map_with_path(numbers, params)


def make(
    rate: optax.Schedule,
    weight_decay: float,
    decayed: Any,
    b1: float,
    b2: float,
    rms: float | None,
) -> optax.GradientTransformation:
    """optax's Muon for `matrices`; the rest moves by Adam with b1 and b2, undecayed.

    rms: the root mean square of an update of a matrix is rms * rate, whatever its
    shape (Liu et al. 2025, section 2.2, who take Adam's own, 0.2), so that one rate
    serves matrices and the rest. None scales by sqrt(max(1, out / in)).
    """
    return optax.contrib.muon(
        rate,
        weight_decay=weight_decay,
        weight_decay_mask=decayed,
        adam_b1=b1,
        adam_b2=b2,
        muon_weight_dimension_numbers=matrices,
        consistent_rms=rms,
    )
