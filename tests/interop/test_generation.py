"""Generation as transformers has it, without torch: texts it wrote are committed.

`python -m tests.golden.make` makes them anew; test_generation_parity.py holds more
cases against the live reference.
"""

import json
import pathlib
import re

import numpy as np
import pytest
from safetensors.numpy import load_file

from fmjax import interop
from fmjax.generation import generate
from fmjax.interop import generation
from tests.golden import generation_cases

GOLDEN = pathlib.Path(generation_cases.__file__).parent / "generation"
NAMES = [name for name, text in generation_cases.TEXTS.items() if text.golden]


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_those_that_transformers_wrote(name):
    net, variables = interop.load(GOLDEN / name)
    want = load_file(GOLDEN / name / "expected.safetensors")
    text = generation_cases.TEXTS[name]
    given = generation_cases.padded(text)
    own = generation.options(GOLDEN / name, net, prompt=given["tokens"].shape[1])
    for case in generation_cases.GOLDEN:
        said = own if case == "own" else generation_cases.options(text, case)
        got = generate(net, variables, given, **said)._asdict()
        for key in ("tokens", "lengths"):
            np.testing.assert_array_equal(got[key], want.pop(f"{case}/{key}"), case)
        if f"{case}/scores" in want:
            scores = want.pop(f"{case}/scores")
            np.testing.assert_allclose(got["scores"], scores, rtol=1e-5)
    assert not want


@pytest.fixture
def folder(tmp_path):
    """`folder(name, file=..., **settings)`: a checkpoint's folder with such a file."""

    def make(name="gpt2", file="generation_config.json", **settings):
        config = json.loads((GOLDEN / name / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config))
        own = settings if file != "config.json" else config | settings
        (tmp_path / file).write_text(json.dumps(own))
        return tmp_path

    return make


def options(folder, name="gpt2", **given):
    net, _ = interop.load(GOLDEN / name)
    return generation.options(folder, net, **given)


def test_what_the_files_leave_out_is_as_transformers_has_it(folder):
    common = dict(beams=1, length_penalty=1.0, repetition_penalty=1.0)
    common |= dict(early_stopping=False, length=20)
    made = options(folder(eos_token_id=[7, 3], bos_token_id=1))
    assert made == common | dict(end=[7, 3], pad=7)
    made = options(folder("t5", eos_token_id=1, bos_token_id=4), "t5")
    assert made == common | dict(end=[1], pad=1, start=[4])
    assert options(folder()) == common | dict(end=None, pad=0)


def test_lengths_count_the_prompt_where_the_file_does(folder):
    total = folder(max_length=20, min_length=9, eos_token_id=1)
    made = options(total, prompt=8)
    assert (made["length"], made["min_length"]) == (12, 1)
    assert not {"length", "min_length"} & set(options(total))
    with pytest.raises(ValueError, match="leaves no room after 20"):
        options(total, prompt=20)
    made = options(folder(max_new_tokens=5, min_new_tokens=2, eos_token_id=1), prompt=8)
    assert (made["length"], made["min_length"]) == (5, 2)
    source = folder("t5", max_length=20, min_length=9, decoder_start_token_id=0)
    assert options(source, "t5")["length"] == 19


def test_a_checkpoint_that_samples(folder):
    made = options(folder(do_sample=True))
    assert (made["temperature"], made["top_k"], made["top_p"]) == (1.0, 50, 1.0)
    made = options(folder(do_sample=True, top_k=0, temperature=0.6, top_p=0.9))
    assert (made["temperature"], made["top_k"], made["top_p"]) == (0.6, None, 0.9)
    assert "top_k" not in options(folder(do_sample=False, top_k=5))


def test_without_its_own_file_the_older_place_is_read(folder):
    old = folder("marian", "config.json", num_beams=6, bad_words_ids=[[30]])
    made = options(old, "marian")
    assert (made["beams"], made["suppress"], made["start"]) == (6, [30], [30])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (dict(no_repeat_ngram_size=3), "no_repeat_ngram_size = 3"),
        (dict(forced_bos_token_id=4), "forced_bos_token_id = 4"),
        (dict(num_return_sequences=2), "num_return_sequences = 2"),
        (dict(brand_new=1, typical_p=0.5), "brand_new = 1, typical_p = 0.5"),
        (dict(bad_words_ids=[[3, 4]]), "lists of one id"),
        (dict(eos_token_id="</s>"), "eos_token_id must be a token's id"),
        (dict(num_beams=0), "num_beams must be a whole number from 1"),
        (dict(num_beams=2, do_sample=True), "beams search and don't sample"),
        (dict(eos_token_id=3, forced_eos_token_id=4), "must be eos_token_id"),
        (dict(length_penalty="1"), "length_penalty must be a number"),
    ],
)
def test_what_would_change_texts_is_refused_by_name(folder, settings, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        options(folder(**settings))


def test_a_key_can_be_left_out_knowingly(folder):
    spoiled = folder(no_repeat_ngram_size=3, num_beams=4)
    made = options(spoiled, without=["no_repeat_ngram_size"])
    assert made["beams"] == 4
    with pytest.raises(FileNotFoundError, match="no folder"):
        options(spoiled / "nowhere")
    with pytest.raises(ValueError, match="no decoder_start_token_id"):
        options(folder("t5", eos_token_id=1), "t5")
