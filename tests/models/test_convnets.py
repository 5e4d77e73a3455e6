"""The large convolutional families: counts, shapes, options, errors."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fmjax.layers.batch_norm import BatchNorm
from fmjax.layers.conv import ConvNorm
from fmjax.models import alexnet, inception, mobilenet, resnet

# torchvision's and timm's counts. The small ResNets by hand: with option A a stage of n
# blocks and width w has 2n convolutions of 9 w^2 and norms of 2w, but for the first of
# all but the first stage, which is from w / 2 channels.
COUNTS = {
    ("resnet", "18"): 11_689_512,
    ("resnet", "34"): 21_797_672,
    ("resnet", "50"): 25_557_032,
    ("resnet", "101"): 44_549_160,
    ("resnet", "152"): 60_192_808,
    ("alexnet", "base"): 61_100_840,
    ("inception", "v3"): 27_161_264,
    ("inception", "v3-plain"): 23_834_568,
    ("inception", "small"): 1_651_114,
    ("mobilenet", "1.0"): 3_504_872,
    ("mobilenet", "0.5"): 1_968_680,
    ("mobilenet", "1.4"): 6_108_776,
}


def small(n):
    stages = sum(2 * n * (9 * w * w + 2 * w) for w in (16, 32, 64))
    halves = sum(9 * w * w // 2 for w in (32, 64))
    return 3 * 9 * 16 + 2 * 16 + stages - halves + 64 * 10 + 10


COUNTS |= {("resnet", str(6 * n + 2)): small(n) for n in (3, 5, 7, 9, 18)}
# Table 6 of He et al. 2016, in millions.
PAPER = {"20": 0.27, "32": 0.46, "44": 0.66, "56": 0.85, "110": 1.7}
# Zhang et al. 2017, table 1, with norms or without: a channel has one bias, no scale.
SMALL_INCEPTION = 1_649_402


def build(name, size=None, **changes):
    module = importlib.import_module(f"fmjax.models.{name}")
    return module.Model(**(module.SIZES[size] if size else {}) | changes)


def test_every_size_is_counted():
    families = (resnet, alexnet, inception, mobilenet)
    names = {(m.__name__.split(".")[-1], size) for m in families for size in m.SIZES}
    assert names == set(COUNTS)


@pytest.mark.parametrize(("name", "size"), COUNTS)
def test_parameter_counts(name, size):
    side = {"inception": 299, "alexnet": 224}.get(name, 32)
    classes = 10 if size in (*PAPER, "small") else 1000
    images = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    net = build(name, size, classes=classes)
    params = jax.eval_shape(net.init, jax.random.key(0), images)["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == COUNTS[name, size]
    if size in PAPER:
        assert round(count / 1e6, 1 if size == "110" else 2) == PAPER[size]


# Narrow, and with images as small as the net takes.
NARROW = {
    "resnet": ({"depths": (1, 1), "width": 4, "stem": "small"}, 8),
    "alexnet": ({"channels": (2, 2, 2, 2, 3), "dense": 5}, 63),
    "inception": ({"width": 0.03, "auxiliary": False}, 75),
    "mobilenet": ({"width": 0.05, "divisor": 2, "head": 8}, 16),
}
WIDTHS = {"resnet": 8, "alexnet": 5, "inception": 64, "mobilenet": 8}


def make(name, **changes):
    """(net, images, shapes of the variables)"""
    fields, side = NARROW[name]
    net = build(name, classes=3, **fields | changes)
    random = np.random.default_rng(0)
    images = random.normal(size=(4, side, side, 3)).astype(np.float32)
    return net, images, jax.eval_shape(net.init, jax.random.key(0), images)


def fresh(net, images):
    return jax.jit(net.init)(jax.random.key(0), images)


# What the nets compute is held against torch in tests/interop/test_torchvision.py.
@pytest.mark.parametrize("name", NARROW)
def test_features_logits_and_dtypes(name):
    net, images, variables = make(name)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    for dtype in ("float32", "bfloat16"):
        apply = net.clone(dtype=dtype).apply
        logits = jax.eval_shape(apply, variables, images)
        pooled = functools.partial(apply, features=True)
        features = jax.eval_shape(pooled, variables, images)
        assert (logits.shape, features.shape) == ((4, 3), (4, WIDTHS[name]))
        assert logits.dtype == features.dtype == jnp.float32


@pytest.mark.parametrize("name", ["resnet", "inception", "mobilenet"])
@pytest.mark.parametrize("frozen", [False, True])
def test_every_norm_is_the_house_s_and_can_be_frozen(name, frozen):
    net, images, variables = make(name, frozen_norm=frozen)
    found = []

    def keep(call, args, kwargs, context):
        if (
            context.method_name == "__call__"
            and "Norm" in type(context.module).__name__
        ):
            found.append((context.module, kwargs))
        return call(*args, **kwargs)

    given = {"train": True, "rngs": {"dropout": jax.random.key(1)}}
    with nn.intercept_methods(keep):
        jax.eval_shape(
            lambda v: net.apply(v, images, **given, mutable=["batch_stats"]), variables
        )
    norms = [module for module, _ in found if not isinstance(module, ConvNorm)]
    # linen's own would not hear of the other devices under pmap.
    assert {type(module) for module in norms} == {BatchNorm}
    assert {module.frozen for module in norms} == {frozen}
    assert all(kwargs["train"] for _, kwargs in found)
    assert len(jax.tree.leaves(variables["batch_stats"])) == 2 * len(norms)


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[0], "needs a channel axis"),
        (lambda x: x.astype(np.uint8), "got uint8; scale"),
        (lambda x: x[:, :-1], "62x63 are too small.*63x63|74x75 are too .*75x75"),
    ],
)
def test_images_that_do_not_fit_are_named(name, change, message):
    net, images, variables = make(name)
    apply = lambda x: jax.eval_shape(net.apply, variables, x)  # noqa: E731
    if "small" in message and name in ("resnet", "mobilenet"):
        apply(change(images))  # these take any size
        return
    with pytest.raises(ValueError, match=message):
        apply(change(images))


class TestResNet:
    def test_option_a_is_every_second_pixel_and_channels_of_zeros(self):
        block = resnet.Block(width=6, stride=2, projection=False, zero_init=True)
        images = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
        variables = jax.jit(block.init, static_argnames="train")(
            jax.random.key(0), images, train=False
        )
        out = np.asarray(block.apply(variables, images, train=False))
        # The last norm's scale is zero: what comes out is the shortcut's.
        want = np.zeros((2, 3, 2, 6))
        want[..., 1:4] = np.maximum(images[:, ::2, ::2], 0)
        np.testing.assert_array_equal(out, want)

    def test_the_plain_net_is_the_residual_one_without_its_shortcuts(self):
        net, images, shapes = make("resnet", projection=False, shortcut=False)
        assert make("resnet", projection=False)[2] == shapes
        variables = fresh(net, images)
        # With the last norm at zero nothing gets past a block without a shortcut.
        params = dict(variables["params"])
        block = dict(params["stage1_block0"])
        block["conv2"] = jax.tree.map(jnp.zeros_like, block["conv2"])
        params["stage1_block0"] = block
        changed = {**variables, "params": params}
        out = net.apply(changed, images)
        again = net.apply(changed, 2 * images)
        np.testing.assert_array_equal(out, again)
        assert (
            net.clone(shortcut=True).apply(changed, images)
            != net.clone(shortcut=True).apply(changed, 2 * images)
        ).any()

    def test_zero_init_begins_as_the_shortcuts(self):
        net, images, _ = make("resnet", zero_init=True)
        params = fresh(net, images)["params"]
        assert (params["stage1_block0"]["conv2"]["norm"]["scale"] == 0).all()
        assert (params["stage1_block0"]["conv1"]["norm"]["scale"] == 1).all()

    def test_the_stride_of_a_bottleneck_is_in_its_3x3(self):
        net = resnet.Model(depths=(1, 1), width=2, bottleneck=True, stem="small")
        images = np.zeros((1, 8, 8, 3), np.float32)
        variables = jax.jit(net.init)(jax.random.key(0), images)
        _, seen = net.apply(variables, images, capture_intermediates=True)
        block = seen["intermediates"]["stage2_block0"]
        sizes = [block[f"conv{i}"]["__call__"][0].shape[1] for i in (1, 2, 3)]
        assert sizes == [8, 4, 4]

    def test_another_stem_is_refused(self):
        with pytest.raises(ValueError, match="'large' or 'small', not 'medium'"):
            make("resnet", stem="medium")


class TestInception:
    def test_the_auxiliary_classifier_is_asked_for_and_says_what_it_needs(self):
        net = inception.Model(classes=3, width=0.02)
        images = jax.ShapeDtypeStruct((2, 299, 299, 3), np.float32)
        init = lambda x: net.init(jax.random.key(0), x)  # noqa: E731
        variables = jax.eval_shape(init, images)
        both = lambda v, x: net.apply(v, x, both=True)  # noqa: E731
        shapes = [x.shape for x in jax.eval_shape(both, variables, images)]
        assert shapes == [(2, 3), (2, 3)]
        small = jax.ShapeDtypeStruct((2, 128, 128, 3), np.float32)
        with pytest.raises(ValueError, match=r"17x17, not 6x6: resize .* 299x299"):
            jax.eval_shape(both, variables, small)
        plain = net.clone(auxiliary=False)
        with pytest.raises(ValueError, match="set auxiliary=True"):
            jax.eval_shape(lambda x: plain.init(jax.random.key(0), x, both=True), small)

    def test_transform_input_undoes_imagenet_s_normalisation(self):
        pixels = np.random.default_rng(0).uniform(size=(2, 3, 3, 3))
        normal = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        got = inception.between(normal.astype(np.float32))
        np.testing.assert_allclose(got, 2 * pixels - 1, atol=1e-6)

    def test_the_small_net_has_the_paper_s_grids_channels_and_count(self):
        net = build("inception", "small", classes=10)
        images = jax.ShapeDtypeStruct((1, 28, 28, 3), np.float32)
        shapes = jax.eval_shape(net.init, jax.random.key(0), images)
        leaves = jax.tree.leaves_with_path(shapes["params"])
        counted = [leaf.size for path, leaf in leaves if path[-1].key != "scale"]
        assert sum(counted) == SMALL_INCEPTION
        seen = functools.partial(net.apply, capture_intermediates=True)
        blocks = jax.eval_shape(seen, shapes, images)[1]["intermediates"]
        got = [blocks[name]["__call__"][0].shape[2:] for name in inception.SMALL]
        want = [(28, 64), (28, 80), (14, 160), *[(14, 160)] * 3, (14, 144), (7, 240)]
        assert got == [*want, (7, 336), (7, 336)]
        # Grey images, of other sizes too: half is rounded up.
        odd = jax.ShapeDtypeStruct((2, 5, 1, 1), np.float32)
        shapes = jax.eval_shape(net.init, jax.random.key(0), odd)
        pooled = functools.partial(net.apply, features=True)
        assert jax.eval_shape(pooled, shapes, odd).shape == (2, 336)

    def test_a_small_downsampling_sees_every_pixel(self):
        convolve = functools.partial(ConvNorm, eps=1e-3)
        block = inception.Mixed(inception.downsample(2), 1.0, convolve, 1)
        images = np.eye(16, dtype=np.float32).reshape(16, 4, 4, 1)  # one pixel each
        init = jax.jit(functools.partial(block.init, train=False))
        ones = jax.tree.map(jnp.ones_like, init(jax.random.key(0), images))
        out = np.asarray(block.apply(ones, images, train=False))
        # Windows of 3x3, of the convolution and the pool, lie around even pixels.
        place, middle = np.arange(4)[:, None], np.arange(0, 4, 2)
        near = abs(place - middle) <= 1
        want = np.einsum("yi,xj->yxij", near, near).reshape(16, 2, 2, 1)
        np.testing.assert_array_equal(out > 0.5, np.tile(want, 3))

    def test_another_stem_is_refused_and_so_is_a_block_of_no_second_classifier(self):
        images = jax.ShapeDtypeStruct((2, 28, 28, 1), np.float32)
        init = lambda net, **k: jax.eval_shape(  # noqa: E731
            lambda x: net.init(jax.random.key(0), x, **k), images
        )
        with pytest.raises(ValueError, match="'large' or 'small', not 'medium'"):
            init(build("inception", "small", stem="medium"))
        with pytest.raises(ValueError, match="Mixed_6e among blocks"):
            init(build("inception", "small", auxiliary=True), both=True)


def deviation(params, *path):
    for name in path:
        params = params[name]
    return float(np.std(params["kernel"]))


CUT = 0.8796  # deviation of a normal that is cut off at two, of its own


def test_mobilenet_begins_and_averages_as_it_is_told():
    stages = ((1, 256, 1, 1), (6, 256, 1, 1))
    fields = dict(classes=100, stages=stages, head=64)
    authors = dict(kernel_std=0.09, norm_momentum=0.997, norm_eps=1e-3)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    net = mobilenet.Model(**fields, **authors)
    variables = fresh(net, images)
    params = variables["params"]
    paths = [("block2", name, "conv") for name in ("expand", "depthwise", "project")]
    for path in (*paths, ("head", "conv"), ("classify",)):
        assert deviation(params, *path) == pytest.approx(0.09 * CUT, rel=0.03), path
    # Without being told, as torchvision's.
    plain = fresh(mobilenet.Model(**fields), images)["params"]
    got = deviation(plain, "block2", "expand", "conv")
    assert got == pytest.approx((2 / (6 * 256)) ** 0.5, rel=0.03)
    assert deviation(plain, "classify") == pytest.approx(0.01, rel=0.03)
    norms = _norms(net, variables, images)
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.997, 1e-3)}


def test_inception_begins_and_averages_as_it_is_told():
    net = inception.Model(classes=50, width=0.3, kernel_std=0.1, norm_momentum=0.9997)
    images = np.zeros((1, 299, 299, 3), np.float32)
    variables = fresh(net, images)
    params = variables["params"]
    for path, std in (
        (("Mixed_5b", "branch5x5_2", "conv"), 0.1),
        (("Mixed_7c", "branch_pool", "conv"), 0.1),
        (("AuxLogits", "conv0", "conv"), 0.1),
        (("AuxLogits", "conv1", "conv"), 0.01),
    ):
        assert deviation(params, *path) == pytest.approx(std * CUT, rel=0.03), path
    assert deviation(params, "classify") == pytest.approx(0.01, rel=0.03)
    small = images[:, :80, :80]
    net = net.clone(auxiliary=False)
    params = {name: own for name, own in params.items() if name != "AuxLogits"}
    norms = _norms(net, variables | {"params": params}, small)
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.9997, 1e-3)}


def _norms(net, variables, images):
    """The batch norms that a pass goes through."""
    found = []

    def keep(call, args, kwargs, context):
        if isinstance(context.module, BatchNorm):
            found.append(context.module)
        return call(*args, **kwargs)

    with nn.intercept_methods(keep):
        jax.eval_shape(net.apply, variables, images)
    assert found
    return found


def test_mobilenet_widths_are_the_authors():
    # 96 x 0.35 is 33.6, and 32 is within a tenth of it; 24 x 0.35 is 8.4, 8 is too.
    assert [mobilenet.scaled(c, 0.35) for c in (96, 24, 32, 160)] == [32, 8, 16, 56]
