"""ViT, MAE and CLIP in transformers' and timm's formats, as tests/interop/test_bert.py.

The numbers under tests/golden/vision were computed by those libraries; `python -m
tests.golden.make` makes them anew. test_vision_parity.py holds more cases against the
live references.
"""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fmjax import interop
from fmjax.data import tokenizer, vocabulary
from fmjax.data.inputs import image_text
from fmjax.interop import tokenizer_folder
from fmjax.models import clip, mae, vit
from tests.golden import bert_cases, vision_cases

GOLDEN = pathlib.Path(vision_cases.__file__).parent / "vision"
NAMES = [name for name, case in vision_cases.CASES.items() if case.golden]


def library(name):
    return "timm" if name.startswith("timm") else "transformers"


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_committed_numbers_of_the_reference(name):
    case = vision_cases.CASES[name]
    stored = load_file(GOLDEN / name / "expected.safetensors")
    given = {k: v for k, v in stored.items() if k.startswith("input/")}
    for key, value in vision_cases.inputs(case, batch=bert_cases.ROWS).items():
        np.testing.assert_array_equal(given[key], value)
    expected = {k: v for k, v in stored.items() if k not in given}
    loaded = interop.read(GOLDEN / name)
    assert loaded.report.missing == loaded.report.unknown == ()
    assert loaded.report.unused == loaded.report.settings == ()
    got = vision_cases.ours(case, loaded.net, loaded.variables, given)
    worst = bert_cases.differences(expected, got)
    bert_cases.assert_within_bars(case.width, worst)


@pytest.mark.parametrize("name", NAMES)
def test_saved_names_are_those_the_reference_wrote(name, tmp_path):
    interop.save(tmp_path, *interop.load(GOLDEN / name), library=library(name))
    theirs = load_file(GOLDEN / name / "model.safetensors")
    ours = load_file(tmp_path / "model.safetensors")
    assert set(ours) == set(theirs)
    for key, tensor in theirs.items():
        if "pos" in key and name == "mae":  # fixed, and computed in float32 there
            np.testing.assert_allclose(ours[key], tensor, rtol=0, atol=1e-6)
        else:
            np.testing.assert_array_equal(ours[key], tensor)


def equal(a, b):
    same = jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b)
    return all(jax.tree.leaves(same))


@pytest.fixture
def checkpoint(tmp_path):
    """A copy to spoil: `checkpoint(name, edit, **settings)` returns its folder."""

    def copy(name, edit=lambda tensors: None, **settings):
        folder = tmp_path / name
        shutil.copytree(GOLDEN / name, folder, dirs_exist_ok=True)
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text()) | settings
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return copy


IN_MEMORY = (
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)


def in_memory(tensors):
    for name in list(tensors):
        new = name.replace("vit.encoder.layer.", "vit.layers.")
        new = new.replace("decoder_encoder.layer.", "decoder_layers.")
        for old, later in IN_MEMORY:
            new = new.replace(old, later)
        tensors[new] = tensors.pop(name)


def bare(tensors):
    for name in list(tensors):
        tensors[name.removeprefix("vit.")] = tensors.pop(name)


def hub(tensors):
    for name in list(tensors):
        new = name.replace("decoder_encoder.layer.", "decoder_layers.")
        tensors[new] = tensors.pop(name)


def numbers(tensors):
    for tower, count in (("vision_model", 5), ("text_model", 9)):
        name = f"{tower}.embeddings.position_ids"
        tensors[name] = np.arange(count)[None]


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("vit", in_memory),
        ("vit", bare),
        ("mae", hub),
        ("mae", in_memory),
        ("clip", numbers),
    ],
)
def test_every_name_that_writers_use_is_read(name, edit, checkpoint):
    _, expected = interop.load(GOLDEN / name)
    assert equal(interop.load(checkpoint(name, edit))[1], expected)


def other_positions(tensors):
    tensors["vit.embeddings.position_embeddings"] *= 0


def other_numbers(tensors):
    tensors["text_model.embeddings.position_ids"] = np.arange(9)[None, ::-1]


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("mae", other_positions, "no sin-cos table: other positions"),
        ("clip", other_numbers, "not 0, 1, 2"),
    ],
)
def test_buffers_that_are_not_the_usual_are_refused(name, edit, message, checkpoint):
    with pytest.raises(ValueError, match=message):
        interop.load(checkpoint(name, lambda tensors: edit(tensors)))


def arguments(**changes):
    config = json.loads((GOLDEN / "timm" / "config.json").read_text())
    return {"model_args": config["model_args"] | changes}


TEXT = vision_cases.CASES["clip"].config()["text_config"]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("vit", {"qkv_bias": False}, "qkv_bias = False is not implemented"),
        ("vit", {"image_size": "8"}, "image_size must be a whole number"),
        ("vit", {"image_size": 9}, "4x4 do not tile an image of 9x9"),
        ("vit", {"image_size": 16}, "position_embeddings has shape"),
        ("vit", {"hidden_act": "gleu"}, "did you mean 'gelu'"),
        ("mae", {"mask_ratio": 1.0}, "mask_ratio must be a number in"),
        ("clip", {"text_config": [1]}, "text_config must be an object"),
        ("clip", {"text_config_dict": [1]}, "text_config_dict must be an object"),
        ("clip", {"text_config": TEXT | {"eos_token_id": None}}, "must be an id"),
        ("clip", {"text_config": TEXT | {"hidden_act": "gelu"}}, "'gelu' for texts"),
        ("timm", {"architecture": "vit_base_patch16_clip_224"}, "not implemented"),
        ("timm", {"architecture": "beit_base_patch16_224"}, "known: vit_"),
        ("timm", arguments(reg_tokens=4), "reg_tokens = 4 is not implemented"),
        ("timm", arguments(block_fn="x"), "model_args.block_fn is not known"),
        ("timm", arguments(global_pool="max"), "global_pool = 'max'"),
        ("timm", arguments(mlp_ratio="4"), "mlp_ratio must be a number"),
    ],
)
def test_other_mathematics_is_refused(name, settings, message, checkpoint):
    with pytest.raises(ValueError, match=message):
        interop.load(checkpoint(name, **settings))


def test_what_old_files_say_of_clip_s_towers_beside_wins_as_in_the_reference(
    checkpoint,
):
    config = json.loads((GOLDEN / "clip" / "config.json").read_text())
    towers = ("text_config", "vision_config")
    beside = {f"{k}_dict": config[k] | {"hidden_act": "gelu", "x": 1} for k in towers}
    loaded = interop.read(checkpoint("clip", **beside))
    assert (loaded.net.activation, loaded.net.depth) == ("gelu", 2)
    assert loaded.report.settings == ("text_config_dict.x", "vision_config_dict.x")
    none = interop.read(
        checkpoint("clip", text_config_dict=None, vision_config_dict=None)
    )
    assert none.net == interop.read(GOLDEN / "clip").net
    assert none.report.settings == ()


SMALL = dict(patch=4, width=12, depth=1, heads=3, mlp_width=20, image=(8, 12))
TEXTS = dict(text_width=8, text_depth=2, text_heads=2, text_mlp_width=9, joint=5)
TEXTS |= dict(vocab_size=23, max_length=7)
NETS = {
    "vit": vit.Model(**SMALL, classes=5, channels=1),
    "vit-bare": vit.Model(**SMALL, head=None, activation="relu", dropout=0.1),
    "mae": mae.Model(
        **SMALL | dict(image=(12, 12)),
        decoder_width=8,
        decoder_depth=2,
        decoder_heads=2,
        decoder_mlp_width=9,
    ),
    "clip": clip.Model(**SMALL, **TEXTS, eos=22, activation="gelu"),
    "clip-highest": clip.Model(**SMALL, **TEXTS, eos="highest"),
    "timm": vit.Model(**SMALL | dict(mlp_width=29), classes=5, pool="map"),
    "timm-mean": vit.Model(**SMALL, pool="mean", norm_last=True, qk_norm="layer"),
    "timm-bare": vit.Model(**SMALL, head=None, cls_token=True, pool="map"),
}


def started(net):
    image = np.zeros((1, *net.image, net.channels), np.float32)
    both = {"image": image, "tokens": np.zeros((1, 2), np.int32)}
    given = both if isinstance(net, clip.Model) else image
    return jax.tree.map(np.asarray, jax.jit(net.init)(jax.random.key(1), given))


@pytest.mark.parametrize("name", NETS)
def test_what_is_saved_is_loaded_with_the_same_fields(name, tmp_path):
    net = NETS[name]
    variables = started(net)
    interop.save(tmp_path, net, variables, library=library(name))
    loaded = interop.read(tmp_path)
    assert loaded.report.unknown == loaded.report.settings == ()
    assert equal(loaded.variables, variables)
    defaults = {"cls_token": bool(getattr(net, "front", 0))}
    if isinstance(net, vit.Model) and name.startswith("timm"):
        assert loaded.net.clone(**defaults) == net.clone(**defaults)
    elif isinstance(net, clip.Model):
        assert loaded.net.clone(temperature=0.07) == net
        assert loaded.net.temperature == pytest.approx(net.temperature)
    else:
        assert loaded.net == net


def test_fixed_positions_are_written_as_a_table(tmp_path):
    net = NETS["vit"].clone(positions="sincos")
    variables = started(net)
    interop.save(tmp_path, net, variables)
    other, loaded = interop.load(tmp_path)
    assert other.positions == "learned"
    images = np.random.default_rng(0).normal(size=(2, 8, 12, 1)).astype(np.float32)
    want = net.clone(head=None).apply(variables, images)
    got = other.clone(head=None).apply(loaded, images)
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (dict(pool="map"), "transformers", "no pool='map'.*library='timm'"),
        (dict(order="parallel"), "timm", "no order='parallel'"),
        (dict(pool="mean"), "timm", "no norm_last=False"),
        (dict(eps=1e-5), "timm", "no eps=1e-05"),
        ({}, "keras", "library='keras' has no format for vit"),
    ],
)
def test_what_a_library_can_not_express_is_not_written(
    changes, kind, message, tmp_path
):
    net = NETS["vit"].clone(**changes)
    with pytest.raises(ValueError, match=message):
        interop.save(tmp_path, net, started(net), library=kind)
    assert not (tmp_path / "config.json").exists()


def test_a_masked_autoencoder_of_long_images_is_not_written(tmp_path):
    # transformers' own fixed positions are of a square, and such a file is refused.
    net = NETS["mae"].clone(image=(8, 12))
    with pytest.raises(ValueError, match=r"square images only.* 2x3 patches"):
        interop.save(tmp_path, net, started(net))
    assert not list(tmp_path.glob("*"))


def test_positions_follow_another_size_of_image_where_asked(tmp_path):
    from fmjax import config
    from fmjax.layers import patches
    from fmjax.start import init_from as initial

    net = vit.Model(**SMALL | dict(image=(8, 8)), classes=5)
    variables = started(net)
    interop.save(tmp_path, net, variables)
    large = net.clone(image=(12, 12))
    larger = jax.tree.map(jax.numpy.asarray, started(large)["params"])
    asked = dict(path=str(tmp_path), missing="classify")
    with pytest.raises(
        config.ConfigError, match=r"positions is \(5, 12\) .*\(10, 12\)"
    ):
        initial.init_from(larger, large, **asked)
    found, report = initial.init_from(larger, large, **asked, resample="positions$")
    assert report["fresh"] == ["classify/bias", "classify/kernel"]
    own = variables["params"]
    want = patches.fit(own["embed"]["positions"], 10)
    np.testing.assert_allclose(found["embed"]["positions"], want, atol=1e-6)
    assert equal(found["layer0"], own["layer0"])
    # Sixteen patches are no square here, though there is one of so many.
    long = net.clone(image=(8, 32))
    longer = jax.tree.map(jax.numpy.asarray, started(long)["params"])
    with pytest.raises(
        config.ConfigError, match=r"init_from\.resample, .* 2x8 patches are no square"
    ):
        initial.init_from(longer, long, **asked, resample="positions$")
    with pytest.raises(
        config.ConfigError, match=r"init_from\.resample, .*bias: 12 pos"
    ):
        initial.init_from(larger, large, **asked, resample="bias$")


def test_a_text_without_an_end_has_no_public_pooling(tmp_path):
    net = NETS["clip"].clone(eos=None)
    with pytest.raises(ValueError, match="pools a text at an id"):
        interop.save(tmp_path, net, started(net))


def test_timm_s_names_of_sizes_are_those_of_the_table():
    from fmjax.interop import vit_timm

    sizes = ("Ti/16", "S/16", "B/16", "L/16", "H/14", "g/14", "G/14")
    for theirs, ours in zip(vit_timm.NAMES, sizes, strict=True):
        size = vit.SIZES[ours]
        name = f"vit_{theirs}_patch{size['patch']}_224.augreg_in21k"
        fields = vit_timm.fields({"architecture": name}, "classify", None)
        net = vit.Model(**fields)
        assert net.clone(cls_token=None) == vit.Model(**size)


@pytest.mark.parametrize("kind", ["words", "wordpiece", "bpe"])
def test_a_clip_s_tokenizer_is_written_as_its_inputs_make_texts(kind, tmp_path):
    texts = ["a red lamp", "a blue table"] * 3
    made = vocabulary.train(kind, texts, 300, tmp_path / "made.json")
    ids = tokenizer_folder.ids(made, "clip")
    tokenizer_folder.write(tmp_path, made, kind="clip", max_length=12)
    row = {"image": np.zeros((4, 4, 3), np.uint8), "text": "a red table"}
    feed = image_text.make(tokenizer=made, length=12)(row, None)["inputs"]
    written = tokenizer.load(tmp_path).encode(row["text"]).ids
    assert written == feed["tokens"][feed["mask"]].tolist()
    assert feed["tokens"][-1] == ids["pad_token_id"]
