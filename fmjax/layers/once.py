"""The gradient of a residual stream, added up once.

The gradient of x in x + f(x) is the sum's own and what comes through f. XLA's CPU
compiler takes such a sum for cheap and puts it into each of its uses, and so that of
the next block: from block to block all later blocks' parts are added up again, in
depth squared. `once` says where the sum is to be kept. It changes no number;
`fmjax.lowering` has the rule for a CPU, and other platforms have none.
"""

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

# The identity; `kept` is its transpose, which a platform may hold on to.
once_p, kept_p = Primitive("once"), Primitive("kept")


def once(x: jax.Array) -> jax.Array:
    """x itself, whose gradient is one array and no part of what is computed from it."""
    return once_p.bind(x)


for _p in (once_p, kept_p):
    _p.def_impl(lambda x: x)
    _p.def_abstract_eval(lambda x: x)
    batching.primitive_batchers[_p] = lambda args, dims, p=_p: (p.bind(*args), *dims)
    mlir.register_lowering(_p, lambda ctx, x: [x])
    ad.deflinear2(_p, lambda ct, x: [kept_p.bind(ct)])
