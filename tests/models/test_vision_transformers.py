"""ViT, MAE, CLIP and SimCLR's head: sizes, and relations which hold for each of them.

Equality with the references is in tests/interop.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.layers import patches
from fmjax.models import clip, mae, simclr, vit

# timm's vit_*_patch*_224 with 1,000 classes; 22B by hand from its table 1, and 21.7e9
# in the paper, which does not count the classes.
VIT = {
    "Ti/16": 5_717_416,
    "S/32": 22_878_952,
    "S/16": 22_050_664,
    "B/32": 88_224_232,
    "B/16": 86_567_656,
    "L/32": 306_535_400,
    "L/16": 304_326_632,
    "H/14": 632_045_800,
    "g/14": 1_012_611_432,
    "G/14": 1_844_440_680,
    "22B/14": 21_756_408_808,
}
# ViTMAEForPreTraining counts its fixed positions, (196 + 1) * (768 + 512) of base.
MAE = {"B/16": 111_907_840, "L/16": 329_541_888, "H/14": 657_074_508}
# transformers' CLIPModel.
CLIP = {
    "B/32": 151_277_313,
    "B/16": 149_620_737,
    "L/14": 427_616_513,
    "L/14-336": 427_944_193,
}


def count(net, given):
    params = jax.eval_shape(net.init, jax.random.key(0), given)["params"]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def count_deep(net, given, *depths):
    """As `count`, from nets of one and two blocks: all blocks are alike."""
    flat = net.clone(**dict.fromkeys(depths, 1))
    total = one = count(flat, given)
    for depth in depths:
        block = count(flat.clone(**{depth: 2}), given) - one
        total += (getattr(net, depth) - 1) * block
    return total


def zeros(net, batch=1):
    return jnp.zeros((batch, *net.image, net.channels))


@pytest.mark.parametrize("size", vit.SIZES)
def test_vit_s_parameter_counts(size):
    net = vit.Model(**vit.SIZES[size])
    assert count_deep(net, zeros(net), "depth") == VIT[size]


def test_blocks_are_counted_as_the_whole_net_is():
    net = vit.Model(**vit.SIZES["Ti/16"])
    assert count(net, zeros(net)) == VIT["Ti/16"]


def test_the_22b_s_parameters_by_hand():
    width, mlp, depth, head_width = 6144, 24576, 48, 128
    block = 4 * width**2 + 2 * width * mlp  # no bias in attention
    block += mlp + width + width + 2 * head_width  # the MLP's; norms without bias
    patch = 14 * 14 * 3 * width + width
    rest = patch + (1 + 256) * width + width + width + 1000 * width + 1000
    assert depth * block + rest == VIT["22B/14"]
    assert depth * block == pytest.approx(21.743e9, rel=1e-3)  # table 1


@pytest.mark.parametrize("size", mae.SIZES)
def test_mae_s_parameter_counts(size):
    net = mae.Model(**mae.SIZES[size])
    fixed = (net.patches + 1) * (net.width + net.decoder_width)
    found = count_deep(net, zeros(net), "depth", "decoder_depth")
    assert found + fixed == MAE[size]


@pytest.mark.parametrize("size", clip.SIZES)
def test_clip_s_parameter_counts(size):
    net = clip.Model(**clip.SIZES[size])
    tokens = jnp.zeros((1, 2), int)
    given = {"image": zeros(net), "tokens": tokens}
    assert count_deep(net, given, "depth", "text_depth") == CLIP[size]


def test_simclr_s_head_is_that_of_the_authors():
    net = simclr.Model(**simclr.SIZES["R50"])
    got = count(net, jnp.zeros((1, 64, 64, 3)))
    backbone = 25_557_032 - (2048 * 1000 + 1000)
    head = 2048 * 2048 + 2 * 2048 + 2048 * 128 + 128  # no shift in the last norm
    assert got == backbone + head


def test_simclr_begins_as_the_authors_code():
    fields = simclr.SIZES["R50"] | dict(width=512, joint=64)
    fields["backbone"] = fields["backbone"] | dict(depths=(1,), width=16, size=None)
    net = simclr.Model(**fields)
    begun = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    for i in (0, 1):
        kernel = np.asarray(begun[f"project{i}"]["kernel"])
        assert kernel.std() == pytest.approx(0.01, rel=0.03)
    assert [set(begun[f"norm{i}"]) for i in (0, 1)] == [{"scale", "bias"}, {"scale"}]
    last = begun["backbone"]["stage1_block0"]["conv2"]["norm"]["scale"]
    assert (last == 0).all()


@pytest.mark.parametrize(
    ("fields", "path", "std"),
    [
        (dict(), ("embed", "cls"), 0),
        (dict(pool="mean", cls_token=True), ("embed", "cls"), 0.02 * 0.8796),
        (dict(pool="map"), ("pool", "query"), (2 / 1025) ** 0.5),
    ],
)
def test_a_vit_s_tokens_begin_as_the_authors(fields, path, std):
    size = dict(patch=8, width=1024, depth=1, heads=2, mlp_width=4, image=(8, 8))
    net = vit.Model(**size, **fields, head=None)
    found = jax.jit(net.init)(jax.random.key(0), images(shape=(8, 8, 3)))["params"]
    got = float(np.std(found[path[0]][path[1]]))
    assert got == pytest.approx(std, rel=0.1, abs=1e-9)


SMALL = dict(patch=4, width=12, depth=2, heads=3, mlp_width=20, image=(8, 12))
PLAIN = vit.Model(**SMALL, classes=5)


def run(net, variables, inputs, fields=(), key=None):
    rngs = None if key is None else {"dropout": key}
    given = dict(train=key is not None, rngs=rngs, **dict(fields))
    return jax.jit(lambda variables: net.apply(variables, inputs, **given))(variables)


def started(net, inputs):
    variables = jax.jit(net.init)(jax.random.key(0), inputs)
    noise = np.random.default_rng(0)

    def far(x):  # from zeros, where a head says nothing
        return x + 0.3 * noise.normal(size=x.shape).astype(np.float32)

    return jax.tree.map(far, variables)


def images(batch=2, shape=(8, 12, 3), seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(batch, *shape)).astype(np.float32)


VARIANTS = {
    "cls": dict(),
    "mean": dict(pool="mean", positions="sincos"),
    "mean-token": dict(pool="mean", cls_token=True, norm_last=True),
    "map": dict(pool="map"),
    "22b": dict(
        order="parallel", norm="rms", qk_norm="rms", use_bias=False, mlp_bias=True
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_scan_and_remat_change_nothing_and_every_parameter_matters(name):
    net, x = PLAIN.clone(**VARIANTS[name]), images()
    variables = started(net, x)
    want = run(net, variables, x)
    assert want.shape == (2, 5)
    for changes in (dict(scan=True), dict(remat="full")):
        got = run(net.clone(**changes), variables, x)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    grads = jax.jit(jax.grad(lambda v: (run(net, v, x) ** 2).sum()))(variables)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        unseen = "key']['bias" in jax.tree_util.keystr(path)  # softmax does not see it
        assert unseen or np.abs(leaf).max() > 0, path


def test_features_are_what_the_head_reads():
    x = images()
    variables = started(PLAIN, x)
    features = run(PLAIN, variables, x, (("features", True),))
    np.testing.assert_array_equal(run(PLAIN.clone(head=None), variables, x), features)
    head = variables["params"]["classify"]
    logits = features @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(run(PLAIN, variables, x), logits, rtol=1e-5, atol=1e-5)


def test_without_positions_the_mean_does_not_see_the_order_of_patches():
    net, x = PLAIN.clone(pool="mean"), images()
    variables = started(net, x)
    cut = patches.patchify(jnp.asarray(x), 4)[:, ::-1]
    turned = np.asarray(patches.unpatchify(cut, (8, 12), 4))
    assert not np.allclose(run(net, variables, x), run(net, variables, turned))
    variables["params"]["embed"]["positions"] *= 0
    want = run(net, variables, x)
    np.testing.assert_allclose(run(net, variables, turned), want, rtol=1e-4, atol=1e-5)


def test_patches_are_those_of_a_strided_convolution():
    x = jnp.asarray(images())
    net = patches.Patches(4, 7)
    variables = started(net, x)
    kernel, bias = (variables["params"][k] for k in ("kernel", "bias"))
    dimensions = ("NHWC", "HWIO", "NHWC")
    want = jax.lax.conv_general_dilated(
        x, kernel, (4, 4), "VALID", dimension_numbers=dimensions
    )
    got = net.apply(variables, x).reshape(2, 2, 3, 7)
    np.testing.assert_allclose(got, want + bias, rtol=1e-5, atol=1e-5)
    back = patches.unpatchify(patches.patchify(x, 4), (8, 12), 4)
    np.testing.assert_array_equal(back, x)


def test_sincos_positions_tell_rows_from_columns():
    table = patches.sincos((3, 5), 16, front=1)
    assert table.shape == (16, 16)
    assert (table[0] == 0).all()
    assert len(np.unique(table.round(5), axis=0)) == 16
    grid = table[1:].reshape(3, 5, 16)
    assert (grid[:, :, :8] == grid[:1, :, :8]).all(), "half is of the column"
    assert (grid[:, :, 8:] == grid[:, :1, 8:]).all(), "half is of the row"
    with pytest.raises(ValueError, match="divisible by 4, not 6"):
        patches.sincos((3, 5), 6)


class TestResampling:
    def test_the_same_grid_is_untouched_and_constants_stay(self):
        table = jnp.asarray(np.random.default_rng(0).normal(size=(10, 4)))
        np.testing.assert_array_equal(patches.fit(table, 10), table)
        flat = jnp.ones((10, 4)).at[0].set(5)
        for side in (2, 5, 7):
            got = patches.fit(flat, 1 + side**2)
            np.testing.assert_array_equal(got[0], flat[0])
            np.testing.assert_allclose(got[1:], np.ones((side**2, 4)), rtol=1e-6)

    def test_a_smooth_field_is_followed(self):
        def field(rows, columns):
            y, x = (
                (np.arange(n) + 0.5) / n * np.pi for n in (rows, columns)
            )  # centres of cells
            return (np.cos(y)[:, None] * np.cos(x)).reshape(-1, 1)

        got = patches.resample(jnp.asarray(field(12, 16)), (12, 16), (24, 8))
        np.testing.assert_allclose(got, field(24, 8), atol=0.05)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            (11, 17, "11 positions are no square grid"),
            (10, 18, "18 positions are no square grid"),
            (10, 16, "10 positions have 1 token .* 16 have 0"),
        ],
    )
    def test_what_is_no_square_grid_is_refused(self, old, new, message):
        with pytest.raises(ValueError, match=message):
            patches.fit(jnp.zeros((old, 4)), new)
        with pytest.raises(ValueError, match="9 positions are not 1 and a grid of 3x3"):
            patches.resample(jnp.zeros((9, 4)), (3, 3), (2, 2), front=1)


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        ({}, (8, 8, 3), r"must be \[B, 8, 12, 3\], got"),
        (dict(patch=5), (8, 12, 3), "5x5 do not tile an image of 8x12"),
        (dict(pool="clss"), (8, 12, 3), "'clss'; did you mean 'cls'"),
        (dict(positions="rope"), (8, 12, 3), "unknown positions 'rope'"),
        (dict(cls_token=False), (8, 12, 3), "pool 'cls' needs cls_token"),
        (dict(norm_last=True), (8, 12, 3), "norm_last is for pool 'mean'"),
        (dict(heads=5), (8, 12, 3), "width 12 does not divide by 5 heads"),
    ],
)
def test_what_means_nothing_is_named(changes, shape, message):
    with pytest.raises(ValueError, match=message):
        PLAIN.clone(**changes).init(jax.random.key(0), jnp.zeros((1, *shape)))


def test_integers_are_no_images():
    with pytest.raises(ValueError, match="floating, got int32; scale them"):
        PLAIN.init(jax.random.key(0), jnp.zeros((1, 8, 12, 3), jnp.int32))


MASKED = mae.Model(
    **SMALL,
    masked=0.6,
    decoder_width=8,
    decoder_depth=1,
    decoder_heads=2,
    decoder_mlp_width=9,
)


class TestMaskedAutoencoder:
    order = np.array([[0, 3, 5, 1, 2, 4], [4, 1, 2, 0, 5, 3]])

    def test_hidden_pixels_have_no_say_and_visible_ones_have(self):
        x = images()
        variables = started(MASKED, x)
        given = {"image": x, "order": self.order}
        want, hidden = run(MASKED, variables, given)
        np.testing.assert_array_equal(hidden, [[0, 1, 1, 0, 1, 1], [1, 0, 1, 1, 0, 1]])
        cut = np.array(patches.patchify(jnp.asarray(x), 4))
        for chosen, same in ((hidden, True), (~hidden, False)):
            other = np.where(np.asarray(chosen)[..., None], cut + 1, cut)
            image = np.asarray(patches.unpatchify(jnp.asarray(other), (8, 12), 4))
            got, _ = run(MASKED, variables, given | {"image": image})
            assert np.allclose(got, want, atol=1e-6) is same

    def test_the_order_of_visible_patches_does_not_matter(self):
        x = images()
        variables = started(MASKED, x)
        want, hidden = run(MASKED, variables, {"image": x, "order": self.order})
        swapped = self.order[:, [1, 0, 5, 4, 3, 2]]
        got, again = run(MASKED, variables, {"image": x, "order": swapped})
        np.testing.assert_array_equal(hidden, again)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)

    def test_masks_are_addressed_by_the_key_and_fixed_without_one(self):
        x = images(batch=4)
        variables = started(MASKED, x)
        masks = [
            np.asarray(run(MASKED, variables, x, (), key)[1])
            for key in (None, None, *map(jax.random.key, (1, 1, 2)))
        ]
        assert all((mask.sum(1) == 4).all() for mask in masks)
        np.testing.assert_array_equal(masks[0], masks[1])
        np.testing.assert_array_equal(masks[2], masks[3])
        assert (masks[2] != masks[4]).any()

    def test_its_encoder_is_a_vision_transformer(self):
        x = images()
        variables = started(MASKED, x)
        net = vit.Model(
            **SMALL, pool="mean", cls_token=True, positions="sincos", head=None
        )
        own = jax.eval_shape(net.init, jax.random.key(0), x)["params"]
        params = {name: variables["params"][name] for name in own}
        want = run(MASKED, variables, x, (("features", True),))
        got = run(net, {"params": params}, x)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("masked", [0.0, 0.9])
    def test_all_or_nothing_hidden_is_refused(self, masked):
        with pytest.raises(ValueError, match=r"leaves [06] of 6 patches"):
            MASKED.clone(masked=masked).init(jax.random.key(0), images())

    def test_an_order_of_another_length_is_named(self):
        given = {"image": images(), "order": np.zeros((2, 5), int)}
        with pytest.raises(ValueError, match=r"order has shape \(2, 5\)"):
            MASKED.init(jax.random.key(0), given)


WORDS = dict(text_width=8, text_depth=2, text_heads=2, text_mlp_width=9, joint=5)
PAIRED = clip.Model(**SMALL, **WORDS, vocab_size=23, max_length=7)


class TestClip:
    tokens = np.array([[3, 4, 22, 5, 6], [9, 22, 7, 8, 1]])
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]], bool)

    def given(self, **changes):
        return {"image": images(), "tokens": self.tokens, "mask": self.mask} | changes

    def test_what_comes_after_the_end_has_no_say(self):
        net = PAIRED.clone(eos=22)
        variables = started(net, self.given())
        want = run(net, variables, self.given())
        for part in ("image", "text"):
            np.testing.assert_allclose((want[part] ** 2).sum(-1), [1, 1], rtol=1e-5)
        other = np.where(self.mask, self.tokens, 2)
        got = run(net, variables, self.given(tokens=other))
        np.testing.assert_array_equal(got["text"], want["text"])
        # All three ways of finding the end agree on such texts.
        for eos, changes in ((None, {}), ("highest", {}), (22, dict(mask=None))):
            given = {k: v for k, v in self.given(**changes).items() if v is not None}
            got = run(net.clone(eos=eos), variables, given)
            np.testing.assert_allclose(got["text"], want["text"], atol=1e-6)

    def test_the_towers_alone_are_the_same(self):
        variables = started(PAIRED, self.given())
        both = run(PAIRED, variables, self.given())
        image = PAIRED.apply(variables, images(), method="encode_image")
        text = PAIRED.apply(variables, self.given(), method="encode_text")
        np.testing.assert_allclose(image, both["image"], atol=1e-6)
        np.testing.assert_allclose(text, both["text"], atol=1e-6)
        features = run(PAIRED, variables, self.given(), (("features", True),))
        assert features.shape == (2, 12)

    def test_the_temperature_begins_at_7_percent_and_ends_at_1(self):
        variables = jax.jit(PAIRED.init)(jax.random.key(0), self.given())
        scale = run(PAIRED, variables, self.given())["scale"]
        assert scale == pytest.approx(1 / 0.07)
        variables["params"]["logit_scale"] = jnp.asarray(5.0)
        assert run(PAIRED, variables, self.given())["scale"] == pytest.approx(100)

    def test_it_begins_as_the_authors_code(self):
        # openai/CLIP, model.py: initialize_parameters, VisionTransformer
        size = dict(patch=16, width=256, depth=2, heads=2, mlp_width=512)
        words = dict(text_width=128, text_depth=3, text_heads=2, text_mlp_width=256)
        net = clip.Model(**size, **words, image=(256, 256), vocab_size=99)
        given = {"image": jnp.zeros((1, 256, 256, 3)), "tokens": self.tokens}
        begun = jax.jit(net.init)(jax.random.key(0), given)["params"]
        deviations = {
            "vision/embed/patches/kernel": (3 * 16 * 16 * 3) ** -0.5,
            "vision/embed/cls": 256**-0.5,
            "vision/embed/positions": 256**-0.5,
            "text/tokens/embedding": 0.02,
            "text/positions/embedding": 0.01,
            "vision_project/kernel": 256**-0.5,
            "text_project/kernel": 128**-0.5,
        }
        for tower, width, depth in (("vision", 256, 2), ("text", 128, 3)):
            block = f"{tower}/layer1"
            for name in ("query", "key", "value"):
                deviations[f"{block}/attention/{name}/kernel"] = width**-0.5
            deviations[f"{block}/mlp/up/kernel"] = (2 * width) ** -0.5
            for name in ("attention/out", "mlp/down"):
                deviations[f"{block}/{name}/kernel"] = (2 * depth * width) ** -0.5
        for path, want in deviations.items():
            leaf = begun
            for name in path.split("/"):
                leaf = leaf[name]
            rough = 0.15 if path.endswith("cls") else 0.03
            assert float(np.std(leaf)) == pytest.approx(want, rel=rough), path

    def test_above_the_limit_the_gradient_leads_back_only(self):
        slope = jax.grad(lambda x, sign: sign * clip.ceiling(x, 2.0))
        assert slope(1.0, 1.0) == 1
        assert slope(1.0, -1.0) == -1
        assert slope(3.0, 1.0) == 1, "descent lowers it"
        assert slope(3.0, -1.0) == 0, "descent would raise it further"


HEAD = dict(width=6, joint=4)


class TestSimclr:
    def test_the_views_go_through_one_net(self):
        spec = dict(name="vit", classes=5, **SMALL)
        net = simclr.Model(backbone=spec, norm=False, **HEAD)
        views = {"view1": images(seed=1), "view2": images(seed=2)}
        variables = started(net, views)
        assert "classify" not in variables["params"]["backbone"]
        got = run(net, variables, views)
        assert got.shape == (2, 2, 4)
        for i in (1, 2):
            alone = run(net, variables, images(seed=i))
            np.testing.assert_allclose(got[i - 1], alone, atol=1e-6)
        np.testing.assert_allclose((got**2).sum(-1), np.ones((2, 2)), rtol=1e-5)
        features = run(net, variables, views, (("features", True),))
        params = {"params": variables["params"]["backbone"]}
        want = run(PAIRED_BACKBONE, params, views["view1"])
        np.testing.assert_allclose(features, want, rtol=1e-5, atol=1e-6)
        still = views | {"image": images(seed=3)}
        features = run(net, variables, still, (("features", True),))
        want = run(PAIRED_BACKBONE, params, still["image"])
        np.testing.assert_allclose(features, want, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(run(net, variables, still), got)

    @pytest.mark.parametrize(
        ("backbone", "message"),
        [
            (dict(name="resent"), "'resent' is no file of fmjax/models"),
            (dict(name="os.path"), "'os.path' is no file"),
            (dict(name="vit", size="XXL"), "has no size 'XXL' "),
            (dict(name="vit", colour=1), "has no field 'colour'"),
        ],
    )
    def test_a_backbone_that_is_not_there_is_named(self, backbone, message):
        net = simclr.Model(backbone=backbone, **HEAD)
        with pytest.raises(ValueError, match=message):
            net.init(jax.random.key(0), images())


PAIRED_BACKBONE = PLAIN.clone(head=None)
