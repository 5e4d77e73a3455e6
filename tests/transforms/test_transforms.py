"""Every transform on every family: a net again, equal at the start, and mergeable."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fmjax import transforms
from fmjax.generation import generate, left_pad
from fmjax.models import bert, cnn, gpt, t5, transformer
from fmjax.transforms import adalora, adapter, ia3, lora, prefix, prompt

SMALL = dict(vocab_size=31, width=16, depth=2, heads=2, mlp_width=24)
TOKENS = np.arange(14, dtype=np.int32).reshape(2, 7)
MASK = np.ones((2, 7), bool)
MASK[0, 5:] = False
NETS = {
    "bert": bert.Model(**SMALL, head="classify", classes=3, max_length=16),
    "gpt": gpt.Model(**SMALL, max_length=32),
    "t5": t5.Model(**SMALL, head_width=8),
    "transformer": transformer.Model(**SMALL, max_length=32),
}
INPUTS = {
    "bert": {"tokens": TOKENS, "mask": MASK},
    "gpt": {"tokens": TOKENS},
    "t5": {"tokens": TOKENS, "mask": MASK, "decoder_tokens": TOKENS[:, :4]},
    "transformer": {"tokens": TOKENS, "mask": MASK, "decoder_tokens": TOKENS[:, :4]},
}
MAKE = {
    "lora": lambda net: lora.transform(net, rank=3, alpha=6.0),
    "dora": lambda net: lora.transform(net, rank=2, dora=True, target="(query|up)$"),
    "adalora": lambda net: adalora.transform(net, rank=3),
    "ia3": lambda net: ia3.transform(net),
    "houlsby": lambda net: adapter.transform(net, width=4),
    "pfeiffer": lambda net: adapter.transform(net, width=4, kind="pfeiffer"),
    "prefix": lambda net: prefix.transform(net, length=3),
    "prompt": lambda net: prompt.transform(net, length=3),
}
SAME_AT_START = ("lora", "dora", "adalora", "ia3", "houlsby", "pfeiffer")
MERGED = {"lora": lora, "dora": lora, "adalora": adalora, "ia3": ia3}


def started(net, name):
    return net.init(jax.random.key(0), INPUTS[name])


def stirred(variables, seed=1):
    """Values far from any initialiser's zeros."""
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noise = [0.1 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves)]  # noqa: B905
    return jax.tree.unflatten(tree, [x + n for x, n in zip(leaves, noise)])  # noqa: B905


def close(a, b, tolerance=1e-5):
    return jax.tree.all(
        jax.tree.map(lambda x, y: np.allclose(x, y, rtol=0, atol=tolerance), a, b)
    )


# Every kind on one family, and on the others what meets their own parts.
PAIRS = [(kind, "bert") for kind in MAKE]
PAIRS += [(kind, "t5") for kind in ("lora", "houlsby", "prefix", "prompt")]
PAIRS += [("dora", "gpt"), ("prefix", "gpt"), ("adalora", "transformer")]


@pytest.mark.parametrize(("kind", "family"), PAIRS)
def test_a_transformed_net_is_a_net(kind, family):
    plain, inputs = NETS[family], INPUTS[family]
    net = MAKE[kind](plain)
    variables = started(net, family)
    own, added = transforms.split(net, variables["params"])
    shapes = jax.tree.map(np.shape, started(plain, family)["params"])
    assert jax.tree.map(np.shape, own) == shapes, "the net's own paths are kept"
    assert transforms.flatten(added)
    before, after = plain.apply({"params": own}, inputs), net.apply(variables, inputs)
    assert jax.tree.map(np.shape, before) == jax.tree.map(np.shape, after)
    if kind in SAME_AT_START:
        assert close(before, after, 1e-6)
    moved = stirred(variables)
    other = transforms.split(net, moved["params"])[0]
    changed = net.apply(moved, inputs)
    assert not close(changed, plain.apply({"params": other}, inputs), 1e-3)
    if kind in MERGED:
        merged, params = MERGED[kind].merge(net, moved["params"])
        assert merged is plain
        assert jax.tree.map(np.shape, params) == shapes
        assert close(changed, merged.apply({"params": params}, inputs))


@pytest.mark.parametrize("kind", ["lora", "houlsby", "prefix", "prompt"])
def test_scan_and_remat_change_nothing(kind):
    plain, inputs = NETS["bert"], INPUTS["bert"]
    net = MAKE[kind](plain)
    variables = stirred(started(net, "bert"))

    def loss(params, net):
        return (net.apply({"params": params}, inputs) ** 2).sum()

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    scanned = dataclasses.replace(net, net=plain.clone(scan=True, remat="full"))
    expected = gradient(variables["params"], net)
    assert close(expected, gradient(variables["params"], scanned))


def test_an_adapter_in_some_blocks_can_not_be_scanned():
    net = lora.transform(NETS["bert"].clone(scan=True), target="layer0/.*query$")
    variables = started(net, "bert")
    with pytest.raises(ValueError, match="layer0 and layer1 have unlike parameters"):
        net.apply(variables, INPUTS["bert"])


@pytest.mark.parametrize(
    ("kind", "family"),
    [
        ("lora", "gpt"),
        ("prefix", "t5"),
        # The same way as the two before it.
        pytest.param("prefix", "gpt", marks=pytest.mark.slow),
    ],
)
def test_generation_with_a_cache_is_that_without(kind, family):
    net = MAKE[kind](NETS[family])
    variables = stirred(started(net, family), seed=2)
    if family == "gpt":
        found = generate(net, variables, left_pad([[1, 2, 3], [4, 5]]), length=5)
        text = np.array([[1, 2, 3]])
        inputs = lambda text: {"tokens": text}  # noqa: E731
    else:
        found = generate(net, variables, {"tokens": TOKENS}, length=5, start=0)
        text = np.array([[0]])
        inputs = lambda text: {"tokens": TOKENS[:1], "decoder_tokens": text}  # noqa: E731
    begin = text.shape[1]
    for _ in range(5):
        logits = net.apply(variables, inputs(jnp.asarray(text)))
        text = np.concatenate([text, [[int(logits[0, -1].argmax())]]], axis=1)
    assert found.tokens[0].tolist() == text[0, begin:].tolist()


def test_transforms_stack():
    net = adapter.transform(lora.transform(NETS["bert"]), kind="pfeiffer", width=4)
    variables = stirred(started(net, "bert"))
    own, added = transforms.split(net, variables["params"])
    names = {path.split("/")[-1] for path in transforms.flatten(added)}
    assert names == {"lora_a", "lora_b", "kernel", "bias"}
    assert not any("lora" in p or "adapter" in p for p in transforms.flatten(own))
    again = transforms.join(own, added)
    assert close(net.apply({"params": again}, INPUTS["bert"]), net.apply(
        variables, INPUTS["bert"]), 0)  # fmt: skip
    with pytest.raises(ValueError, match="two parts have the parameters"):
        transforms.join(again, added)


def test_merged_stacks_compute_the_same_and_what_has_no_weights_is_told():
    net, inputs = NETS["bert"], INPUTS["bert"]
    stack = ia3.transform(lora.transform(adalora.transform(net, rank=2), rank=3))
    params = stirred(started(stack, "bert"))["params"]
    plain, merged = transforms.merged(stack, params)
    assert plain is net
    shapes = jax.tree.map(np.shape, started(net, "bert")["params"])
    assert jax.tree.map(np.shape, merged) == shapes
    expected = stack.apply({"params": params}, inputs)
    assert close(expected, plain.apply({"params": merged}, inputs))
    assert transforms.merged(net, merged) == (net, merged)
    for kind in ("houlsby", "prefix", "prompt"):
        with pytest.raises(ValueError, match=r"transform '\w+' can't be merged"):
            transforms.merged(MAKE[kind](net), {})


def test_unmerged_kernels_are_those_from_before_to_a_rounding_error():
    net = MAKE["lora"](NETS["bert"])
    params = stirred(started(net, "bert"))["params"]
    _, added = transforms.split(net, params)
    back = lora.unmerge(net, lora.merge(net, params)[1], added)
    assert close(back, params, 1e-6)
    with pytest.raises(ValueError, match="lengths are lost"):
        lora.unmerge(MAKE["dora"](NETS["bert"]), params, added)


def test_dora_is_its_equation():
    net = lora.transform(NETS["bert"], rank=2, dora=True, target="layer0/.*query$")
    params = stirred(started(net, "bert"))["params"]
    own = params["layer0"]["attention"]["query"]
    raw = own["kernel"] + own["lora_a"] @ own["lora_b"]
    column = raw / np.linalg.norm(raw, axis=0)
    merged = lora.merge(net, params)[1]["layer0"]["attention"]["query"]["kernel"]
    assert np.allclose(merged, own["lora_magnitude"] * column, atol=1e-6)


def test_dora_takes_the_lengths_of_weights_that_were_loaded():
    net = MAKE["dora"](NETS["bert"])
    params = stirred(started(net, "bert"))["params"]
    flat = transforms.flatten(params)
    fresh = [p for p in flat if "lora" in p]
    settled = transforms.flatten(net.settle(params, fresh))
    for path in flat:
        if path.endswith("lora_magnitude"):
            kernel = flat[path.replace("lora_magnitude", "kernel")]
            assert np.allclose(settled[path], np.linalg.norm(kernel, axis=0), atol=1e-6)
        else:
            assert settled[path] is flat[path]
    kept = net.settle(params, [])
    assert close(kept, params, 0), "lengths that were loaded too stay"


def test_lora_dropout_is_on_in_training_alone():
    net = lora.transform(NETS["bert"].clone(dropout=0.0), dropout=0.5)
    variables = stirred(started(net, "bert"))
    run = lambda **kw: net.apply(variables, INPUTS["bert"], **kw)  # noqa: E731
    keys = [{"dropout": jax.random.key(i)} for i in range(2)]
    assert close(run(), run(), 0)
    assert close(run(train=False), run(), 0)
    assert not close(run(train=True, rngs=keys[0]), run(train=True, rngs=keys[1]), 1e-4)
    with pytest.raises(ValueError, match=r"lora\.dropout=0\.5 can't be with"):
        lora.transform(NETS["bert"].clone(scan=True), dropout=0.5)


def test_an_adapter_on_a_convolutional_net():
    net = lora.transform(cnn.Model(classes=3), target=".*")
    params = net.init(jax.random.key(0), np.zeros((2, 28, 28, 1), np.float32))["params"]
    flat, found = transforms.flatten(params), net.found(params)
    linear = {p.rpartition("/")[0] for p, v in flat.items() if v.ndim == 2} - set(found)
    assert {p.rpartition("/")[0] for p in found} == linear, "linear maps alone"


class Pixels(nn.Module):
    """A 3x3, a depthwise and two 1x1 convolutions, and a linear map."""

    @nn.compact
    def __call__(self, x, **_):
        x = nn.relu(nn.Conv(4, (3, 3), name="stem")(x))
        hidden = nn.relu(nn.Conv(6, (1, 1), use_bias=False, name="expand")(x))
        hidden = nn.Conv(6, (3, 3), feature_group_count=6, name="depthwise")(hidden)
        x = x + nn.Conv(4, (1, 1), name="project")(hidden)
        return nn.Dense(3, name="classify")(x.mean((1, 2)))


ON_CONVOLUTIONS = {
    "lora": lambda net: lora.transform(net, rank=2, target=".*"),
    "dora": lambda net: lora.transform(net, rank=2, dora=True, target=".*"),
    "adalora": lambda net: adalora.transform(net, rank=3, target=".*"),
    "ia3": lambda net: ia3.transform(net, target="expand|project", inputs="project"),
    "adapter": lambda net: adapter.transform(net, target="project", width=3),
}


@pytest.mark.parametrize("kind", ON_CONVOLUTIONS)
def test_a_pointwise_convolution_is_a_linear_map(kind):
    plain, net = Pixels(), ON_CONVOLUTIONS[kind](Pixels())
    image = np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype(np.float32)
    params = net.init(jax.random.key(0), image)["params"]
    own = transforms.split(net, params)[0]
    assert close(
        net.apply({"params": params}, image), plain.apply({"params": own}, image)
    )
    maps = {p.split("/")[0] for p in net.found(params)}
    if kind in ("lora", "dora", "adalora"):
        assert maps == {"expand", "project", "classify"}
    moved = stirred(params)
    own, added = transforms.split(net, moved)
    changed = net.apply({"params": moved}, image)
    assert not close(changed, plain.apply({"params": own}, image), 1e-3)
    assert close(changed, jax.jit(net.apply)({"params": moved}, image))
    if kind in MERGED:
        below, merged = MERGED[kind].merge(net, moved)
        assert below == plain
        assert jax.tree.map(np.shape, merged) == jax.tree.map(np.shape, own)
        assert close(changed, plain.apply({"params": merged}, image))
    if kind == "lora":
        assert close(lora.unmerge(net, merged, added), moved, 1e-6)


@pytest.mark.parametrize(
    ("fields", "linear"),
    [
        (dict(kernel_size=(1, 1)), True),
        (dict(kernel_size=(1, 1), padding=[(0, 0), (0, 0)], strides=(1, 1)), True),
        (dict(kernel_size=(1, 1), padding=1), False),
        (dict(kernel_size=(1, 1), strides=(2, 2)), False),
        (dict(kernel_size=(1, 1), feature_group_count=2), False),
        (dict(kernel_size=(3, 1)), False),
    ],
)
def test_which_convolutions_are_linear_maps(fields, linear):
    assert transforms.linear(nn.Conv(4, **fields)) == linear


def test_a_prompt_keeps_the_first_place_and_tells_what_it_can_not_do():
    net = prompt.transform(NETS["bert"], length=3, keep=1)
    inputs = INPUTS["bert"]
    assert net._with(inputs)["tokens"][0, :4].tolist() == [0, -1, -2, -3]
    tagger = prompt.transform(NETS["bert"].clone(head="tag"), length=3, keep=1)
    variables = tagger.init(jax.random.key(0), inputs)
    assert tagger.apply(variables, inputs).shape == (2, 7, 3)
    with pytest.raises(ValueError, match="inputs positions"):
        net.init(jax.random.key(0), inputs | {"positions": TOKENS})
    with pytest.raises(ValueError, match="prefix"):
        prompt.transform(NETS["gpt"]).apply({}, {}, method="prepare")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net: lora.transform(net, rank=0), "rank is 0"),
        (lambda net: adalora.transform(net, rank=0), "rank is 0"),
        (lambda net: adapter.transform(net, width=0), "width is 0"),
        (lambda net: adapter.transform(net, kind="x"), "known: houlsby, pfeiffer"),
        (lambda net: adapter.transform(net, act="x"), "x"),
        (lambda net: prefix.transform(net, length=0), "length is 0"),
        (lambda net: prompt.transform(net, length=0), "length is 0"),
    ],
)
def test_settings_without_meaning_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(NETS["bert"])


def test_a_target_that_matches_nothing_lists_what_there_is():
    with pytest.raises(ValueError, match="layer0/attention/query"):
        started(lora.transform(NETS["bert"], target="qurey"), "bert")
