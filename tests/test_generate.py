"""The verb that writes: prompts, sources, a split with metrics; on tiny runs."""

import json
import shutil

import jax
import numpy as np
import pytest

from fmjax import cli, config, convert, evaluate, generate, predict
from fmjax import workdir as workdirs
from tests.runs import run, tiny

NAMES = {
    "gpt": "configs/gpt/language_model.py",
    "translation": "configs/transformer/translation.py",
    "t5": "configs/t5/pretrain.py",
    "cnn": "configs/cnn/fashion_mnist.py",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function of a name in NAMES: the workdir of a run of two steps."""
    folder, done = tmp_path_factory.mktemp("trained"), set()

    def get(name):
        if name not in done:
            run(folder / name, tiny(NAMES[name], steps="2 steps"))
            done.add(name)
        return folder / name

    return get


def test_prompts_go_on_from_their_document_s_start(trained):
    rows = [{"text": "the great"}, {"text": "a"}, {}]
    found = generate.generate(trained("gpt"), rows, length=5, batch_size=2)
    assert [set(one) for one in found] == [{"generated", "tokens", "score"}] * 3
    assert all(1 <= one["tokens"] <= 5 and one["score"] < 0 for one in found)
    # By hand: one prompt, and the model's own probabilities a token at a time.
    opened = workdirs.open_run(trained("gpt"))
    tokenizer = opened.parts.tokenizer
    first = tokenizer.token_to_id("<|endoftext|>")
    ids = [first, *tokenizer.encode("the great").ids]
    one = {"inputs": {"tokens": np.array(ids, np.int32)}}
    params, _ = opened.weights(one)
    total, start = 0.0, len(ids)
    # No token sees those after it: what fills the row up to one length is not seen.
    run_net = jax.jit(lambda t: opened.parts.net.apply({"params": params}, t)[0])
    for _ in range(found[0]["tokens"]):
        tokens = np.zeros((1, start + found[0]["tokens"]), np.int32)
        tokens[0, : len(ids)] = ids
        logits = run_net({"tokens": tokens})[len(ids) - 1]
        log_p = np.asarray(logits - np.logaddexp.reduce(np.asarray(logits, float)))
        ids.append(int(log_p.argmax()))
        total += log_p.max()
    text = tokenizer.decode([i for i in ids[start:] if i != first])
    assert found[0]["generated"] == text
    np.testing.assert_allclose(found[0]["score"], total / found[0]["tokens"], rtol=1e-4)


def test_samples_differ_and_are_the_seed_s(trained):
    options = dict(length=8, temperature=2.0)
    rows = [{"text": "the"}] * 3
    found = generate.generate(trained("gpt"), rows, seed=1, **options)
    assert len({one["generated"] for one in found}) == 3
    assert found == generate.generate(trained("gpt"), rows, seed=1, **options)
    assert found != generate.generate(trained("gpt"), rows, seed=2, **options)
    one = generate.generate(trained("gpt"), rows, seed=1, batch_size=1, **options)
    assert [a["generated"] for a in one] == [b["generated"] for b in found]


def test_a_text_is_cut_before_a_stop(trained):
    whole = generate.generate(trained("gpt"), [{"text": "the"}], length=8)[0]
    stop = whole["generated"][3]
    cut = generate.generate(trained("gpt"), [{"text": "the"}], length=8, stop=[stop])
    assert cut[0]["generated"] == whole["generated"].partition(stop)[0]


def test_sources_are_answered_and_a_split_is_measured(trained, capsys):
    workdir = str(trained("translation"))
    words = ["--workdir", workdir, "--split", "test", "--limit", "5", "--length", "6"]
    words += ["--beams", "2", "--metrics", "translation", "--metrics", "exact_match"]
    assert generate.main(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["count"] == said["exact_match"]["rows"] == 5
    assert 0 <= said["translation"]["bleu"]["score"] <= 100
    lines = (trained("translation") / "generated" / "test.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in lines.splitlines()]
    assert len(rows) == 5
    assert all(row["reference"] == row["target"] for row in rows)
    # The same sources as prompts: a text's name need not be the template's.
    texts = [row["source"] for row in rows]
    assert generate.main([*words[:2], "--length", "6", "--beams", "2", *texts]) == 0
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [a["generated"] for a in again] == [r["generated"] for r in rows]
    # A row's own target is not read, whatever it is.
    given = [{"source": text, "target": "", "id": 1} for text in texts]
    options = dict(length=6, beams=2)
    assert generate.generate(workdir, given, **options) == [
        {k: row[k] for k in ("generated", "tokens", "score")} for row in rows
    ]


def test_a_metric_that_is_none_is_refused_before_texts_are_written(trained):
    with pytest.raises(config.ConfigError, match="no metrics named 'translaton'"):
        generate.split(trained("translation"), "validation", metrics=["translaton"])
    assert not (trained("translation") / "generated" / "validation.jsonl").exists()
    with pytest.raises(config.ConfigError, match="no metrics named 'perplexity'"):
        evaluate.evaluate(trained("translation"), splits=["no"], metrics=["perplexity"])


def test_flags_that_would_be_passed_over_are_refused(trained):
    words = ["--workdir", str(trained("translation"))]
    with pytest.raises(config.ConfigError, match="leave prompts, --input and"):
        generate.main([*words, "--split", "test", "a lamp"])
    with pytest.raises(config.ConfigError, match="--metrics and --limit are of"):
        generate.main([*words, "--metrics", "translation", "a lamp"])
    with pytest.raises(config.ConfigError, match="--without is of --checkpoint"):
        generate.main([*words, "--without", "min_length", "a lamp"])
    with pytest.raises(config.ConfigError, match="batch_size is 0: 1 row or more"):
        generate.main([*words, "--batch-size", "0", "a lamp"])


def test_the_row_that_will_not_do_is_named(trained):
    rows = [{"text": "a"}, {"text": "the great " * 200}]
    with pytest.raises(ValueError, match=r"text 2 of 2 has \d+ tokens, but there is"):
        generate.generate(trained("gpt"), rows, length=3, batch_size=1)
    with pytest.raises(ValueError, match="row 7 has no `text`, only id, prompt"):
        generate.generate(trained("gpt"), [{"id": 7, "prompt": "a"}], length=3)
    with pytest.raises(ValueError, match="`text` is 0; it must be a text"):
        generate.generate(trained("gpt"), [{"text": 0}], length=3)


def test_what_reads_no_texts_can_not_predict_of_them(trained):
    with pytest.raises(config.ConfigError, match=r"'next_token' reads 'tokens' of a"):
        predict.predict(trained("gpt"), [{"text": "a"}])


def test_span_corruption_fills_what_sentinels_hide(trained):
    rows = [{"text": "the <extra_id_0> river"}]
    found = generate.generate(trained("t5"), rows, length=4)
    assert found[0]["tokens"] <= 4


def test_what_can_not_write_says_so(trained, capsys):
    with pytest.raises(config.ConfigError, match="'cnn' writes no text"):
        generate.generate(trained("cnn"), [{"text": "a"}])
    with pytest.raises(config.ConfigError, match="nothing to begin with"):
        generate.generate(trained("gpt"), [])
    with pytest.raises(config.ConfigError, match="give prompts"):
        generate.split(trained("gpt"))
    words = ["--workdir", str(trained("gpt")), "--top-k", "3", "--length", "4", "a"]
    with pytest.raises(SystemExit) as stopped:
        cli.run(lambda: generate.main(words))
    assert stopped.value.code == 2
    assert "give a temperature" in capsys.readouterr().err


@pytest.fixture(scope="module")
def checkpoint(trained, tmp_path_factory):
    """A function of a name in NAMES: the run as a public checkpoint's folder."""
    folder, done = tmp_path_factory.mktemp("public"), set()

    def get(name):
        if name not in done:
            convert.save(trained(name), folder / name)
            done.add(name)
        return folder / name

    return get


def settle(folder, **settings):
    (folder / "generation_config.json").write_text(json.dumps(settings))


def test_a_public_checkpoint_writes_without_a_run(checkpoint, trained, capsys):
    folder = checkpoint("translation")
    own = json.loads((folder / "config.json").read_text())
    names = ("eos_token_id", "decoder_start_token_id", "pad_token_id")
    ids = {name: own[name] for name in names}
    settle(folder, **ids, num_beams=2, max_length=7)
    texts = ["the lamp of the night", "a fine river"]
    assert generate.main(["--checkpoint", str(folder), *texts]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rows = [{"text": text} for text in texts]
    assert [one["text"] for one in said] == texts
    run = generate.generate(trained("translation"), rows, length=6, beams=2)
    assert [one["generated"] for one in said] == [one["generated"] for one in run]
    # What is given wins over what the checkpoint says.
    one = generate.generate(None, rows, checkpoint=folder, length=3, beams=1)
    assert max(row["tokens"] for row in one) <= 3


def test_a_decoder_s_checkpoint_goes_on_from_prompts(checkpoint, trained):
    folder = checkpoint("gpt")
    end = json.loads((folder / "config.json").read_text())["eos_token_id"]
    settle(folder, eos_token_id=end, do_sample=True, top_k=3, max_new_tokens=5)
    rows = [{}, {"text": "the great"}]
    found = generate.generate(None, rows, checkpoint=folder, temperature=0.0)
    run = generate.generate(trained("gpt"), rows, length=5)
    assert [a["generated"] for a in found] == [b["generated"] for b in run]
    sampled = [
        generate.generate(None, rows, checkpoint=folder, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert sampled[0] == sampled[1] != sampled[2]
    # A prompt longer than the checkpoint's maximum, and a length that is given.
    settle(folder, eos_token_id=end, max_length=2)
    with pytest.raises(ValueError, match="max_length 2 leaves no room after"):
        generate.generate(None, rows, checkpoint=folder)
    long = generate.generate(None, rows, checkpoint=folder, length=5)
    assert [a["generated"] for a in long] == [b["generated"] for b in run]
    settle(folder, eos_token_id=end, no_repeat_ngram_size=2)
    with pytest.raises(ValueError, match="no_repeat_ngram_size = 2"):
        generate.generate(None, rows, checkpoint=folder)
    made = generate.generate(
        None, rows, checkpoint=folder, without=["no_repeat_ngram_size"], length=2
    )
    assert len(made) == 2


def test_bad_texts_are_told(checkpoint, trained, tmp_path):
    source = checkpoint("translation")
    settle(source, decoder_start_token_id=0)
    with pytest.raises(config.ConfigError, match="no eos_token_id"):
        generate.generate(None, [{"text": "a"}], checkpoint=source)
    folder = checkpoint("gpt")
    settle(folder)
    long = [{"text": "the great " * 200}]
    for given in (dict(workdir=None, checkpoint=folder), dict(workdir=trained("gpt"))):
        with pytest.raises(ValueError, match=r"positions.*truncate (it|them)"):
            generate.generate(**given, rows=long, length=3)
        with pytest.raises(ValueError, match="half of a surrogate pair"):
            generate.generate(**given, rows=[{"text": "a \ud800"}], length=3)
    # An empty object is an empty prompt, an empty line is nothing.
    lines = ["{}", "", "a"]
    assert [*predict.read_lines(lines, "in", needed=())] == [{}, {"text": "a"}]
    marked = tmp_path / "marked.jsonl"
    marked.write_text('{"text": "a", "id": 3}\n', "utf-8-sig")
    with open(marked, encoding="utf-8") as file:
        assert [*predict.read_lines(file, "in")] == [{"text": "a", "id": 3}]
    latin = tmp_path / "latin.txt"
    latin.write_bytes("one\ncaf\xe9\n".encode("latin-1"))
    with pytest.raises(config.ConfigError, match=r"latin\.txt: not UTF-8"):
        generate.main(["--workdir", str(trained("gpt")), "--input", str(latin)])
    with pytest.raises(config.ConfigError, match="fmjax convert"):
        generate.main(["--checkpoint", str(folder), "--split", "test"])
    with pytest.raises(config.ConfigError, match="--workdir, or a public"):
        generate.generate(None, [{"text": "a"}])


def test_a_tokenizer_of_another_checkpoint_is_refused(checkpoint, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(checkpoint("gpt"), folder)
    settings = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(
        tokenizer["added_tokens"][0]
        | {"id": settings["vocab_size"] + 3, "content": "<far>"}
    )
    vocab = tokenizer["model"]["vocab"]
    vocab["<far>"] = settings["vocab_size"] + 3
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="does not match the checkpoint"):
        generate.generate(None, [{"text": "a"}], checkpoint=folder)
