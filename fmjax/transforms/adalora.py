"""AdaLoRA (Zhang et al. 2023, arXiv:2303.10512): a rank budget shared by importance.

The transform gives linear maps an addition in the form of a singular value
decomposition; `budget` is what the optimizer does with it: an orthogonality penalty,
sensitivities, and singular values set to zero until as many are left as the schedule
says. Which maps keep how many ranks is what it learns; `ranks` tells.
"""

# D in, E out, R rank

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from fmjax import transforms

P, E, Q = "adalora_p", "adalora_e", "adalora_q"


def transform(
    net: Any,
    *,
    target: str = "(query|key|value|out|up|down)$",
    rank: int = 12,
    alpha: float | None = None,
) -> AdaLora:
    """A net whose linear maps add s ((x P) * e) Q (eq. 3), of which these are trained.

    P: [D, R] and Q: [R, E], normal with deviation 0.02; e: [R], zeros, so that the net
    begins as it was. rank: how many singular values each map begins with; s = alpha /
    R, None is R. target: a pattern over module paths, of linear maps and 1x1
    convolutions. Raises ValueError for rank < 1.
    """
    if rank < 1:
        raise ValueError(f"adalora.rank is {rank}; 1 or more")
    return AdaLora(net, target, rank, (rank if alpha is None else alpha) / rank)


@dataclasses.dataclass(frozen=True)
class AdaLora(transforms.Transformed):
    """See `transform`."""

    rank: int
    scale: float

    names: ClassVar[tuple[str, ...]] = (P, E, Q)

    def changes(self, module: nn.Module) -> bool:
        return transforms.linear(module)

    def call(self, module: nn.Module, call: Callable, x: jax.Array, **kwargs) -> Any:
        assert isinstance(module, nn.Dense | nn.Conv)
        y, normal = call(x, **kwargs), nn.initializers.normal(0.02)
        p = module.param(P, normal, (x.shape[-1], self.rank))
        e = module.param(E, nn.initializers.zeros, (self.rank,))
        q = module.param(Q, normal, (self.rank, module.features))
        x, p, e, q = transforms.promote(module, x, p, e, q)
        return y + self.scale * (((x @ p) * e) @ q)


def merge(net: AdaLora, params: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """(the net without the additions, its parameters): the same function, at no cost.

    Taken apart again it has its kernels to a rounding error, not to the bit.
    """
    flat = transforms.flatten(params)
    for path in [p for p in flat if p.endswith(f"/{E}")]:
        at = path.removesuffix(E)
        p, e, q = (jnp.asarray(flat.pop(at + name)) for name in (P, E, Q))
        flat[at + "kernel"] = flat[at + "kernel"] + net.scale * ((p * e) @ q)
    return net.net, transforms.unflatten(flat)


def ranks(params: Mapping[str, Any]) -> dict[str, int]:
    """How many singular values each map has left, by its path."""
    flat = transforms.flatten(params)
    return {
        path.removesuffix(f"/{E}"): int(np.count_nonzero(np.asarray(value)))
        for path, value in flat.items()
        if path.endswith(f"/{E}")
    }


class Budget(NamedTuple):
    """State of `budget`: sensitivities of P, e and Q by map, and what is kept."""

    step: jax.Array  # int32
    importance: Any  # eq. 9, smoothed |w dL/dw|
    uncertainty: Any  # eq. 10
    kept: dict[str, jax.Array]  # bool [R] by map: singular values that are not zero
    inner: Any


def budget(
    inner: optax.GradientTransformation,
    total: int,
    *,
    rank: float,
    start: int = 0,
    finish: int = 0,
    every: int = 1,
    penalty: float = 0.1,
    smooth: float = 0.85,
    smooth_uncertainty: float = 0.85,
) -> optax.GradientTransformation:
    """What `inner` does, with AdaLoRA's penalty before it and its pruning after it.

    rank: singular values that a map has in the end, on average; their number in all is
    the budget b, which falls from the initial one as a cubic from step `start` to step
    total - finish (eq. 12), and is kept to every `every` steps: the b singular values
    with the greatest importance (eq. 8 to 10) stay, all others are set to zero (eq. 6).
    Until then they may grow back; after step total - finish, never.
    penalty: gamma of |P'P - I|^2 + |Q Q' - I|^2 (eq. 4), whose gradient is added: the
        paper's sum over maps; the authors' code and peft have the mean of |P'P - I| and
        |Q Q' - I|, not squared, so that their weights are no measure for this one.
    Raises ValueError where the schedule does not fit into `total` steps, and at its
    `init` where no parameter is AdaLoRA's or rank is more than there is.
    """
    if start < 0 or finish < 0 or every < 1 or start + finish >= total:
        raise ValueError(
            f"adalora's budget falls from step {start} to {finish} before the last of "
            f"{total}, every {every}: that leaves it no step"
        )

    def maps(flat: Mapping[str, Any]) -> list[str]:
        return sorted(p.removesuffix(E) for p in flat if p.endswith(f"/{E}"))

    def own(flat: Mapping[str, Any]) -> dict[str, Any]:
        return {at + n: flat[at + n] for at in maps(flat) for n in (P, E, Q)}

    def init(params: Any) -> Budget:
        flat = transforms.flatten(params)
        if not maps(flat):
            raise ValueError(
                "adalora's budget: no parameter is of the transform adalora"
            )
        most = min(flat[at + E].shape[0] for at in maps(flat))
        if not 0 < rank <= most:
            raise ValueError(
                f"adalora's final rank {rank} must be above 0, {most} at most"
            )
        zeros = jax.tree.map(jnp.zeros_like, own(flat))
        copy = jax.tree.map(jnp.copy, zeros)
        kept = {at: jnp.ones(flat[at + E].shape, bool) for at in maps(flat)}
        return Budget(jnp.zeros((), jnp.int32), zeros, copy, kept, inner.init(params))

    def update(updates: Any, state: Budget, params: Any) -> tuple[Any, Budget]:
        flat, grads = transforms.flatten(params), transforms.flatten(updates)
        for at in maps(flat):
            p, q = flat[at + P], flat[at + Q]
            over_p = p.T @ p - jnp.eye(p.shape[1], dtype=p.dtype)
            over_q = q @ q.T - jnp.eye(q.shape[0], dtype=q.dtype)
            grads[at + P] = grads[at + P] + 4 * penalty * (p @ over_p)
            grads[at + Q] = grads[at + Q] + 4 * penalty * (over_q @ q)

        def smoothed(old: jax.Array, now: jax.Array, keep: float) -> jax.Array:
            return keep * old + (1 - keep) * now

        importance, uncertainty = {}, {}
        for path, w in own(flat).items():
            sensitivity = jnp.abs(w * grads[path])
            mean = smoothed(state.importance[path], sensitivity, smooth)
            gap = jnp.abs(sensitivity - mean)
            importance[path] = mean
            uncertainty[path] = smoothed(
                state.uncertainty[path], gap, smooth_uncertainty
            )
        changes, inner_state = inner.update(
            transforms.unflatten(grads), state.inner, params
        )
        step, last = state.step + 1, total - finish
        scores = {
            at: _scores(
                {n: importance[at + n] * uncertainty[at + n] for n in (P, E, Q)}
            )
            for at in maps(flat)
        }
        whole = jnp.concatenate([scores[at] for at in maps(flat)])
        begin, end = len(whole), round(rank * len(scores))
        done = jnp.clip((step - start) / (last - start), 0, 1)
        number = jnp.round(end + (begin - end) * (1 - done) ** 3).astype(jnp.int32)
        order = jnp.argsort(jnp.argsort(-whole, stable=True), stable=True)
        chosen = dict(
            zip(
                maps(flat),
                jnp.split(
                    order < number, np.cumsum([len(s) for s in scores.values()])[:-1]
                ),
                strict=True,
            )
        )
        due = ((step % every == 0) & (step > start) & (step < last)) | (step == last)
        kept, out = {}, transforms.flatten(changes)
        for at in maps(flat):
            # Between prunings all may grow; after the last one only what it kept.
            now = jnp.where(due, chosen[at], True)
            kept[at] = jnp.where(step > last, state.kept[at], now)
            out[at + E] = jnp.where(kept[at], out[at + E], -flat[at + E])
        new = Budget(step, importance, uncertainty, kept, inner_state)
        return transforms.unflatten(out), new

    return optax.GradientTransformation(init, update)


def _scores(each: Mapping[str, jax.Array]) -> jax.Array:
    """Importance of each triplet (eq. 8): its value's, and its vectors' means."""
    return each[E] + each[P].mean(0) + each[Q].mean(1)
