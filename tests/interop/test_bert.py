"""BERT in transformers' format: committed numbers, names, reports, refusals.

The numbers under tests/golden/bert were computed by transformers; `python -m
tests.golden.make` makes them anew. test_bert_parity.py holds more cases against the
live reference.
"""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fmjax import interop
from fmjax.data import vocabulary
from fmjax.interop import bert
from fmjax.interop import settings as settings_of
from fmjax.models.bert import Model
from tests.golden import bert_cases

GOLDEN = pathlib.Path(bert_cases.__file__).parent / "bert"


@pytest.mark.parametrize("name", [n for n, c in bert_cases.CASES.items() if c.golden])
def test_equals_the_committed_numbers_of_transformers(name):
    case = bert_cases.CASES[name]
    stored = load_file(GOLDEN / name / "expected.safetensors")
    given = {k: v for k, v in stored.items() if k.startswith("input/")}
    expected = {k: v for k, v in stored.items() if k not in given}
    loaded = interop.read(GOLDEN / name)
    assert loaded.report.missing == loaded.report.unknown == ()
    assert loaded.report.unused == loaded.report.settings == ()
    got = bert_cases.ours(loaded.net, loaded.variables, given)
    bert_cases.assert_within_bars(
        case.hidden_size, bert_cases.differences(expected, got)
    )


def test_the_committed_inputs_are_those_of_the_cases():
    for name, case in bert_cases.CASES.items():
        if case.golden:
            stored = load_file(GOLDEN / name / "expected.safetensors")
            for key, value in bert_cases.inputs(case, batch=bert_cases.ROWS).items():
                np.testing.assert_array_equal(stored[key], value)


@pytest.fixture
def checkpoint(tmp_path):
    """A copy to spoil: `checkpoint(edit=..., name=...)` returns its folder.

    edit changes the dict of tensors in place; keywords go into config.json.
    """

    def copy(edit=lambda tensors: None, name="pretrain", **settings):
        folder = tmp_path / name
        shutil.copytree(GOLDEN / name, folder, dirs_exist_ok=True)
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text()) | settings
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return copy


def equal(a, b):
    same = jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b)
    return all(jax.tree.leaves(same))


WORDS = "bert.embeddings.word_embeddings.weight"


def bare(tensors):
    for name in list(tensors):
        tensors[name.removeprefix("bert.")] = tensors.pop(name)


def old(tensors):
    for name in list(tensors):
        new = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        tensors[new.replace("LayerNorm.bias", "LayerNorm.beta")] = tensors.pop(name)


def decoder_too(tensors):
    tensors["cls.predictions.decoder.weight"] = tensors[WORDS].copy()
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].copy()


def decoder_only(tensors):
    tensors["cls.predictions.decoder.weight"] = tensors.pop(WORDS)
    tensors["cls.predictions.decoder.bias"] = tensors.pop("cls.predictions.bias")


def buffers(tensors):
    tensors["bert.embeddings.position_ids"] = np.arange(9)[None]


@pytest.mark.parametrize("edit", [bare, old, decoder_too, decoder_only, buffers])
def test_every_name_that_writers_use_is_read(edit, checkpoint):
    _, expected = interop.load(GOLDEN / "pretrain")
    assert equal(interop.load(checkpoint(edit))[1], expected)


def test_tied_weights_that_differ_are_refused(checkpoint):
    def edit(tensors):
        tensors["cls.predictions.decoder.weight"] = tensors[WORDS] + 1

    with pytest.raises(ValueError, match=r"decoder\.weight .*two names of one tied"):
        interop.load(checkpoint(edit))


def test_the_encoder_of_an_untied_checkpoint_is_read_and_its_head_refused(checkpoint):
    def edit(tensors):
        tensors["cls.predictions.decoder.weight"] = tensors[WORDS] + 1

    folder = checkpoint(edit, tie_word_embeddings=False)
    with pytest.raises(ValueError, match="tie_word_embeddings = False"):
        interop.load(folder)
    report = interop.read(folder, head=None).report
    assert "cls.predictions.decoder.weight" in report.unused


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, "_cls_token'"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
            "_max_tokens'",
        ),
        ("1_Pooling/config.json", {"pooling_mode": "lasttoken"}, "'lasttoken'"),
        ("1_Pooling/config.json", [], "is not a JSON dict"),
        (
            "config_sentence_transformers.json",
            {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
            "default_prompt_name 'query' puts a prompt before every text",
        ),
        ("modules.json", [{"type": "a.Transformer"}, {"type": "a.Dense"}], "'a.Dense'"),
    ],
)
def test_sentence_vectors_of_another_kind_are_refused(
    file, content, message, checkpoint
):
    folder = checkpoint()
    (folder / "1_Pooling").mkdir()
    kinds = [{"type": f"some.{kind}"} for kind in ("Transformer", "Pooling")]
    (folder / "modules.json").write_text(json.dumps(kinds))
    modes = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling/config.json").write_text(json.dumps(modes))
    assert interop.load(folder, head="embed")[0].head == "embed"
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        interop.load(folder, head="embed")
    assert interop.load(folder, head=None)[0].head is None


@pytest.mark.parametrize(
    ("sentence", "tokenizer", "length"),
    [
        (None, None, 9),  # the model's positions
        ({"max_seq_length": 7}, None, 7),
        ({"max_seq_length": 256}, None, 9),
        ({"max_seq_length": 7}, {"model_max_length": 5}, 7),
        ({"max_seq_length": None}, {"model_max_length": 5}, 5),
        ({}, {"model_max_length": 1e30}, 9),
        (None, {"model_max_length": 6}, 6),
        (
            {"max_seq_length": 0},
            None,
            r"sentence_bert_config\.json: max_seq_length mus",
        ),
        ({"max_seq_length": "7"}, None, "max_seq_length must be a whole number"),
        (None, {"model_max_length": -1}, r"tokenizer_config\.json: model_max_length"),
        ([], None, "is not a JSON dict"),
    ],
)
def test_sentences_are_cut_where_the_folder_says(
    sentence, tokenizer, length, checkpoint
):
    folder = checkpoint()
    for name, said in (("sentence_bert", sentence), ("tokenizer", tokenizer)):
        if said is not None:
            (folder / f"{name}_config.json").write_text(json.dumps(said))
    if isinstance(length, str):
        with pytest.raises(ValueError, match=length):
            interop.sentence_length(folder)
    else:
        assert interop.sentence_length(folder) == length


def test_only_sentence_encoders_have_a_sentence_s_length():
    with pytest.raises(ValueError, match="gpt2 has no head 'embed'"):
        interop.sentence_length(GOLDEN.parent / "lm/gpt2")


def test_lowering_before_a_tokenizer_for_which_case_counts_is_refused(checkpoint):
    folder = checkpoint()
    pieces = [*vocabulary.SPECIALS, "lamp"]
    (folder / "vocab.txt").write_text("\n".join(pieces))
    (folder / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    assert interop.load(folder, head="embed")[0].head == "embed"
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    with pytest.raises(ValueError, match="do_lower_case lowers texts before"):
        interop.load(folder, head="embed")


def test_what_is_not_used_is_reported_by_name(checkpoint):
    def edit(tensors):
        tensors["bert.adapter.weight"] = np.ones((2, 2), np.float32)

    folder = checkpoint(edit, invented=1)
    with pytest.raises(ValueError, match=r"does not know: bert\.adapter\.weight"):
        interop.load(folder)
    loaded = interop.read(folder, head=None)
    assert loaded.report.unknown == ("bert.adapter.weight",)
    assert loaded.report.settings == ("invented",)
    assert len(loaded.report.unused) == 7
    assert "cls.seq_relationship.bias" in loaded.report.unused
    assert "unknown: bert.adapter.weight" in str(loaded.report)


def test_missing_tensors_are_named_or_initialised_with_a_key(checkpoint):
    with pytest.raises(ValueError, match=r"no tensors for classify/bias.*give key="):
        interop.load(GOLDEN / "pretrain", head="classify", classes=4)
    net, variables = interop.load(
        GOLDEN / "pretrain", head="classify", classes=4, key=jax.random.key(3)
    )
    assert variables["params"]["classify"]["kernel"].shape == (12, 4)
    _, encoder = interop.load(GOLDEN / "pretrain", head=None)
    head = variables["params"].pop("classify")
    assert equal(variables, encoder)
    fresh = net.init(jax.random.key(3), {"tokens": np.zeros((1, 1), np.int32)})
    assert equal(head, fresh["params"]["classify"])


def test_a_wrong_shape_names_both(checkpoint):
    def edit(tensors):
        tensors["bert.pooler.dense.weight"] = np.ones((12, 13), np.float32)

    with pytest.raises(ValueError, match=r"pooler.*\(12, 13\).*asks for \(12, 12\)"):
        interop.load(checkpoint(edit))
    with pytest.raises(ValueError, match=r"\(9, 12\), the config asks for \(8, 12\)"):
        interop.load(checkpoint(max_position_embeddings=8))


def test_weights_which_are_not_floating_are_refused(checkpoint):
    def edit(tensors):
        tensors["bert.pooler.dense.bias"] = np.ones(12, np.int8)

    with pytest.raises(ValueError, match="int8, not floating-point"):
        interop.load(checkpoint(edit))


def test_half_precision_becomes_float32(checkpoint):
    def edit(tensors):
        for name in tensors:
            tensors[name] = tensors[name].astype(np.float16)

    _, exact = interop.load(GOLDEN / "pretrain")
    _, half = interop.load(checkpoint(edit))
    rounded = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), exact)
    assert {x.dtype for x in jax.tree.leaves(half)} == {np.dtype("float32")}
    assert equal(half, rounded)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder = True is not implemented"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_act": "gelu_nwe"}, "'gelu_nwe'.*did you mean 'gelu_new'"),
        ({"hidden_act": {"a": 1}}, "hidden_act"),
        ({"model_type": "roberta"}, "'roberta' is not known.*bert"),
        ({"model_type": "../../evil"}, "is not known"),
        ({"architectures": ["BertForMaskedLMX"]}, "give head="),
        ({"architectures": 7}, "give head="),
        ({"hidden_size": True}, "hidden_size must be a whole number"),
        ({"hidden_size": "12"}, "hidden_size must be a whole number"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers must be"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be"),
        ({"num_attention_heads": 5}, "width 12 does not divide by 5 heads"),
        ({"layer_norm_eps": -1}, "layer_norm_eps must be a number"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob"),
    ],
)
def test_a_config_is_data_and_refused_where_not_understood(
    settings, message, checkpoint
):
    with pytest.raises(ValueError, match=message):
        interop.load(checkpoint(**settings))


NAMED = {"0": "a", "1": "b", "2": "c"}


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ({}, 2),
        ({"num_labels": 5}, 5),
        ({"id2label": NAMED}, 3),
        ({"id2label": NAMED, "num_labels": None}, 3),
        ({"id2label": NAMED, "num_labels": 3}, 3),
        ({"id2label": NAMED, "num_labels": 5}, 5),
        ({"id2label": NAMED, "num_labels": 0}, "num_labels must be a whole number"),
        ({"id2label": NAMED, "num_labels": "3"}, "num_labels must be a whole number"),
        ({"id2label": {}}, "id2label must map"),
    ],
)
def test_num_labels_goes_before_id2label_and_a_difference_is_told(said, count, caplog):
    if isinstance(count, str):
        with pytest.raises(ValueError, match=count):
            settings_of.classes(said)
        return
    assert settings_of.classes(said) == count
    told = "num_labels = 5, but id2label names 3 classes" in caplog.text
    assert told == (count == 5 and "id2label" in said)


def test_a_classifier_of_num_labels_is_read_whatever_id2label_says(checkpoint):
    two = {"0": "a", "1": "b"}  # of three
    folder = checkpoint(name="classify", num_labels=3, id2label=two)
    assert interop.load(folder)[0].classes == 3


def test_a_config_that_is_not_json_is_refused(checkpoint):
    folder = checkpoint()
    for text in ('{"a": 1, "a": 2}', "[]", "{", '{"a": NaN}', "[" * 100_000):
        (folder / "config.json").write_text(text)
        with pytest.raises(ValueError, match=r"config\.json"):
            interop.load(folder)


def test_position_ids_other_than_counting_are_refused(checkpoint):
    def edit(tensors):
        tensors["bert.embeddings.position_ids"] = np.arange(9)[::-1].copy()

    with pytest.raises(ValueError, match="other positions are refused"):
        interop.load(checkpoint(edit))


def test_classes_come_from_the_labels():
    net, _ = interop.load(GOLDEN / "classify")
    assert (net.head, net.classes, net.activation) == ("classify", 3, "gelu_tanh")


@pytest.mark.parametrize(
    "changes",
    [
        {"head": None},
        {"head": "pretrain", "types": 1, "activation": "silu"},
        {"head": "classify", "classes": 3, "head_dropout": 0.25, "dropout": 0.0},
        *({"activation": name} for name in sorted(set(bert.ACTIVATIONS.values()))),
    ],
)
def test_saved_is_loaded_back_equal(changes, tmp_path):
    net = Model(
        vocab_size=23,
        width=12,
        depth=2,
        heads=3,
        mlp_width=20,
        max_length=10,
        **changes,
    )
    tokens = {"tokens": np.zeros((1, 1), np.int32)}
    variables = jax.jit(net.init)(jax.random.key(1), tokens)
    interop.save(tmp_path / "new" / "folder", net, variables)
    again, back = interop.load(tmp_path / "new" / "folder")
    assert again == net
    assert equal(variables, back)
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_saved_names_are_those_the_reference_wrote(tmp_path):
    for name in ("pretrain", "encoder", "classify"):
        interop.save(tmp_path, *interop.load(GOLDEN / name))
        theirs, ours = (
            load_file(folder / "model.safetensors")
            for folder in (GOLDEN / name, tmp_path)
        )
        assert set(ours) == set(theirs)
        for key, tensor in theirs.items():
            np.testing.assert_array_equal(ours[key], tensor)


def test_variables_that_are_not_the_net_s_are_refused(tmp_path):
    net, variables = interop.load(GOLDEN / "encoder")
    params = variables["params"]
    with pytest.raises(ValueError, match="see pooler/bias"):
        interop.save(tmp_path, net, {"params": params | {"pooler": {}}})
    pooler = {"kernel": np.ones((2, 2)), "bias": params["pooler"]["bias"]}
    with pytest.raises(ValueError, match=r"pooler/kernel is \(2, 2\)"):
        interop.save(tmp_path, net, {"params": params | {"pooler": pooler}})
    with pytest.raises(ValueError, match="batch_stats"):
        interop.save(tmp_path, net, variables | {"batch_stats": {}})
    assert not list(tmp_path.iterdir())


def test_a_family_without_a_public_format_is_refused(tmp_path):
    from fmjax.models import cnn

    with pytest.raises(ValueError, match=r"fmjax\.models\.cnn has no public format"):
        interop.save(tmp_path, cnn.Model(), {"params": {}})


def test_shards_equal_one_file(checkpoint):
    folder = checkpoint()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {name: f"model-0000{i % 3}.safetensors" for i, name in enumerate(tensors)}
    for shard in set(where.values()):
        part = {name: t for name, t in tensors.items() if where[name] == shard}
        save_file(part, folder / shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    assert equal(interop.load(folder)[1], interop.load(GOLDEN / "pretrain")[1])

    for spoilt, message in (
        ({WORDS: "../x.safetensors"}, "unsafe shard name"),
        ({WORDS: "/etc/passwd"}, "unsafe shard name"),
        ({"../x": "model-00000.safetensors"}, "unsafe tensor name"),
        ({"more": "model-00000.safetensors"}, "disagree on more"),
    ):
        index.write_text(json.dumps({"weight_map": where | spoilt}))
        with pytest.raises(ValueError, match=message):
            interop.load(folder)
    index.unlink()
    (folder / "pytorch_model-1.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(FileNotFoundError, match=r"pytorch_model-1\.bin is a pickle"):
        interop.load(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: neither a zip archive"):
        interop.load(folder)
