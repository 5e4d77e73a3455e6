"""Batch normalisation whose statistics are those of the whole batch, wherever it lies.

Running statistics are in the collection 'batch_stats'. A module names no device axis:
under `jit` over a mesh the mean over rows is the mean over all devices' rows already,
and under `pmap` the step says by `over` which axis the batch is cut along.
"""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer


def moments(x: jax.Array, axis: str | None = None) -> tuple[jax.Array, jax.Array, int]:
    """(mean, variance, count) of each channel of x, [..., C], over all other axes.

    axis: a mapped device axis that the rows are cut along too. float32 at least; the
    variance is that of the batch, divided by the count. Two passes, because
    E[x^2] - E[x]^2 loses digits where the mean is large against the deviation.
    """
    everywhere = (lambda a: jax.lax.pmean(a, axis)) if axis else (lambda a: a)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    reduced = tuple(range(x.ndim - 1))
    mean = everywhere(x.mean(reduced))
    variance = everywhere(jnp.square(x - mean).mean(reduced))
    count = x.size // x.shape[-1] * (jax.lax.axis_size(axis) if axis else 1)
    return mean, variance, count


class BatchNorm(nn.Module):
    """Batch normalisation over the last axis (Ioffe & Szegedy 2015, algorithms 1, 2).

    x: [..., C], floating; the same shape comes back, in `dtype`. In training x is
    normalised by its own mean and variance, and the running ones move towards them by
    1 - momentum, the variance unbiased (algorithm 2, step 10; as in torch). Otherwise,
    and always where `frozen`, the running ones serve and stay. All of them are float32
    at least.

    Raises ValueError, when traced in training, where a channel has one value only, and
    where gradient accumulation cuts the batch: statistics of a part are another model.
    """

    eps: float = 1e-5
    momentum: float = 0.9
    frozen: bool = False
    use_bias: bool = True
    dtype: Dtype = "float32"
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool, axis: str | None = None, parts: int = 1
    ) -> jax.Array:
        shape = x.shape[-1:]
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias: jax.Array | float = 0.0
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        if train and not self.frozen and not self.is_initializing():
            mean, var, count = moments(x, axis)
            self._check(count, parts)
            move = lambda old, new: self.momentum * old + (1 - self.momentum) * new  # noqa: E731
            running_mean.value = move(running_mean.value, mean)
            running_var.value = move(running_var.value, var * (count / (count - 1)))
        else:
            mean, var = running_mean.value, running_var.value
        centred = x.astype(mean.dtype) - mean
        return (centred * (jax.lax.rsqrt(var + self.eps) * scale) + bias).astype(
            self.dtype
        )

    def _check(self, count: int, parts: int) -> None:
        where = "/".join(self.path)
        if parts > 1:
            raise ValueError(
                f"accum={parts} would normalise each microbatch by batch statistics of "
                f"its own ({where}), which is another model: set accum=1, or keep the "
                "running statistics as they are (model.frozen_norm=True)"
            )
        if count < 2:
            raise ValueError(
                f"{where} has one value a channel to take batch statistics of: use a "
                "larger batch or larger images, or model.frozen_norm=True"
            )


@contextlib.contextmanager
def over(axis: str | None, parts: int = 1) -> Iterator[None]:
    """Within, and in what it decorates, batches are cut along a mapped device axis.

    parts: microbatches that the batch is cut in besides. Raises ValueError where
    linen's own BatchNorm meets a batch that is cut, of which it would not know.
    """

    def tell(call, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__":
            if isinstance(module, BatchNorm):
                kwargs = kwargs | {"axis": axis, "parts": parts}
            elif isinstance(module, nn.BatchNorm) and (axis or parts > 1):
                raise ValueError(
                    f"{'/'.join(module.path)} is linen's BatchNorm, whose statistics "
                    "would be those of a part of the batch; use fmjax's"
                )
        return call(*args, **kwargs)

    with nn.intercept_methods(tell):
        yield
