"""GPT, T5 and the Transformer: sizes, and relations which hold for each of them.

Equality with the references is in tests/interop.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.layers import attention
from fmjax.layers.attend import attend
from fmjax.models import bert, gpt, t5, transformer

SMALL = dict(vocab_size=23, width=12, depth=2, heads=3, mlp_width=20, max_length=16)
NETS = {
    "gpt": gpt.Model(**SMALL),
    "gpt-untied": gpt.Model(**SMALL, tied=False),
    "t5": t5.Model(**SMALL, head_width=5, buckets=8, max_distance=12),
    "t5-1.1": t5.Model(
        **SMALL, head_width=5, gated=True, tied=False, decoder_depth=3, buckets=6
    ),
    "transformer": transformer.Model(**SMALL, output_bias=True, decoder_depth=1),
    "transformer-halves": transformer.Model(
        **SMALL, layout="halves", scale_embedding=False, decoder_heads=2
    ),
}

EVERY = NETS | {"bert": bert.Model(**SMALL, head="mlm")}

# By hand from the papers' tables, and equal to the released files where there are any
# (GPT-2 small 124M ... XL 1.5B; T5 60M, 220M, 770M, 3B, 11B; table 3: 65M and 213M).
COUNTS = {
    gpt: {
        "gpt2": 124_439_808,
        "gpt2-medium": 354_823_168,
        "gpt2-large": 774_030_080,
        "gpt2-xl": 1_557_611_200,
        "gpt3-small": 125_226_240,
        "gpt3-medium": 355_871_744,
        "gpt3-large": 760_300_032,
        "gpt3-xl": 1_315_723_264,
        "gpt3-2.7b": 2_651_553_280,
        "gpt3-6.7b": 6_658_404_352,
        "gpt3-13b": 12_853_386_240,
        "gpt3-175b": 174_604_259_328,
    },
    t5: {
        "small": 60_506_624,
        "base": 222_903_552,
        "large": 737_668_096,
        "3b": 2_851_598_336,
        "11b": 11_307_321_344,
        "1.1-small": 76_961_152,
        "1.1-base": 247_577_856,
        "1.1-large": 783_150_080,
        "1.1-xl": 2_849_757_184,
        "1.1-xxl": 11_135_332_352,
    },
    transformer: {"base": 63_082_496, "big": 214_245_376},
}


def given(net, batch=2, length=6):
    random = np.random.default_rng(0)
    inputs = {"tokens": random.integers(0, 23, (batch, length), np.int32)}
    if isinstance(net, bert.Model):
        inputs["types"] = random.integers(0, 2, (batch, length), np.int32)
    if not isinstance(net, gpt.Model):
        inputs["mask"] = np.arange(length)[None] < np.array([[length], [length - 2]])
        inputs["decoder_tokens"] = random.integers(0, 23, (batch, 5), np.int32)
    return inputs


@functools.cache
def started(net):
    variables = jax.jit(net.init)(jax.random.key(0), given(net))
    # Away from the initialisers, where attention is nearly uniform; an embedding that
    # is also the output map would make logits of hundreds.
    return jax.tree.map(lambda x: x * 1.7 if x.ndim == 2 else x, variables)


@functools.partial(jax.jit, static_argnums=0)
def run(net, variables, inputs, key=None):
    rngs = None if key is None else {"dropout": key}
    return net.apply(variables, inputs, train=key is not None, rngs=rngs)


def near(a, b, tolerance=2e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        scale = max(1.0, float(np.abs(y).max()))
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(
    ("module", "size"), [(m, size) for m, sizes in COUNTS.items() for size in sizes]
)
def test_parameter_counts(module, size):
    assert list(module.SIZES) == list(COUNTS[module])
    net = module.Model(**module.SIZES[size])
    made = jax.eval_shape(net.init, jax.random.key(0), given(net))
    count = sum(leaf.size for leaf in jax.tree.leaves(made))
    assert count == COUNTS[module][size]


@pytest.mark.parametrize("name", NETS)
def test_a_token_sees_none_that_come_later(name):
    net = NETS[name]
    inputs, side = given(net), "tokens"
    if "decoder_tokens" in inputs:
        side = "decoder_tokens"
    before = run(net, started(net), inputs)
    changed = inputs | {side: inputs[side].copy()}
    changed[side][:, 3] = (changed[side][:, 3] + 1) % 23
    after = run(net, started(net), changed)
    near(after[:, :3], before[:, :3], 1e-6)
    assert (np.abs(after[:, 3:] - before[:, 3:]).max(-1) > 1e-4).all()


@pytest.mark.parametrize("name", NETS)
def test_a_cache_changes_nothing(name):
    net = NETS[name]
    inputs, variables = given(net), started(net)
    tokens = inputs.get("decoder_tokens", inputs["tokens"])
    batch, length = tokens.shape
    cache = net.apply(variables, inputs, length + 2, method="prepare")
    assert {leaf.shape[0] for leaf in jax.tree.leaves(cache)} == {batch}
    decode = jax.jit(functools.partial(net.apply, method="decode"))
    out, slots = [], np.arange(length + 2)
    for first, last in ((0, 3), *((i, i + 1) for i in range(3, length))):
        logits, cache = decode(
            variables,
            tokens[:, first:last],
            cache,
            index=first,
            mask=np.broadcast_to(slots < last, (batch, length + 2)),
            positions=np.broadcast_to(np.arange(first, last), (batch, last - first)),
        )
        out.append(logits)
    near(np.concatenate(out, axis=1), run(net, variables, inputs))


@pytest.mark.parametrize(
    ("name", "train"),
    [("bert", True), ("gpt", False), ("t5", False), ("transformer", True)],
)
def test_scan_and_remat_change_neither_numbers_nor_parameters(name, train):
    rates = {"dropout": 0.2 if train else 0.0}
    if name != "t5":
        rates["attention_dropout"] = rates["dropout"]
    net = EVERY[name].clone(**rates)
    inputs = given(net)
    variables = jax.jit(net.init)(jax.random.key(0), inputs)
    key = jax.random.key(3) if train else None

    def values(net):
        made = jax.eval_shape(net.init, jax.random.key(0), inputs)
        assert jax.tree.structure(made) == jax.tree.structure(variables)

        def loss(variables):
            rngs = None if key is None else {"dropout": key}
            logits = net.apply(variables, inputs, train=train, rngs=rngs)
            return jax.nn.logsumexp(logits, -1).sum()

        return jax.jit(jax.value_and_grad(loss))(variables)

    plain = values(net)
    remat = {"scan": True, "remat": "full"} if train else {"remat": "dots"}
    for options in ({"scan": True}, remat):
        near(values(net.clone(**options)), plain)


def test_remat_that_does_not_exist_is_named():
    net = NETS["gpt"]
    with pytest.raises(ValueError, match=r"unknown remat 'all' \(known: None, full"):
        net.clone(remat="all").init(jax.random.key(0), given(net))


@pytest.mark.parametrize("name", ["bert", "gpt", "t5", "transformer"])
def test_the_library_s_attention_gives_the_same_numbers_and_gradients(name):
    net = EVERY[name]
    inputs, variables = given(net), started(net)

    @functools.partial(jax.jit, static_argnums=0)
    def values(net, variables):
        def loss(variables):
            logits = net.apply(variables, inputs)
            return jax.nn.logsumexp(logits, -1).sum(), logits

        return jax.value_and_grad(loss, has_aux=True)(variables)

    near(values(net.clone(implementation="xla"), variables), values(net, variables))


@pytest.mark.parametrize(
    ("name", "calls"), [("bert", 2), ("gpt", 2), ("t5", 2 + 4), ("transformer", 2 + 2)]
)
def test_every_attention_is_attend(name, calls, monkeypatch):
    seen = []

    def counted(*args, **options):
        seen.append(options)
        return attend(*args, **options)

    monkeypatch.setattr(attention, "attend", counted)
    net = EVERY[name].clone(implementation="xla")
    shapes = jax.eval_shape(net.init, jax.random.key(0), given(net))
    seen.clear()
    jax.eval_shape(net.apply, shapes, given(net))
    assert len(seen) == calls
    assert {options["implementation"] for options in seen} == {"xla"}


@pytest.mark.parametrize("name", ["gpt", "gpt-untied", "t5-1.1", "transformer"])
def test_bfloat16_computes_on_float32_parameters(name):
    exact = NETS[name]
    inputs, variables = given(exact), started(exact)
    net = exact.clone(dtype="bfloat16")
    made = jax.eval_shape(net.init, jax.random.key(0), inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype("float32")}
    rough, fine = run(net, variables, inputs), run(exact, variables, inputs)
    assert rough.dtype == jnp.float32
    assert 0 < np.abs(rough - fine).max() < 0.1 * np.abs(fine).max()


@pytest.mark.parametrize("name", ["gpt", "t5", "transformer"])
def test_dropout_is_addressed_by_the_key(name):
    net = NETS[name]
    first, again, other = (
        run(net, started(net), given(net), jax.random.key(s)) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_padding_on_the_left_changes_nothing():
    net = NETS["gpt"]
    inputs = given(net)
    plain = run(net, started(net), inputs)
    padded = {
        "tokens": np.pad(inputs["tokens"], ((0, 0), (3, 0)), constant_values=7),
        "mask": np.pad(np.ones((2, 6), bool), ((0, 0), (3, 0))),
    }
    near(run(net, started(net), padded)[:, 3:], plain)


def test_packed_documents_do_not_see_each_other():
    net = NETS["gpt"]
    inputs = given(net)
    packed = inputs | {"segments": np.array([[1, 1, 2, 2, 2, 0]] * 2, np.int32)}
    out = run(net, started(net), packed)
    alone = {
        "tokens": inputs["tokens"][:, 2:5],
        "positions": np.tile(np.arange(2, 5), (2, 1)),
    }
    near(out[:, 2:5], run(net, started(net), alone))
    assert np.isfinite(out).all()


@pytest.mark.parametrize("name", ["t5", "transformer"])
def test_padding_of_the_source_changes_nothing(name):
    net = NETS[name]
    inputs = given(net)
    padded = inputs | {
        k: np.pad(inputs[k], ((0, 0), (0, 3))) for k in ("tokens", "mask")
    }
    padded["tokens"][:, 6:] = 9
    near(run(net, started(net), padded), run(net, started(net), inputs))


def test_relative_buckets_are_the_paper_s():
    distance = np.array([-200, -127, -64, -9, -8, -7, -1, 0, 1, 7, 8, 9, 64, 127, 200])
    two = t5.bucket(jnp.asarray(distance), buckets=32, max_distance=128, two_way=True)
    # Half of 32 for each direction, 8 of them exact, then by ratios of 16 ** (1/8).
    assert two.tolist() == [15, 15, 14, 8, 8, 7, 1, 0, 17, 23, 24, 24, 30, 31, 31]
    one = t5.bucket(jnp.asarray(distance), buckets=32, max_distance=128, two_way=False)
    assert one.tolist() == [31, 31, 26, 9, 8, 7, 1, *[0] * 8]


def test_sinusoids_are_the_paper_s():
    position, width = 5, 6
    expected = [
        f(position / 10000 ** (2 * i / width))
        for i in range(3)
        for f in (np.sin, np.cos)
    ]
    found = transformer.sinusoids(jnp.array([position]), width, "interleaved")[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    halves = transformer.sinusoids(jnp.array([position]), width, "halves")[0]
    np.testing.assert_array_equal(halves, np.concatenate([found[0::2], found[1::2]]))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gpt", {"tokens": np.zeros((2, 17), np.int32)}, "tokens are 17 long, .* 16"),
        ("gpt", {"segments": np.zeros((2, 5), np.int32)}, r"segments has shape \(2, 5"),
        ("gpt", {"mask": np.zeros((2, 6), np.int32)}, "mask must be bool"),
        (
            "t5",
            {"decoder_tokens": np.zeros(5, np.int32)},
            r"decoder_tokens must be \[B",
        ),
        ("t5", {"tokens": np.zeros((2, 6))}, "tokens must be integers"),
        ("transformer", {"mask": np.ones((2, 5), bool)}, r"mask has shape \(2, 5\)"),
    ],
)
def test_inputs_that_do_not_fit_are_named(name, change, message):
    net = NETS[name]
    with pytest.raises(ValueError, match=message):
        net.apply(started(net), given(net) | change)


def test_more_slots_than_positions_are_refused():
    net = NETS["gpt"]
    with pytest.raises(ValueError, match=r"17 tokens were asked for.*positions for 16"):
        net.apply(started(net), given(net), 17, method="prepare")


def test_an_unknown_layout_is_named():
    net = NETS["transformer"].clone(layout="mixed")
    with pytest.raises(ValueError, match="unknown layout 'mixed'"):
        net.init(jax.random.key(0), given(net))


HEADS = {
    "tag": ((2, 6), (2, 6, 5)),
    "span": ((2, 6), (2, 6, 2)),
    "choose": ((2, 3, 6), (2, 3)),
    "embed": ((2, 3, 6), (2, 3, 12)),
}


@pytest.mark.parametrize("head", HEADS)
def test_heads_of_bert(head):
    shape, expected = HEADS[head]
    net = bert.Model(**SMALL, head=head, classes=5 if head == "tag" else None)
    tokens = np.random.default_rng(0).integers(0, 23, shape, np.int32)
    inputs = {"tokens": tokens, "mask": np.ones(shape, bool)}
    variables = jax.jit(net.init)(jax.random.key(0), inputs)
    out = run(net, variables, inputs)
    assert out.shape == expected
    assert ("pooler" in variables["params"]) == (head == "choose")
    if len(shape) == 3:  # each text by itself is the same
        one = run(net, variables, {k: x[:, 1:2] for k, x in inputs.items()})
        near(one, out[:, 1:2])
    if head == "embed":
        near((out**2).sum(-1), np.ones((2, 3)))
        padded = {k: np.pad(x, ((0, 0), (0, 0), (0, 4))) for k, x in inputs.items()}
        near(run(net, variables, padded), out)
        nothing = run(net, variables, inputs | {"mask": np.zeros(shape, bool)})
        assert (nothing == 0).all()


def test_a_head_that_takes_one_text_refuses_several():
    net = bert.Model(**SMALL, head="tag", classes=5)
    with pytest.raises(ValueError, match=r"tokens must be \[B, T\], got .*2, 3, 6"):
        net.init(jax.random.key(0), {"tokens": np.zeros((2, 3, 6), np.int32)})
