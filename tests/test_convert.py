"""Public checkpoints as runs, and runs as public checkpoints, both ways.

That transformers loads what is written is in tests/interop/test_exported.py.
"""

import json
import pathlib
import shutil
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fmjax import (
    checkpoint,
    cli,
    config,
    convert,
    evaluate,
    generate,
    interop,
    predict,
    transforms,
)
from fmjax import workdir as workdirs
from fmjax.data import vocabulary
from fmjax.interop import names, peft
from tests import runs
from tests.golden import bert_cases

GOLDEN = pathlib.Path(bert_cases.__file__).parent
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def public(folder, name, **settings):
    """A golden checkpoint's copy, with a tokenizer of its 31 words."""
    shutil.copytree(GOLDEN / name, folder, dirs_exist_ok=True)
    (folder / "expected.safetensors").unlink()
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    if name.startswith("bert"):
        words = [*vocabulary.SPECIALS, *LETTERS]
        (folder / "vocab.txt").write_text("\n".join(words))
    else:
        texts = [f"{LETTERS} a b"]
        path = folder / "tokenizer.json"
        vocabulary.train("characters", texts, 31, path)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """(a classifier's public folder, the workdir that it was made into)."""
    root = tmp_path_factory.mktemp("classifier")
    labels = {"0": "bad", "1": "so-so", "2": "good"}
    folder = public(root / "public", "bert/classify", id2label=labels)
    rows = [{"text": f"{a} b", "label": "good"} for a in LETTERS[:5]]
    lines = "\n".join(map(json.dumps, rows))
    (root / "test.jsonl").write_text(lines)
    words = ["--from", str(folder), "--workdir", str(root / "run")]
    path = f"--config.data.path={root}/{{split}}.jsonl"
    assert convert.main([*words, path]) == 0
    return folder, root / "run"


def test_a_classifier_predicts_with_its_own_labels(classifier):
    folder, run = classifier
    said = predict.predict(run, [{"text": "a b"}, {"text": "z"}])
    net, variables = interop.load(folder)
    tokens = np.array([[2, 5, 6, 3]], np.int32)  # [CLS] a b [SEP]
    logits = net.apply(variables, {"tokens": tokens})[0]
    want = jax.nn.softmax(logits)
    assert list(said[0]["probabilities"]) == ["bad", "so-so", "good"]
    np.testing.assert_allclose(list(said[0]["probabilities"].values()), want, 1e-5)


def test_it_is_evaluated_on_the_rows_that_were_named(classifier):
    found = evaluate.evaluate(classifier[1], splits=("test",))["test"]
    assert found["count"] == 5
    accuracy = found["classification"]["accuracy"]
    said = predict.predict(classifier[1], [{"text": f"{a} b"} for a in LETTERS[:5]])
    assert accuracy == pytest.approx(np.mean([s["label"] == "good" for s in said]))


def test_back_it_is_the_same_checkpoint(classifier, tmp_path):
    folder, run = classifier
    assert convert.main(["--workdir", str(run), "--to", str(tmp_path / "new")]) == 0
    ours, theirs = (
        load_file(f / "model.safetensors") for f in (tmp_path / "new", folder)
    )
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor)
    settings = json.loads((tmp_path / "new" / "config.json").read_text())
    assert settings["id2label"] == {"0": "bad", "1": "so-so", "2": "good"}
    assert settings["label2id"] == {"bad": 0, "so-so": 1, "good": 2}
    assert settings["pad_token_id"] == 0
    # And once more into a run, which is the same as the first.
    convert.load(tmp_path / "new", tmp_path / "again")
    a, b = (checkpoint.weights(w)["params"] for w in (run, tmp_path / "again"))
    assert all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))
    texts = ["a b", "zz [MASK] b"]
    first, second = (
        workdirs.open_run(w).parts.tokenizer for w in (run, tmp_path / "again")
    )
    for text in texts:
        assert first.encode(text).ids == second.encode(text).ids


@pytest.mark.parametrize("name", ["gpt2", "t5", "t5-1.1", "marian"])
def test_language_models_write_as_runs(name, tmp_path):
    ids = dict(eos_token_id=1, decoder_start_token_id=0, pad_token_id=0)
    ids = {"eos_token_id": 1} if name == "gpt2" else ids
    folder = public(tmp_path / "public", f"lm/{name}", **ids)
    report = convert.load(folder, tmp_path / "run")
    assert report.missing == report.unknown == report.settings == ()
    if name != "t5-1.1":
        row = {"text": "l" if name == "t5" else "q we"}
        (said,) = generate.generate(tmp_path / "run", [row], length=2)
        tokenizer, (net, variables) = interop.tokenizer(folder), interop.load(folder)
        text = tokenizer.encode(row["text"]).ids
        tokens = [1, *text] if name == "gpt2" else [*text, 1]
        feed = {"tokens": np.array([tokens], np.int32)}
        if name != "gpt2":
            feed["decoder_tokens"] = np.zeros((1, 1), np.int32)
        first = int(net.apply(variables, feed)[0, -1].argmax())
        assert first > 1, "no special token: the case shows something"
        assert said["generated"].startswith(tokenizer.decode([first]))
    files = convert.save(tmp_path / "run", tmp_path / "new", shard_bytes=4000)
    assert "model.safetensors.index.json" in files
    assert "generation_config.json" in files
    a, b = (interop.load(f)[1]["params"] for f in (folder, tmp_path / "new"))
    a, b = names.flatten(a), names.flatten(b)
    assert set(a) == set(b)
    for path, value in a.items():
        np.testing.assert_array_equal(b[path], value)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("gpt2", "GPT2Model"), ("t5", "T5Model"), ("marian", "MarianModel")],
)
def test_a_model_without_a_head_is_written_as_it_was_read(name, kind, tmp_path):
    ids = dict(eos_token_id=1, decoder_start_token_id=0, pad_token_id=0)
    ids = {"eos_token_id": 1} if name == "gpt2" else ids
    folder = public(tmp_path / "public", f"lm/{name}", architectures=[kind], **ids)
    if name == "marian":
        tensors = load_file(folder / "model.safetensors")
        del tensors["final_logits_bias"]
        save_file(tensors, folder / "model.safetensors")
    convert.load(folder, tmp_path / "run")
    convert.save(tmp_path / "run", tmp_path / "new")
    config = json.loads((tmp_path / "new/config.json").read_text())
    assert config["architectures"] == [kind]
    a, b = (names.flatten(interop.load(f)[1]) for f in (folder, tmp_path / "new"))
    assert all(np.array_equal(a[path], b[path]) for path in a | b)

    (tmp_path / "run/result.json").write_text('{"status": "done", "step": 5}')
    convert.save(tmp_path / "run", tmp_path / "trained")  # whose output map may be used
    config = json.loads((tmp_path / "trained/config.json").read_text())
    assert config["architectures"] != [kind]


HEADS = {
    "bert/encoder": ("embed", {"first": "a b", "second": "b"}, "cosine"),
    "bert/pretrain": ("pretrain", None, None),
}


@pytest.mark.parametrize("name", HEADS)
def test_other_heads_have_inputs_and_an_objective(name, tmp_path, capsys):
    head, row, said = HEADS[name]
    report = convert.load(public(tmp_path / "public", name), tmp_path / "run")
    run = workdirs.open_run(tmp_path / "run")
    assert run.parts.net.head == head
    if row:
        assert list(report.unused) == ["pooler.dense.bias", "pooler.dense.weight"]
        assert set(predict.predict(tmp_path / "run", [row])[0]) == {said}
        lines = tmp_path / "rows.jsonl"
        lines.write_text(json.dumps(row | {"score": 4}) + "\n")
        words = ["--workdir", str(tmp_path / "run"), "--input", str(lines)]
        assert predict.main(words) == 0
        (line,) = capsys.readouterr().out.splitlines()
        assert set(json.loads(line)) == {*row, "score", said}
        lines.write_text('{"first": "a"}\n')
        with pytest.raises(config.ConfigError, match="`second` is None; it must"):
            predict.main(words)


def test_a_sentence_encoder_s_length_goes_in_and_out(tmp_path):
    folder = public(tmp_path / "public", "bert/encoder")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 6}')
    convert.load(folder, tmp_path / "run")
    run = workdirs.open_run(tmp_path / "run")
    assert run.settings["inputs"]["length"] == 6 < run.parts.net.max_length
    long, cut = ({"first": text, "second": "z"} for text in ("a b c d e f", "a b c d"))
    one, other = predict.predict(tmp_path / "run", [long, cut])
    assert one["cosine"] == other["cosine"]

    files = convert.save(tmp_path / "run", tmp_path / "new")
    assert {"modules.json", "1_Pooling", "sentence_bert_config.json"} <= set(files)
    assert interop.sentence_length(tmp_path / "new") == 6
    told = json.loads((tmp_path / "new/tokenizer_config.json").read_text())
    assert told["model_max_length"] == 6
    convert.load(tmp_path / "new", tmp_path / "again")
    assert predict.predict(tmp_path / "again", [long])[0]["cosine"] == one["cosine"]

    overrides = {"inputs.length": "5"}  # the caller's goes before the folder's
    convert.load(folder, tmp_path / "five", overrides=overrides)
    convert.save(tmp_path / "five", tmp_path / "public5")
    assert interop.sentence_length(tmp_path / "public5") == 5


def test_a_config_gives_objective_data_and_inputs(tmp_path):
    folder = public(tmp_path / "public", "bert/classify")
    base = config.load(f"{runs.ROOT}/configs/bert/topics.py:tiny")
    changes = {"inputs.length": "7", "data.size": "40"}
    convert.load(
        folder, tmp_path / "run", base=base, overrides=changes, dtype="bfloat16"
    )
    run = workdirs.open_run(tmp_path / "run")
    assert (run.settings["inputs"]["length"], run.parts.net.dtype) == (7, "bfloat16")
    assert run.settings["data"] == base["data"] | {"size": 40}
    with pytest.raises(config.ConfigError, match="the checkpoint says what it is"):
        convert.load(folder, tmp_path / "b", base=base, overrides={"model.heads": "2"})
    assert not (tmp_path / "b").exists()


def test_a_trained_run_goes_out_and_comes_back(tmp_path):
    settings = runs.tiny("configs/transformer/translation.py", steps="2 steps")
    runs.run(tmp_path / "run", settings)
    convert.save(tmp_path / "run", tmp_path / "public")
    convert.load(tmp_path / "public", tmp_path / "again")
    feed = {
        "tokens": np.arange(8, dtype=np.int32).reshape(2, 4),
        "decoder_tokens": np.arange(6, dtype=np.int32).reshape(2, 3),
    }
    out, tokenizers = [], []
    for name in ("run", "again"):
        net = workdirs.open_run(tmp_path / name).parts.net
        params = checkpoint.weights(tmp_path / name)["params"]
        out.append(jax.jit(net.apply)({"params": jax.device_get(params)}, feed))
        file = (tmp_path / name / "tokenizer.json").read_text()
        tokenizers.append(json.loads(file)["model"])
    np.testing.assert_allclose(*out, atol=1e-5)
    assert tokenizers[0] == tokenizers[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eos_token_id": 2}, r"eos_token_id = 2, but the token for end is '</s>', 1"),
        ({"eos_token_id": 31}, "no token of its 30"),
        ({"vocab_size": 29}, r"its id 29 .* beyond the vocabulary of 29"),
        ({"decoder_start_token_id": 5}, "decoder_start_token_id = 5"),
        ({"d_kv": 4}, "asks for"),
        ({"model_type": "bart"}, "'bart' is not known"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_made(settings, message, tmp_path):
    ids = dict(eos_token_id=1, decoder_start_token_id=0, pad_token_id=0)
    folder = public(tmp_path / "public", "lm/t5", **ids | settings)
    with pytest.raises(config.ConfigError, match=message):
        convert.load(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unknown_tensors_are_refused_or_left_out(tmp_path, capsys):
    folder = public(tmp_path / "public", "bert/classify")
    tensors = load_file(folder / "model.safetensors")
    tensors["bert.adapter.weight"] = np.ones(2, np.float32)
    save_file(tensors, folder / "model.safetensors")
    words = ["--from", str(folder), "--workdir", str(tmp_path / "run")]
    with pytest.raises(config.ConfigError, match=r"bert\.adapter\.weight; --allow-un"):
        convert.main(words)
    assert convert.main([*words, "--allow-unknown"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["unknown"] == ["bert.adapter.weight"]
    assert set(printed) == {
        *("workdir", "matched", "missing", "unused", "unknown", "ignored", "settings")
    }
    with pytest.raises(config.ConfigError, match="not empty; use another --workdir"):
        convert.main(words)


def test_wrong_commands_name_the_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no folder a/b; .* or hf:a/b for a"):
        convert.main(["--from", "a/b", "--workdir", "run"])
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(config.ConfigError, match=r"pip install 'fmjax\[hub\]'"):
        convert.main(["--from", "hf:a/b", "--workdir", "run"])
    with pytest.raises(config.ConfigError, match="no workdir of a run"):
        convert.main(["--to", "x", "--workdir", "run"])
    with pytest.raises(config.ConfigError, match="takes a run as it is"):
        convert.main(["--to", "x", "--workdir", "run", "--head", "tag"])
    with pytest.raises(SystemExit):
        convert.main(["--workdir", "run"])
    assert "--from --to is required" in capsys.readouterr().err
    folder = public(tmp_path / "public", "bert/encoder")
    with pytest.raises(config.ConfigError, match=r"no tensors for tag/bias"):
        convert.main(
            ["--from", str(folder), "--workdir", "r", "--head", "tag", "--classes", "2"]
        )


def test_a_run_without_a_public_format_is_refused(tmp_path):
    settings = runs.tiny("configs/cnn/fashion_mnist.py", steps="1 step")
    runs.run(tmp_path / "run", settings)
    with pytest.raises(config.ConfigError, match=r"models\.cnn has no public format"):
        convert.save(tmp_path / "run", tmp_path / "public")
    assert not (tmp_path / "public").exists()
    assert "convert" in cli.VERBS


def test_an_adapted_run_goes_out_merged_or_as_the_adapter_alone(tmp_path, capsys):
    settings = runs.tiny("configs/bert/peft.py", steps="2 steps", optim__lr=0.3)
    runs.run(tmp_path / "run", settings, parallel={"devices": 1})
    run = workdirs.open_run(tmp_path / "run")
    example = run.batches(run.parts.data("train").rows).example(0)
    params, _ = run.weights(example)
    feed = jax.tree.map(lambda x: np.asarray(x)[None], example["inputs"])
    net = run.parts.net
    expected = net.apply({"params": params}, feed)
    flat = transforms.flatten(params)
    assert any(p.endswith("lora_b") and np.abs(v).max() > 0 for p, v in flat.items())

    assert convert.save(tmp_path / "run", tmp_path / "merged")
    plain, variables = interop.load(tmp_path / "merged")
    assert not isinstance(plain, transforms.Transformed)
    np.testing.assert_allclose(plain.apply(variables, feed), expected, atol=1e-5)

    words = ["--workdir", str(tmp_path / "run"), "--to", str(tmp_path / "lora")]
    assert convert.main([*words, "--adapter"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert files == ["adapter_config.json", "adapter_model.safetensors"]
    again, added = peft.load(tmp_path / "lora", net.net)
    assert {p.split("/")[-1] for p in transforms.flatten(added)} == {
        *("lora_a", "lora_b", "kernel", "bias")
    }
    # The base has another head, which is not what was trained.
    base = {p: v for p, v in flat.items() if not net.owns(p) and "classify" not in p}
    whole = transforms.join(transforms.unflatten(base), added)
    np.testing.assert_allclose(
        again.apply({"params": whole}, feed), expected, atol=1e-5
    )


def test_what_can_not_go_out_merged_or_alone_is_told(tmp_path):
    settings = runs.tiny("configs/bert/peft.py", steps="1 step")
    settings["transforms"] = {"adapter": {"width": 2}}
    settings["optim"]["train"] = "classify|adapter_"
    runs.run(tmp_path / "run", settings, parallel={"devices": 1})
    with pytest.raises(config.ConfigError, match="'adapter' can't be merged"):
        convert.save(tmp_path / "run", tmp_path / "public")
    with pytest.raises(config.ConfigError, match="transforms are adapter"):
        convert.save(tmp_path / "run", tmp_path / "public", adapter=True)
    assert not (tmp_path / "public").exists()
