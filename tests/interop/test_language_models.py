"""GPT-2, T5 and Marian in transformers' format, as tests/interop/test_bert.py.

The numbers under tests/golden/lm were computed by transformers; `python -m
tests.golden.make` makes them anew. test_parity.py holds more cases against the live
reference.
"""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fmjax import interop
from fmjax.interop import safetensors
from fmjax.models import gpt, t5, transformer
from tests.golden import bert_cases, lm_cases

GOLDEN = pathlib.Path(lm_cases.__file__).parent / "lm"
NAMES = [name for name, case in lm_cases.CASES.items() if case.golden]


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_committed_numbers_of_transformers(name):
    case = lm_cases.CASES[name]
    stored = load_file(GOLDEN / name / "expected.safetensors")
    given = {k: v for k, v in stored.items() if k.startswith("input/")}
    for key, value in lm_cases.inputs(case, batch=bert_cases.ROWS).items():
        np.testing.assert_array_equal(given[key], value)
    expected = {k: v for k, v in stored.items() if k not in given}
    loaded = interop.read(GOLDEN / name)
    assert loaded.report.missing == loaded.report.unknown == ()
    assert loaded.report.unused == loaded.report.settings == ()
    got = lm_cases.ours(case, loaded.net, loaded.variables, given)
    worst = bert_cases.differences(expected, got)
    bert_cases.assert_within_bars(case.width, worst)


@pytest.mark.parametrize("name", NAMES)
def test_saved_names_are_those_the_reference_wrote(name, tmp_path):
    interop.save(tmp_path, *interop.load(GOLDEN / name))
    theirs = load_file(GOLDEN / name / "model.safetensors")
    ours = load_file(tmp_path / "model.safetensors")
    assert set(ours) == set(theirs)
    for key, tensor in theirs.items():
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


def without_prefix(tensors):
    for name in list(tensors):
        tensors[name.removeprefix("transformer.")] = tensors.pop(name)


def output_alone(tensors):
    tensors["lm_head.weight"] = tensors.pop("transformer.wte.weight")


def output_too(tensors):
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].copy()


def masks(tensors):
    for i in range(2):
        name = f"transformer.h.{i}.attn."
        tensors[name + "bias"] = np.tri(12, dtype=np.uint8)[None, None]
        tensors[name + "masked_bias"] = np.array(-1e4, np.float32)


def t5_tables(tensors):
    table = tensors.pop("shared.weight")
    for name in ("encoder.embed_tokens", "decoder.embed_tokens", "lm_head"):
        tensors[f"{name}.weight"] = table.copy()
    first = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    tensors[first] = np.ones((32, 3), np.float32)


def marian_tables(tensors):
    table = tensors.pop("model.shared.weight")
    sines = np.asarray(transformer.sinusoids(np.arange(12), 12, "halves"))
    for side in ("encoder", "decoder"):
        tensors[f"model.{side}.embed_tokens.weight"] = table.copy()
        tensors[f"model.{side}.embed_positions.weight"] = sines.copy()
    tensors["lm_head.weight"] = table.copy()


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("gpt2", without_prefix),
        ("gpt2", output_alone),
        ("gpt2", output_too),
        ("gpt2", masks),
        ("t5", t5_tables),
        ("marian", marian_tables),
    ],
)
def test_every_name_that_writers_use_is_read(name, edit, checkpoint):
    _, expected = interop.load(GOLDEN / name)
    assert equal(interop.load(checkpoint(name, edit))[1], expected)


BARE = {
    "gpt2": ("GPT2Model", "transformer."),
    "t5": ("T5Model", ""),
    "marian": ("MarianModel", "model."),
}


@pytest.mark.parametrize("name", BARE)
def test_what_is_read_without_a_head_can_be_written_so(name, checkpoint, tmp_path):
    kind, prefix = BARE[name]

    def edit(tensors):
        tensors.pop("final_logits_bias", None)
        for old in list(tensors):
            tensors[old.removeprefix(prefix)] = tensors.pop(old)

    folder = checkpoint(name, edit, architectures=[kind])
    net, variables = interop.load(folder)
    interop.save(tmp_path / "a", net, variables, settings={"architectures": [kind]})
    ours, theirs = (
        load_file(f / "model.safetensors") for f in (tmp_path / "a", folder)
    )
    for side in ("encoder", "decoder") if name == "marian" else ():
        made = ours.pop(f"{side}.embed_positions.weight")
        sines = transformer.sinusoids(np.arange(12), 12, "halves")
        np.testing.assert_allclose(made, sines, atol=1e-6)
    assert set(ours) == set(theirs)
    for tensor, value in theirs.items():
        np.testing.assert_array_equal(ours[tensor], value)
    config = json.loads((tmp_path / "a/config.json").read_text())
    assert config["architectures"] == [kind]
    again = interop.load(tmp_path / "a")
    assert again[0] == net
    assert equal(again[1], variables)


@pytest.mark.parametrize(
    ("name", "kind", "lost"),
    [
        ("t5-1.1", "T5Model", "lm_head.weight"),
        ("marian", "MarianModel", "final_logits_bias"),
    ],
)
def test_a_head_is_not_lost_in_writing(name, kind, lost, tmp_path):
    net, variables = interop.load(GOLDEN / name)
    said = {"architectures": [kind]}
    with pytest.raises(ValueError, match=f"{kind} has no {lost}, which this net has"):
        interop.save(tmp_path / "a", net, variables, settings=said)
    assert not (tmp_path / "a").exists()


def test_marian_s_bias_is_zero_where_the_file_lacks_it(checkpoint):
    folder = checkpoint("marian", lambda tensors: tensors.pop("final_logits_bias"))
    assert not interop.load(folder)[1]["params"]["bias"].any()


def test_a_marian_of_the_first_files_is_read(checkpoint):
    first = dict(extra_pos_embeddings=31, add_bias_logits=False, num_hidden_layers=2)
    found = interop.read(checkpoint("marian", **first))
    assert equal(found.variables, interop.load(GOLDEN / "marian")[1])
    assert found.report.settings == ()


def test_an_old_t5_1_1_says_by_its_config_that_it_is_not_tied(checkpoint):
    _, expected = interop.load(GOLDEN / "t5-1.1")
    old = {"tie_word_embeddings": False}
    folder = checkpoint("t5-1.1", **old)
    config = json.loads((folder / "config.json").read_text())
    del config["scale_decoder_outputs"]
    (folder / "config.json").write_text(json.dumps(config))
    net, variables = interop.load(folder)
    assert (net.tied, net.scale_output) == (False, None)
    assert equal(variables, expected)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights"),
        (*("gpt2", {"scale_attn_by_inverse_layer_idx": True}), "inverse_layer_idx"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
        ("gpt2", {"n_inner": 0}, "n_inner must be"),
        ("gpt2", {"n_inner": 7}, "asks for"),
        ("gpt2", {"tie_word_embeddings": "yes"}, "must be true or false"),
        ("gpt2", {"activation_function": "gelu_nwe"}, "did you mean 'gelu_new'"),
        ("gpt2", {"n_head": 5}, "width 12 does not divide by 5 heads"),
        ("t5", {"is_encoder_decoder": False}, "is_encoder_decoder"),
        ("t5", {"feed_forward_proj": "doubly-gelu"}, "feed_forward_proj"),
        ("t5", {"feed_forward_proj": 3}, "feed_forward_proj"),
        ("t5", {"feed_forward_proj": "gated-gelu"}, "dense_act_fn = 'relu'"),
        ("t5", {"dense_act_fn": "silu"}, "dense_act_fn = 'silu'"),
        ("t5", {"is_gated_act": True}, "is_gated_act = True"),
        ("t5", {"num_decoder_layers": "2"}, "num_decoder_layers"),
        ("t5", {"architectures": ["T5EncoderModel"]}, "names none of"),
        ("marian", {"normalize_before": True}, "normalize_before"),
        ("marian", {"decoder_vocab_size": 30}, "decoder_vocab_size"),
        ("marian", {"tie_word_embeddings": False}, "tie_word_embeddings"),
        (
            *("marian", {"share_encoder_decoder_embeddings": False}),
            "share_encoder_decoder_embeddings",
        ),
        ("marian", {"decoder_layerdrop": 0.1}, "decoder_layerdrop"),
        ("marian", {"model_type": "bart"}, "'bart' is not known"),
    ],
)
def test_other_mathematics_is_refused(name, settings, message, checkpoint):
    with pytest.raises(ValueError, match=message):
        interop.load(checkpoint(name, **settings))


@pytest.mark.parametrize(
    ("name", "alias", "key"),
    [
        (name, *pair)
        for name in ("gpt2", "t5", "marian")
        for pair in lm_cases.CASES[name].family.ALIASES.items()
    ],
)
def test_a_second_name_of_a_key_is_followed(name, alias, key, checkpoint):
    file = checkpoint(name) / "config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {alias: settings[key]}))
    assert interop.read(file.parent).report.settings == ()
    own = settings.pop(key)
    file.write_text(json.dumps(settings | {alias: own}))
    loaded = interop.read(file.parent)
    assert loaded.net == interop.load(GOLDEN / name)[0]
    assert loaded.report.settings == ()
    with pytest.raises(ValueError, match=f"{alias} = 4, .* another name of {key}"):
        interop.load(checkpoint(name, **{alias: 4, key: own}))


def test_buffers_that_are_not_the_usual_are_refused(checkpoint):
    def all_seen(tensors):
        tensors["transformer.h.0.attn.bias"] = np.ones((1, 1, 12, 12), np.uint8)

    with pytest.raises(ValueError, match="no causal mask"):
        interop.load(checkpoint("gpt2", all_seen))

    def others(tensors):
        tensors["model.encoder.embed_positions.weight"] = np.ones((12, 12), np.float32)

    with pytest.raises(ValueError, match="not Marian's sinusoids"):
        interop.load(checkpoint("marian", others))


def test_what_is_unknown_or_untied_is_named(checkpoint):
    def edit(tensors):
        tensors["transformer.adapter.weight"] = np.ones((2, 2), np.float32)
        tensors["score.weight"] = np.ones((2, 12), np.float32)

    folder = checkpoint("gpt2", edit, invented=1)
    with pytest.raises(
        ValueError, match=r"does not know: transformer\.adapter\.weight"
    ):
        interop.load(folder)
    report = interop.read(folder).report
    assert report.unused == ("score.weight",)
    assert report.settings == ("invented",)

    def other_table(tensors):
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"] + 1

    with pytest.raises(ValueError, match="two names of one tied tensor"):
        interop.load(checkpoint("gpt2", other_table))
    net, variables = interop.load(
        checkpoint("gpt2", other_table, tie_word_embeddings=False)
    )
    assert not net.tied
    kernel = variables["params"]["head"]["kernel"]
    table = variables["params"]["embed"]["tokens"]["embedding"]
    np.testing.assert_array_equal(kernel, table.T + 1)
    with pytest.raises(ValueError, match="leave them out"):
        interop.load(GOLDEN / "gpt2", head="classify")


SMALL = dict(vocab_size=23, width=12, depth=2, heads=3, mlp_width=20, max_length=10)
HALVES = dict(layout="halves", output_bias=True)
NETS = {
    "gpt": gpt.Model(**SMALL),
    "gpt-untied": gpt.Model(**SMALL, tied=False, activation="relu", dropout=0.0),
    "t5": t5.Model(**SMALL, head_width=5, decoder_depth=1),
    "t5-1.1": t5.Model(
        **SMALL, decoder_depth=2, gated=True, activation="gelu_tanh", tied=False
    ),
    "t5-unscaled": t5.Model(
        **SMALL, decoder_depth=2, gated=True, activation="silu", scale_output=False
    ),
    "transformer": transformer.Model(
        **SMALL, **HALVES, decoder_depth=1, decoder_heads=2, decoder_mlp_width=7
    ),
}


def started(net):
    tokens = np.zeros((1, 1), np.int32)
    inputs = {"tokens": tokens, "decoder_tokens": tokens}
    return jax.jit(net.init)(jax.random.key(1), inputs)


@pytest.mark.parametrize("name", NETS)
def test_saved_is_loaded_back_equal_whole_or_in_shards(name, tmp_path):
    net, variables = NETS[name], started(NETS[name])
    interop.save(tmp_path, net, variables, settings={"eos_token_id": 5})
    again, back = interop.load(tmp_path)
    assert again == net
    assert equal(variables, back)
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == 5

    whole = load_file(tmp_path / "model.safetensors")
    interop.save(tmp_path, net, variables, shard_bytes=2000)
    assert not (tmp_path / "model.safetensors").exists()
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    sizes = [sum(t.nbytes for t in load_file(shard).values()) for shard in shards]
    for size, shard in zip(sizes, shards, strict=True):
        assert size <= 2000 or len(load_file(shard)) == 1
    index = json.loads((tmp_path / safetensors.INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(sizes)
    assert set(index["weight_map"]) == set(whole)
    assert equal(interop.load(tmp_path)[1], back)

    interop.save(tmp_path, net, variables)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (transformer.Model(**SMALL, eps=1e-6), "eps=1e-06 has no public format"),
        (t5.Model(**SMALL, gated=True, activation="gelu"), "exact GELU"),
        (t5.Model(**SMALL, tied=False, scale_output=True), "no public format"),
    ],
)
def test_what_has_no_public_word_is_refused(net, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        interop.save(tmp_path / "new", net, started(net))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("change", [{}, {"width": 15}, {"layout": "halves"}])
def test_the_paper_s_transformer_is_written_as_the_same_function(change, tmp_path):
    net = transformer.Model(**SMALL | change)
    variables = jax.tree.map(
        lambda x: x + np.random.default_rng(x.size).normal(0, 0.3, x.shape),
        started(net),
    )
    interop.save(tmp_path, net, variables)
    again, back = interop.load(tmp_path)
    assert (again.layout, again.output_bias) == ("halves", True)
    random = np.random.default_rng(0)
    inputs = {
        "tokens": random.integers(0, 23, (2, 7), np.int32),
        "mask": np.arange(7) < np.array([[7], [4]]),
        "decoder_tokens": random.integers(0, 23, (2, 5), np.int32),
    }
    want, have = (
        jax.jit(one.apply)(weights, inputs)
        for one, weights in ((net, variables), (again, back))
    )
    np.testing.assert_allclose(have, want, atol=2e-5)


@pytest.mark.parametrize("dtype", interop.DTYPES)
def test_saved_in_another_dtype_is_read_back_rounded(dtype, tmp_path):
    net, variables = NETS["gpt"], started(NETS["gpt"])
    interop.save(tmp_path, net, variables, dtype=dtype)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == dtype
    _, back = interop.load(tmp_path)
    rounded = jax.tree.map(lambda x: x.astype(dtype).astype("float32"), variables)
    assert equal(back, rounded)
    big = jax.tree.map(lambda x: x + 1e5, variables)
    if dtype == "float16":
        with pytest.raises(ValueError, match=r"1e\+05, too large for float16"):
            interop.save(tmp_path / "new", net, big, dtype=dtype)
    with pytest.raises(ValueError, match="dtype='int8'; it is float32"):
        interop.save(tmp_path / "new", net, variables, dtype="int8")
    assert not (tmp_path / "new").exists()
