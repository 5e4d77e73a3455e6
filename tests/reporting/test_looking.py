"""What a net looks at: the very numbers that it computes with, as pictures."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import config, report
from fmjax.layers.attend import attend, weights
from fmjax.models import cnn, resnet, vit
from fmjax.reporting import looking, pictures, run_page
from fmjax.transforms import lora, prefix, split
from tests import runs

SMALL = dict(patch=4, width=8, depth=2, heads=2, mlp_width=8, classes=3)
IMAGES = np.random.default_rng(0).normal(size=(2, 8, 12, 1)).astype(np.float32)


def shaken(net, inputs):
    """Variables whose zeros are noise, so that no branch is idle."""
    variables = net.init(jax.random.key(0), inputs, train=False)
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.default_rng(1)
    noise = [leaf + 0.3 * rng.normal(size=leaf.shape) for leaf in leaves]
    return jax.tree.unflatten(tree, [jnp.float32(x) for x in noise])


def small(**fields):
    return vit.Model(**(SMALL | dict(image=(8, 12), channels=1) | fields))


class TestWeights:
    def test_are_those_that_attend_weighs_by(self):
        key = jax.random.key(0)
        query, other, value = (
            jax.random.normal(k, (2, 5, heads, 3))
            for k, heads in zip(jax.random.split(key, 3), (4, 2, 2), strict=True)
        )
        bias = jnp.arange(25.0).reshape(1, 1, 5, 5) / 9
        given = dict(bias=bias, causal=True, scale=0.7)
        found = weights(query, other, **given)
        np.testing.assert_allclose(found.sum(-1), 1.0, rtol=1e-6)
        assert float(jnp.triu(found, 1).max()) == 0.0
        out = jnp.einsum("bhts,bshk->bthk", found, value.repeat(2, axis=2))
        np.testing.assert_allclose(
            out, attend(query, other, value, **given), rtol=1e-5, atol=1e-6
        )


class TestAttention:
    @pytest.mark.parametrize(
        "fields",
        [
            dict(pool="cls"),
            dict(pool="mean"),
            dict(pool="mean", cls_token=True),
            dict(qk_norm="rms"),
            dict(scan=True),
        ],
        ids=str,
    )
    def test_is_what_the_output_is_made_with(self, fields):
        """The last block's, by hand from its own queries and keys."""
        net = small(**fields)
        variables = shaken(net, IMAGES)
        seen = looking.look(net, variables, IMAGES)
        (maps,) = seen.attention.values()
        assert maps.shape == (2, 2, 2, 2, 3)
        front = net.front
        total = maps.sum((-1, -2))
        assert (total < 1 - 1e-3).all() if front else np.allclose(total, 1, atol=1e-5)
        plain = net.clone(scan=False)
        _, kept = plain.apply(
            variables, IMAGES, train=False, capture_intermediates=True
        )
        last = kept["intermediates"]["layer1"]["attention"]
        name = "{}_norm" if net.qk_norm else "{}"
        query, key = (
            np.asarray(last[name.format(n)]["__call__"][0]).reshape(2, -1, 2, 4)
            for n in ("query", "key")
        )
        scores = np.einsum("bthk,bshk->bhts", query, key) / 2
        by_hand = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        token = net.pool == "cls"
        row = by_hand[:, :, 0] if token else by_hand[:, :, front:].mean(2)
        np.testing.assert_allclose(
            maps[1].reshape(2, 2, 6), row[..., front:], rtol=1e-4, atol=1e-6
        )

    def test_of_a_transformed_net_is_with_its_changes(self):
        net = lora.transform(small(), target="query", rank=2)
        variables = shaken(net, IMAGES)
        seen = looking.look(net, variables, IMAGES).attention[""]
        _, merged = lora.merge(net, variables["params"])
        own = looking.look(small(), {"params": merged}, IMAGES).attention[""]
        np.testing.assert_allclose(seen, own, rtol=1e-4, atol=1e-6)
        bare, _ = split(net, variables["params"])
        bare = looking.look(net.net, {"params": bare}, IMAGES)
        assert np.abs(bare.attention[""] - own).max() > 1e-3

    def test_is_left_out_where_more_than_patches_is_seen(self):
        after = prefix.transform(small(), length=2)
        seen = looking.look(after, shaken(after, IMAGES), IMAGES)
        assert seen.attention == {}
        assert seen.name == "embed/patches"


class TestFilters:
    @pytest.mark.parametrize(
        ("net", "name", "shape"),
        [
            (small(), "embed/patches", (4, 4, 1, 8)),
            (cnn.Model(channels=(5,)), "conv0", (3, 3, 1, 5)),
            (
                resnet.Model(depths=(1,), width=4, stem="small"),
                "stem/conv",
                (3, 3, 1, 4),
            ),
        ],
    )
    def test_are_the_first_layer_s(self, net, name, shape):
        variables = net.init(jax.random.key(0), IMAGES, train=False)
        seen = looking.look(net, variables, IMAGES)
        assert (seen.name, seen.filters.shape) == (name, shape)
        kernel = variables["params"]
        for part in name.split("/"):
            kernel = kernel[part]
        np.testing.assert_array_equal(seen.filters, kernel["kernel"])

    def test_are_grey_where_zero_and_white_or_black_where_largest(self):
        kernel = np.zeros((2, 2, 1, 2), np.float32)
        kernel[0, 1, 0, 0], kernel[1, 1, 0, 0], kernel[1, 0, 0, 1] = 2.0, -1.0, -0.1
        first, second = pictures.filters(kernel)
        np.testing.assert_array_equal(first[..., 0], [[128, 255], [128, 64]])
        np.testing.assert_array_equal(second[..., 0], [[128, 128], [0, 128]])


def test_heat_darkens_what_is_not_attended_to():
    image = np.full((4, 6, 1), 200, np.uint8)
    drawn = pictures.heat(image, np.array([[0.0, 0.5, 0.25], [0.0, 0.0, 0.0]]))
    assert drawn.shape == (4, 6, 3)
    assert (drawn[:2, :2] == 40).all()
    assert (drawn[2:] == 40).all()
    np.testing.assert_array_equal(drawn[0, 2], [215, 180, 100])
    with pytest.raises(ValueError, match="2x4 weights don't tile an image of 4x6"):
        pictures.heat(image, np.ones((2, 4)))


@pytest.mark.parametrize(
    ("name", "filters", "towers"),
    [
        ("clip/pairs", "vision/embed/patches", {"vision": (1, 4, 2, 2, 2)}),
        ("mae/imagenet", "embed/patches", {"": (1, 4, 2, 4, 4)}),
        ("simclr/imagenet", "backbone/stem/conv", {}),
    ],
)
def test_towers_of_other_nets_are_found(name, filters, towers):
    settings = runs.tiny(f"configs/{name}.py")
    parts = config.assemble(settings | {"parallel": None})
    rows = parts.data("train").rows
    examples = [parts.inputs(rows[i], None)["inputs"] for i in range(4)]
    batch = jax.tree.map(lambda *x: np.stack(x), *examples)
    variables = parts.net.init(jax.random.key(0), batch, train=False)
    seen = looking.look(parts.net, variables, batch)
    assert seen.name == filters
    assert {path: maps.shape for path, maps in seen.attention.items()} == towers
    blocks = looking.blocks_of(seen, looking.images_of(batch))
    assert len(blocks) == 1 + len(towers)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit")
    settings = runs.tiny("configs/vit/fashion_mnist.py", steps=1)
    runs.run(folder, settings | {"parallel": {"how": "jit", "devices": 1}})
    return folder


class TestReport:
    def test_of_a_run_of_images_shows_them(self, trained):
        html = run_page.write(trained, report.read(trained)).read_text("utf-8")
        assert "Filters of embed/patches, 14x14" in html
        assert "Attention of the last of 1 layers" in html
        assert html.count("data:image/png") == 2

    def test_says_why_it_can_t(self, trained, tmp_path):
        for name in ("config.json", "metrics.jsonl"):
            shutil.copy(trained / name, tmp_path)
        html = run_page.write(tmp_path, report.read(tmp_path)).read_text("utf-8")
        assert "Not drawn" in html
        assert "holds no trained weights" in html
        assert "data:image/png" not in html
