"""The kernel for TPUs, by jax's interpreter, is the plain attention."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from fmjax import flash, parallel
from fmjax.layers.attend import KERNEL, attend
from fmjax.models import gpt

ALONE = flash.Place(interpret=True)


def arrays(queries, keys, heads, groups, batch=2, width=8):
    random = np.random.default_rng(0)
    shapes = [(batch, queries, heads, width)] + [(batch, keys, groups, width)] * 2
    return [jnp.array(random.normal(size=s), "float32") for s in shapes]


def both(place, given, **options):
    """(output, gradients) of the plain code and of the kernel."""

    def found(*given):
        def loss(*given):
            out = attend(*given, implementation="flash", **options)
            return (out * jnp.cos(jnp.arange(out.size).reshape(out.shape))).sum(), out

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*given)

    plain = found(*given)
    with flash.on(place):
        text = str(jax.make_jaxpr(found)(*given))
        assert text.count("pallas_call") == 3  # forwards; queries; keys and values
        kernel = jax.jit(found)(*given)
    return plain, kernel


def equal(plain, kernel):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=3e-6),
        *(plain, kernel),
    )


def hidden(batch, keys):
    """The last keys of the first row are padding."""
    return (jnp.arange(keys) < jnp.full((batch, 1), keys).at[0].add(-9))[:, None, None]


def documents(batch, length):
    numbers = np.random.default_rng(1).integers(1, 4, (batch, length))
    return jnp.array(np.sort(numbers))


def test_packed_causal_grouped_queries():
    given, own = arrays(130, 130, 4, 2), documents(2, 130)
    options = dict(causal=True, mask=hidden(2, 130), segments=(own, own))
    equal(*both(ALONE, given, **options))


def test_a_length_that_is_filled_up_sees_nothing_of_it():
    equal(*both(ALONE, arrays(197, 197, 2, 2)))


def test_queries_of_another_length():
    equal(*both(ALONE, arrays(150, 200, 2, 1), mask=hidden(2, 200), scale=0.2))


def test_over_devices_by_rows_and_heads():
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("data", "model"))
    place = flash.Place(mesh, ("data",), interpret=True)
    own = documents(4, 128)
    given = arrays(128, 128, 4, 2, batch=4)
    equal(*both(place, given, causal=True, segments=(own, own)))


def test_a_net_gives_the_kernel_its_documents():
    given = dict(width=16, depth=1, heads=2, mlp_width=32, max_length=128)
    given |= dict(dropout=0.0, attention_dropout=0.0, embed_dropout=0.0)
    net = gpt.Model(vocab_size=50, implementation="flash", **given)
    tokens = jax.random.randint(jax.random.key(0), (2, 128), 1, 50)
    inputs = {"tokens": tokens, "segments": documents(2, 128)}
    variables = net.init(jax.random.key(1), inputs)
    apply = lambda *given: net.apply(*given)  # noqa: E731
    plain = apply(variables, inputs)
    with flash.on(ALONE):
        assert "pallas_call" in str(jax.make_jaxpr(apply)(variables, inputs))
        kernel = jax.jit(apply)(variables, inputs)
    np.testing.assert_allclose(kernel, plain, rtol=1e-4, atol=1e-5)
    one = dict(inputs, segments=jnp.ones_like(tokens))
    assert not np.allclose(plain, apply(variables, one), atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        dict(bias=jnp.zeros((1, 2, 128, 128))),
        dict(mask=jnp.tri(128, dtype=bool)[None, None]),
        dict(dropout=0.5, rng=jax.random.key(0)),
    ],
    ids=["bias", "mask of pairs", "dropout"],
)
def test_what_it_has_not_is_the_plain_codes(options):
    given = arrays(128, 128, 2, 2)
    with flash.on(ALONE):
        found = attend(*given, implementation="flash", **options)
    np.testing.assert_array_equal(found, attend(*given, **options))


@pytest.mark.parametrize(
    ("batch", "heads", "groups", "keys"),
    [(3, 4, 2, 128), (4, 3, 3, 128), (4, 2, 1, 128), (4, 4, 2, 127)],
)
def test_what_does_not_divide_or_is_short_is_the_plain_codes(
    batch, heads, groups, keys
):
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("data", "model"))
    place = flash.Place(mesh, ("data",), interpret=True)
    given = arrays(128, keys, heads, groups, batch)
    with flash.on(place):
        found = attend(*given, implementation="flash")
    np.testing.assert_array_equal(found, attend(*given))
    assert flash.serves(place, *arrays(128, 128, 4, 2, batch=4)[:2], None, None)


def plan(platform="tpu", how="jit", shards=0, **shape):
    devices = np.array([SimpleNamespace(platform=platform)])
    mesh = SimpleNamespace(devices=devices, shape={"data": 2} | shape)
    return SimpleNamespace(mesh=mesh, how=how, shards=shards, cut=("data",))


def test_it_serves_where_a_step_is_for_tpus():
    def seen():
        return KERNEL.get() and KERNEL.get().keywords["place"]

    assert seen() is None
    where = plan()
    assert flash.placed(seen, where)() == flash.Place(where.mesh, ("data",))
    assert flash.placed(seen, plan(how="pmap"))() == flash.Place()
    for other in (plan("cpu"), plan(shards=8), plan(sequence=2)):
        assert flash.placed(seen, other) is seen
    assert seen() is None


def test_devices_that_are_nowhere_have_no_kernel():
    assert flash.placed(print, parallel.plan(8)) is print
