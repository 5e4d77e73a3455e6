"""Recipes at the papers' sizes: the numbers that the papers and their code give."""

import pytest

from fmjax import config
from fmjax.models import t5
from tests.runs import ROOT


def settings(name, variant):
    return config.load(f"{ROOT}/configs/{name}.py:{variant}")


@pytest.mark.parametrize("size", ["base", "large"])
def test_bert(size):
    # arXiv:1810.04805, A.2, and google-research/bert's optimization.py
    c = settings("bert/pretrain", size)
    optim = dict(name="bertadam", lr=1e-4, eps=1e-6, weight_decay=0.01, clip=1.0)
    optim |= dict(schedule="linear", warmup="10000 steps")
    assert {key: c["optim"][key] for key in optim} == optim
    assert set(c["optim"]) == set(optim)  # b1 0.9, b2 0.999: the defaults
    assert (c["batch_size"], c["steps"]) == (256, "1000000 steps")
    assert c["model"]["dropout"] == c["model"]["attention_dropout"] == 0.1
    assert c["tokenizer"] == {"vocab_size": 30522, "cased": False}
    assert c["inputs"] == {"name": "masked_pairs", "rate": 0.15, "predictions": 77}
    assert (c["data"]["length"], c["data"]["copies"]) == (512, 10)


@pytest.mark.parametrize("size", ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"])
def test_gpt2_has_512_windows_a_step(size):
    # Radford et al. 2019, section 2.3
    c = settings("gpt/language_model", size)
    assert (c["batch_size"], c["data"]["length"]) == (512, 1024)


def test_gpt3():
    # arXiv:2005.14165, table 2.1 and appendix B
    c = settings("gpt/language_model", "gpt3-175b")
    optim = dict(name="adamw", lr=0.6e-4, b2=0.95, weight_decay=0.1, clip=1.0)
    optim |= dict(schedule="cosine", final=0.1)
    assert {key: c["optim"][key] for key in optim} == optim
    tokens = c["batch_size"] * c["data"]["length"]
    assert tokens == pytest.approx(3.2e6, rel=0.005)
    warmup, steps = (
        int(c[at].split()[0]) for c, at in ((c["optim"], "warmup"), (c, "steps"))
    )
    assert warmup * tokens == pytest.approx(375e6, rel=0.01)
    assert steps * tokens == pytest.approx(300e9, rel=0.001)


@pytest.mark.parametrize(("size", "dropout"), [("base", 0.1), ("1.1-base", 0.0)])
def test_t5(size, dropout):
    # arXiv:1910.10683, sections 3.1 and 3.7
    c = settings("t5/pretrain", size)
    assert c["optim"] == dict(
        name="adafactor", lr=0.01, schedule="rsqrt", warmup="10000 steps"
    )
    assert (c["batch_size"], c["inputs"]["window"]) == (2048, 568)
    assert c["model"]["dropout"] == dropout
    assert t5.SIZES[size]["bias_deviation"] is None  # the authors' initialiser
    assert c["objective"] == {"name": "next_token", "z_loss": 1e-4}


@pytest.mark.parametrize(("size", "rate"), [("base", 7e-4), ("big", 4.94e-4)])
def test_transformer(size, rate):
    # arXiv:1706.03762, section 5
    c = settings("transformer/translation", size)
    optim = dict(name="adam", b2=0.98, eps=1e-9, schedule="rsqrt", warmup="4000 steps")
    assert c["optim"] == optim | {"lr": pytest.approx(rate, rel=0.002)}
    assert c["objective"]["label_smoothing"] == 0.1
    # 25,000 tokens a side, where a side of WMT's English to German has some 30.
    assert c["batch_size"] * 30 == pytest.approx(25_000, rel=0.01)
