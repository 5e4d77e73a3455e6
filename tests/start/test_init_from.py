"""Parameters to begin with: from runs, and from public checkpoints of every family."""

import functools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments.hostile import torch_writer
from fmjax import checkpoint, convert, interop, parallel, trees
from fmjax.config import ConfigError
from fmjax.data import vocabulary
from fmjax.interop import names
from fmjax.start.init_from import init_from
from tests import runs
from tests.golden import bert_cases
from tests.test_checkpoint import bits, init, make


@pytest.fixture
def source(tmp_path):
    """A workdir with trained weights, and them."""
    params = make(seed=5)[0].params
    made = checkpoint.Checkpoints(tmp_path / "source")
    made.save_best(5, params, {})
    made.close()
    return str(tmp_path / "source"), params


class TestInitFrom:
    def test_loads_every_parameter(self, source):
        path, want = source
        found, report = init_from(make()[0].params, None, path=path)
        assert bits(found) == bits(want)
        nothing = {"renamed": {}, "resized": {}, "misshaped": {}}
        assert report == {
            "loaded": trees.paths(want),
            "fresh": [],
            "unused": [],
            **nothing,
        }

    def test_keeps_the_places(self, source):
        state, _ = make(parallel.plan(params="fsdp"))
        found, _ = init_from(state.params, None, path=source[0])
        for have, want in zip(
            *map(jax.tree.leaves, (found, state.params)), strict=True
        ):
            assert have.sharding == want.sharding

    def test_missing_ones_are_refused_unless_allowed(self, source):
        path, want = source
        fresh = make()[0].params
        fresh["classify"] = {"kernel": jnp.ones((8, 2)), "bias": jnp.zeros(2)}
        with pytest.raises(ConfigError) as error:
            init_from(fresh, None, path=path)
        text = str(error.value)
        assert f"{path} has no parameter classify/bias" in text
        assert "known: encoder/bias, encoder/kernel" in text
        assert "set init_from.missing='classify'" in text
        found, report = init_from(fresh, None, path=path, missing="^classify/")
        assert bits(found["classify"]) == bits(fresh["classify"])
        assert bits(found["head"]) == bits(want["head"])
        assert report["fresh"] == ["classify/bias", "classify/kernel"]

    def test_unused_ones_are_reported(self, source):
        fresh = {"encoder": make()[0].params["encoder"]}
        _, report = init_from(fresh, None, path=source[0])
        assert report["loaded"] == ["encoder/bias", "encoder/kernel"]
        assert report["unused"] == ["head/bias", "head/kernel"]

    def test_renames_in_order(self, source):
        path, want = source
        fresh = {"tower": make()[0].params["encoder"], "head": make()[0].params["head"]}
        renames = (("^encoder/", "body/"), ("^body/", "tower/"))
        found, report = init_from(fresh, None, path=path, rename=renames)
        assert bits(found["tower"]) == bits(want["encoder"])
        assert report["unused"] == []
        assert report["renamed"] == {
            f"tower/{name}": f"encoder/{name}" for name in ("bias", "kernel")
        }

    def test_skips(self, source):
        path, _ = source
        fresh = make()[0].params
        found, report = init_from(
            fresh, None, path=path, skip="^head/", missing="^head/"
        )
        assert bits(found["head"]) == bits(fresh["head"])
        assert report["fresh"] == ["head/bias", "head/kernel"]
        assert report["unused"] == []
        with pytest.raises(ConfigError, match="has no parameter head/bias"):
            init_from(fresh, None, path=path, skip="^head/")

    def test_a_wrong_shape_shows_both(self, source):
        fresh = make(init=functools.partial(init, width=16))[0].params
        message = (
            re.escape("encoder/kernel is (8, 8) in ") + ".*" + re.escape("(16, 8) here")
        )
        with pytest.raises(ConfigError, match=message):
            init_from(fresh, None, path=source[0], missing=".*")

    def test_all_that_is_wrong_is_said_at_once(self, source):
        fresh = make(init=functools.partial(init, width=16))[0].params
        fresh["classify"] = {"bias": jnp.zeros(2)}
        with pytest.raises(ConfigError) as error:
            init_from(fresh, None, path=source[0])
        lines = str(error.value).splitlines()
        names = ("classify/bias", "encoder/kernel", "head/kernel")
        assert len(lines) == 3
        for line, name in zip(lines, names, strict=True):
            assert name in line

    def test_what_has_another_shape_stays_fresh_where_asked(self, source):
        path, want = source
        fresh = make(init=functools.partial(init, width=16))[0].params
        found, report = init_from(fresh, None, path=path, misshaped="kernel$")
        for name in ("encoder", "head"):
            assert bits(found[name]["kernel"]) == bits(fresh[name]["kernel"])
            assert bits(found[name]["bias"]) == bits(want[name]["bias"])
        shapes = [[8, 8], [16, 8]]
        kernels = ["encoder/kernel", "head/kernel"]
        assert report["misshaped"] == dict.fromkeys(kernels, shapes)
        assert report["fresh"] == kernels

    @pytest.mark.parametrize("length", [3, 8, 12])
    def test_positions_are_cut_or_begun_afresh(self, source, length):
        path, want = source
        fresh = make(init=functools.partial(init, width=length))[0].params
        asked = dict(path=path, positions="kernel$")
        found, report = init_from(fresh, None, **asked)
        for name in ("encoder", "head"):
            kept = min(length, 8)
            got = np.asarray(found[name]["kernel"])
            np.testing.assert_array_equal(got[:kept], want[name]["kernel"][:kept])
            np.testing.assert_array_equal(got[kept:], fresh[name]["kernel"][kept:])
        assert report["fresh"] == []
        how = f"the first {kept} of 8 rows, {length} here"
        resized = {f"{name}/kernel": how for name in ("encoder", "head")}
        assert report["resized"] == ({} if length == 8 else resized)

    @pytest.mark.parametrize("rule", [("[", ""), ("head", r"\1")])
    def test_a_wrong_rename_is_named(self, source, rule):
        with pytest.raises(ConfigError, match=r"init_from\.rename"):
            init_from(make()[0].params, None, path=source[0], rename=(rule,))

    def test_two_parameters_renamed_to_one_are_refused(self, source):
        with pytest.raises(ConfigError, match=r"init_from\.rename"):
            init_from(
                {"head": make()[0].params["head"]},
                None,
                path=source[0],
                rename=(("^encoder/", "head/"),),
            )

    def test_no_such_place(self, tmp_path):
        with pytest.raises((ConfigError, FileNotFoundError), match="nowhere"):
            init_from(make()[0].params, None, path=str(tmp_path / "nowhere"))


def tables(key, rows):
    """Parameters that count a vocabulary of `rows`."""
    keys = jax.random.split(key, 3)
    return {
        "embed": {"embedding": jax.random.normal(keys[0], (rows, 4))},
        "out": {"kernel": jax.random.normal(keys[1], (4, rows))},
        "mlm": {"bias": jax.random.normal(keys[2], (rows,))},
        "norm": {"scale": jax.random.normal(keys[2], (4,))},
    }


class TestVocabulary:
    @pytest.fixture
    def old(self, tmp_path):
        """(a run with a tokenizer of the letters a to h, its parameters, it)."""
        folder = tmp_path / "old"
        words = vocabulary.train("characters", ["abcdefgh"], 11, folder / "a.json")
        (folder / "a.json").rename(folder / "tokenizer.json")
        params = tables(jax.random.key(1), 11)
        made = checkpoint.Checkpoints(folder)
        made.save_best(1, params, {})
        made.close()
        return folder, params, words

    @pytest.mark.parametrize(
        ("kind", "letters", "rows", "shared"),
        [
            ("characters", "hgxyz", 8, 5),  # 3 specials and two letters
            ("characters", "hgfedcbaxyz", 20, 11),  # and room for more tokens
            ("wordpiece", "ab ba ab ba", 11, 4),  # a, b; [PAD] and [UNK] by their use
        ],
    )
    def test_rows_go_by_token(self, old, tmp_path, kind, letters, rows, shared):
        folder, want, before = old
        new = vocabulary.train(kind, [letters], rows, tmp_path / "n.json")
        fresh = tables(jax.random.key(2), rows)
        net = type("Net", (), {"vocab_size": rows})
        asked = dict(path=str(folder), vocabulary="embed|out|mlm", tokenizer=new)
        found, report = init_from(fresh, net, **asked)
        same = {
            i: before.token_to_id(token)
            for token, i in new.get_vocab().items()
            if before.token_to_id(token) is not None
        }
        if kind == "wordpiece":
            pairs = (("[PAD]", "<pad>"), ("[UNK]", "<unk>"), ("[SEP]", "</s>"))
            same |= {new.token_to_id(a): before.token_to_id(b) for a, b in pairs}
        else:
            assert len(same) == shared
        for path, axis in (("embed/embedding", 0), ("out/kernel", 1), ("mlm/bias", 0)):
            got, there, here = (
                np.moveaxis(np.asarray(names.flatten(tree)[path]), axis, 0)
                for tree in (found, want, fresh)
            )
            for i in range(rows):
                row = there[same[i]] if i in same else here[i]
                np.testing.assert_array_equal(got[i], row)
            assert report["resized"][path] == f"{len(same)} of {rows} rows by token"
        np.testing.assert_array_equal(found["norm"]["scale"], want["norm"]["scale"])
        assert report["fresh"] == report["unused"] == []

    def test_both_tokenizers_are_needed(self, old, tmp_path):
        folder, want, words = old
        net = type("Net", (), {"vocab_size": 11})
        asked = dict(path=str(folder), vocabulary="embed")
        with pytest.raises(ConfigError, match="this config's own tokenizer"):
            init_from(want, net, **asked)
        (folder / "tokenizer.json").rename(tmp_path / "t.json")
        with pytest.raises(ConfigError, match=r"init_from\.old_tokenizer"):
            init_from(want, net, **asked, tokenizer=words)
        asked["old_tokenizer"] = str(tmp_path / "t.json")
        found, _ = init_from(want, net, **asked, tokenizer=words)
        assert bits(found) == bits(want)

    def test_another_width_is_refused(self, old):
        folder, want, words = old
        net = type("Net", (), {"vocab_size": 11})
        fresh = want | {"embed": {"embedding": jnp.ones((11, 5))}}
        with pytest.raises(ConfigError, match=r"vocabulary, embed/embedding: .*more"):
            init_from(fresh, net, path=str(folder), vocabulary="embed", tokenizer=words)


GOLDEN = pathlib.Path(bert_cases.__file__).parent
FOLDERS = {
    **{f"bert-{n}": GOLDEN / "bert" / n for n in ("pretrain", "encoder", "classify")},
    **{n: GOLDEN / "lm" / n for n in ("gpt2", "t5", "t5-1.1", "marian")},
}


def start(net, folder, **options):
    """(what init_from makes of fresh parameters, which, its report), flat by path."""
    tokens = {name: np.zeros((1, 1), np.int32) for name in ("tokens", "decoder_tokens")}
    fresh = jax.jit(net.init)(jax.random.key(7), tokens)["params"]
    found, report = init_from(fresh, net, path=str(folder), **options)
    flat, fresh = names.flatten(found), names.flatten(fresh)
    assert sorted(report["loaded"] + report["fresh"]) == sorted(fresh)
    for path in report["fresh"]:
        np.testing.assert_array_equal(flat[path], fresh[path])
    return flat, report


@pytest.mark.parametrize("name", FOLDERS)
def test_all_that_a_net_has_comes_from_the_checkpoint(name):
    net, variables = interop.load(FOLDERS[name])
    found, report = start(net, FOLDERS[name])
    want = names.flatten(variables["params"])
    assert report["fresh"] == report["unused"] == []
    for path, value in want.items():
        np.testing.assert_array_equal(found[path], value)


@pytest.mark.parametrize(
    ("name", "fields", "fresh", "unused"),
    [
        ("bert-pretrain", {"head": "mlm"}, "", r"cls\.seq_|bert\.pooler\."),
        ("bert-pretrain", {"head": "classify", "classes": 3}, "classify", r"cls\."),
        ("bert-pretrain", {"head": "tag", "classes": 3}, "tag", r"cls\.|bert\.pooler"),
        ("bert-pretrain", {"head": "embed"}, "", r"cls\.|bert\.pooler"),
        ("bert-classify", {"head": "classify", "classes": 3}, "", None),
        ("bert-classify", {"head": "choose"}, "choose", r"classifier\."),
        ("bert-classify", {"head": "pretrain"}, "mlm|nsp", r"classifier\."),
        ("bert-encoder", {"head": "span"}, "span", r"pooler\."),
        ("bert-encoder", {"head": "pretrain"}, "mlm|nsp", None),
    ],
)
def test_heads_of_bert_are_kept_or_begun_afresh(name, fields, fresh, unused):
    net = interop.load(FOLDERS[name])[0].clone(**{"classes": None} | fields)
    missing = f"^({fresh})/" if fresh else None
    _, report = start(net, FOLDERS[name], missing=missing)
    assert bool(report["fresh"]) == bool(fresh)
    assert all(re.match(f"({fresh})/", path) for path in report["fresh"])
    # Each by name, and all that the file has beside what is loaded.
    assert bool(report["unused"]) == bool(unused)
    assert all(re.match(unused, tensor) for tensor in report["unused"])
    if fresh:
        with pytest.raises(ConfigError, match="set init_from"):
            start(net, FOLDERS[name])


def test_other_classes_are_an_error_with_the_remedy():
    net = interop.load(FOLDERS["bert-classify"])[0].clone(classes=5)
    with pytest.raises(ConfigError, match=r"\(3,\) in .* and \(5,\) here.*misshaped="):
        start(net, FOLDERS["bert-classify"], missing="^classify/")
    _, report = start(
        net, FOLDERS["bert-classify"], missing="^classify/", skip="^classify/"
    )
    assert report["fresh"] == ["classify/bias", "classify/kernel"]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("bert-encoder", {"heads": 4}, "num_attention_heads = 3, this model .* 4;"),
        ("bert-encoder", {"activation": "gelu"}, "hidden_act = 'relu'"),
        ("bert-encoder", {"eps": 1e-5}, "layer_norm_eps = 1e-12"),
        ("gpt2", {"heads": 4}, "n_head = 3"),
        ("gpt2", {"tied": False}, "tie_word_embeddings = True"),
        ("t5", {"max_distance": 7}, "relative_attention_max_distance = 128"),
        ("t5", {"scale_output": False}, "scale_decoder_outputs"),
        ("marian", {"decoder_heads": 4}, "decoder_attention_heads = 3"),
        ("marian", {"scale_embedding": False}, "scale_embedding = True"),
        ("marian", {"layout": "interleaved"}, "layout='interleaved' has no public"),
    ],
)
def test_a_model_that_computes_otherwise_is_refused(name, change, message):
    net = interop.load(FOLDERS[name])[0].clone(**change)
    with pytest.raises(ConfigError, match=f"init_from: .*{message}"):
        start(net, FOLDERS[name])


def test_what_no_output_depends_on_may_differ():
    net = interop.load(FOLDERS["gpt2"])[0]
    net = net.clone(dropout=0.0, remat="full", scan=True, dtype="bfloat16")
    start(net, FOLDERS["gpt2"])
    net = interop.load(FOLDERS["t5"])[0].clone(max_length=2048)
    start(net, FOLDERS["t5"])


def test_another_family_or_an_unknown_tensor_is_named(tmp_path):
    net = interop.load(FOLDERS["gpt2"])[0]
    with pytest.raises(ConfigError, match=r"is of fmjax\.models\.bert, .*models\.gpt"):
        start(net, FOLDERS["bert-encoder"])
    tensors = load_file(FOLDERS["gpt2"] / "model.safetensors")
    tensors["adapter.weight"] = np.ones(2, np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    config = json.loads((FOLDERS["gpt2"] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"unknown tensors: adapter\.weight"):
        start(net, tmp_path)


def test_a_run_without_weights_yet_is_told_from_a_checkpoint(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ConfigError, match="holds no trained weights"):
        init_from(make()[0].params, None, path=str(tmp_path))


def test_torchs_own_file_beside_a_config_is_the_same_checkpoint(tmp_path):
    folder = FOLDERS["bert-pretrain"]
    net, variables = interop.load(folder)
    tensors = load_file(folder / "model.safetensors")
    torch_writer.write(tmp_path / "pytorch_model.bin", tensors, ())
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    found, report = start(net, tmp_path)
    assert report["fresh"] == report["unused"] == []
    for path, value in names.flatten(variables["params"]).items():
        np.testing.assert_array_equal(found[path], value)


LETTERS = "abcdefghijklmnopqrstuvwxyz"
TRAINED = {
    "bert-pretrain": ("configs/bert/pretrain.py", dict(data__length=9)),
    "gpt2": ("configs/gpt/language_model.py", dict(data__length=12)),
    "t5": ("configs/t5/boolq.py", dict(inputs__length=9)),
    "marian": (
        *("configs/transformer/translation.py",),
        dict(inputs__length=12, inputs__target_length=12),
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(x, marks=[pytest.mark.slow] * (x == "marian"))
        for x in TRAINED  # Marian is T5's way and what it has itself is tested above
    ],
)
def test_a_run_of_each_family_begins_with_a_public_checkpoint(name, tmp_path):
    file, changes = TRAINED[name]
    settings = runs.tiny(file, steps="1 step", **changes)
    net, variables = interop.load(FOLDERS[name])
    settings["model"] = {"name": settings["model"]["name"]} | convert.fields(net)
    settings["tokenizer"] |= dict(kind="characters", vocab_size=31)
    if name.startswith("bert"):
        pieces = tmp_path / "vocab.txt"
        pieces.write_text("\n".join([*vocabulary.SPECIALS, *LETTERS]))
        settings["tokenizer"] = {"path": str(pieces)}
        settings["inputs"]["predictions"] = 2
    settings["optim"] = dict(name="sgd", lr=0.0)  # what is loaded is what is saved
    settings["init_from"] = {"path": str(FOLDERS[name])}
    workdir = tmp_path / "run"
    runs.run(workdir, settings)
    report = json.loads((workdir / "init_from.json").read_text())
    assert report["fresh"] == report["unused"] == []
    kept = names.flatten(checkpoint.weights(workdir)["params"])
    want = names.flatten(variables["params"])
    assert set(kept) == set(want) == set(report["loaded"])
    for path, value in want.items():
        np.testing.assert_array_equal(kept[path], value)
    assert np.isfinite(runs.losses(workdir)).all()
