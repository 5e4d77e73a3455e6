"""Adapters in peft's format: round trips, refusals, and (parity) peft itself."""

import json
import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fmjax import interop, transforms
from fmjax.interop import peft
from fmjax.transforms import lora
from tests.transforms.test_transforms import INPUTS, stirred

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
BASES = {"bert": GOLDEN / "bert/classify", "gpt": GOLDEN / "lm/gpt2"}
BASES |= {"t5": GOLDEN / "lm/t5", "transformer": GOLDEN / "lm/marian"}
# What is adapted; GPT-2's three maps of one tensor, all, and one of them.
CASES = [
    ("bert", dict(rank=3, alpha=6.0), "^classify"),
    ("bert", dict(rank=2, dora=True, target="query$"), None),
    ("gpt", dict(rank=2, target="(query|key|value)$"), None),
    ("gpt", dict(rank=2, target="query$", alpha=1.0), None),
    ("t5", dict(rank=2, target="(query|up|down)$"), None),
    ("transformer", dict(rank=2), None),
]


def adapted(family, fields):
    base, variables = interop.load(BASES[family])
    net = lora.transform(base, **fields)
    inputs = {k: v % base.vocab_size if k != "mask" else v for k, v in INPUTS[
        family].items()}  # fmt: skip
    fresh = net.init(jax.random.key(0), inputs)["params"]
    added = stirred(transforms.split(net, fresh)[1])
    params = transforms.join(variables["params"], added)
    return net, params, inputs


@pytest.mark.parametrize(("family", "fields", "whole"), CASES)
def test_what_was_written_is_read(family, fields, whole, tmp_path):
    net, params, inputs = adapted(family, fields)
    peft.save(tmp_path, net, params, whole=whole)
    again, added = peft.load(tmp_path, net.net)
    flat = transforms.flatten(params)
    for path, value in transforms.flatten(added).items():
        if path in flat and "lora" not in path:
            assert whole
            assert np.array_equal(value, flat[path])
            flat.pop(path)
    kept = {p: v for p, v in flat.items() if not net.owns(p)}
    together = transforms.join(transforms.unflatten(kept), added)
    expected = net.apply({"params": params}, inputs)
    found = again.apply({"params": together}, inputs)
    assert np.allclose(expected, found, atol=1e-6)


def broken(tmp_path, tensors=lambda t: None, **config):
    net, params, _ = adapted("bert", dict(rank=3))
    peft.save(tmp_path, net, params)
    path = tmp_path / peft.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    found = load_file(tmp_path / peft.WEIGHTS)
    tensors(found)
    save_file(found, tmp_path / peft.WEIGHTS)
    return net.net


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(peft_type="VERA"), "peft_type"),
        (dict(bias="all"), "bias"),
        (dict(rank_pattern={"query": 2}), "rank_pattern"),
        (dict(r=5), r"lora_A.weight has shape \(3, \d+\), expected \(5, "),
        (dict(r="3"), "r"),
    ],
)
def test_what_would_change_the_numbers_is_refused(config, message, tmp_path):
    net = broken(tmp_path, **config)
    with pytest.raises(ValueError, match=message):
        peft.load(tmp_path, net)


def rename(tensors):
    key = next(iter(tensors))
    tensors[key.replace("layer.0", "layer.9")] = tensors.pop(key)


def test_a_tensor_without_a_place_is_named(tmp_path):
    net = broken(tmp_path, rename)
    with pytest.raises(ValueError, match=r"has no base_model.*layer\.9"):
        peft.load(tmp_path, net)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")  # what peft and transformers say to each other
@pytest.mark.parametrize(("family", "fields", "whole"), CASES)
def test_peft_loads_it_and_gives_the_same_logits(family, fields, whole, tmp_path):
    reference = pytest.importorskip("peft")
    torch, transformers = (pytest.importorskip(x) for x in ("torch", "transformers"))
    net, params, inputs = adapted(family, fields)
    if whole:
        params["classify"] = jax.tree.map(lambda x: x + 0.1, params["classify"])
    peft.save(tmp_path, net, params, whole=whole)
    config = json.loads((BASES[family] / "config.json").read_text())
    kind = getattr(transformers, config["architectures"][0])
    model = kind.from_pretrained(BASES[family]).eval()
    model = reference.PeftModel.from_pretrained(model, tmp_path).eval()
    names = {"tokens": "input_ids", "mask": "attention_mask"}
    names["decoder_tokens"] = "decoder_input_ids"
    feed = {names[k]: torch.tensor(np.asarray(v)).long() for k, v in inputs.items()}
    with torch.no_grad():
        theirs = model(**feed).logits.numpy()
    ours = net.apply({"params": params}, inputs)
    assert np.abs(theirs - ours).max() < 2e-5
    model.save_pretrained(tmp_path / "back")
    again, added = peft.load(tmp_path / "back", net.net)
    flat = transforms.flatten(params) | transforms.flatten(added)
    found = again.apply({"params": transforms.unflatten(flat)}, inputs)
    assert np.abs(theirs - found).max() < 2e-5
