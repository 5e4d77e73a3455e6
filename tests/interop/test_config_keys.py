"""No key of config.json is ignored in silence: `pytest -m parity`.

For every key of the reference's config class, changed: fmjax computes what the
reference does, or refuses the file naming the key, or the key is on a list with its
reason and the reference, too, computes the same.
"""

import importlib
import json

import jax
import numpy as np
import pytest

from fmjax import interop
from fmjax.interop import settings
from fmjax.layers import activation
from tests.golden import bert_cases, lm_cases

pytestmark = pytest.mark.parity

needs = "needs the parity extra: pip install 'fmjax[parity]'"
torch = pytest.importorskip("torch", reason=needs)
transformers = pytest.importorskip("transformers", reason=needs)

BASES = {
    "bert": ("BertForPreTraining", bert_cases.CASES["pretrain"].config()),
    "gpt2": ("GPT2LMHeadModel", lm_cases.CASES["gpt2"].config()),
    "t5": ("T5ForConditionalGeneration", lm_cases.CASES["t5"].config()),
    "marian": ("MarianMTModel", lm_cases.CASES["marian"].config()),
}

# Another value for every key, or several. Keys of all families first.
EVERY = {
    "transformers_version": ["4.0.0"],
    "_name_or_path": ["somewhere"],
    "model_type": ["roberta"],
    "dtype": ["bfloat16"],
    "output_hidden_states": [True],
    "output_attentions": [True],
    "return_dict": [False],
    "chunk_size_feed_forward": [3],
    "problem_type": ["regression"],
    "id2label": [{"0": "a", "1": "b", "2": "c"}],
    "label2id": [{"a": 0, "b": 1, "c": 2}],
    "vocab_size": [37],
    "use_cache": [False],
    "initializer_range": [0.5],
    "tie_word_embeddings": [False],
    "pad_token_id": [3],
    "bos_token_id": [5],
    "eos_token_id": [6],
}
OWN = {
    "bert": {
        "architectures": [["BertModel"], ["BertForMaskedLM"]],
        "is_encoder_decoder": [True],
        "hidden_size": [24],
        "num_hidden_layers": [3],
        "num_attention_heads": [4],
        "intermediate_size": [21],
        "hidden_act": ["relu", "gelu_new", "selu"],
        "hidden_dropout_prob": [0.25],
        "attention_probs_dropout_prob": [0.25],
        "max_position_embeddings": [11],
        "type_vocab_size": [3],
        "layer_norm_eps": [0.1],
        "classifier_dropout": [0.25],
        "is_decoder": [True],
        "add_cross_attention": [True],
    },
    "gpt2": {
        "architectures": [["GPT2Model"]],
        "is_encoder_decoder": [True],
        "n_positions": [13],
        "n_embd": [24],
        "n_layer": [3],
        "n_head": [4],
        "n_inner": [17],
        "activation_function": ["relu", "gelu", "mish"],
        "resid_pdrop": [0.25],
        "embd_pdrop": [0.25],
        "attn_pdrop": [0.25],
        "layer_norm_epsilon": [0.1],
        "summary_type": ["mean"],
        "summary_use_proj": [False],
        "summary_activation": ["tanh"],
        "summary_proj_to_labels": [False],
        "summary_first_dropout": [0.25],
        "scale_attn_weights": [False],
        "scale_attn_by_inverse_layer_idx": [True],
        "reorder_and_upcast_attn": [True],
        "add_cross_attention": [True],
    },
    "t5": {
        "architectures": [["T5Model"]],
        "is_encoder_decoder": [False],
        "d_model": [24],
        "d_kv": [4],
        "d_ff": [21],
        "num_layers": [3],
        "num_decoder_layers": [3],
        "num_heads": [4],
        "relative_attention_num_buckets": [8],
        "relative_attention_max_distance": [5],
        "dropout_rate": [0.25],
        "layer_norm_epsilon": [0.1],
        "initializer_factor": [2.0],
        "feed_forward_proj": ["gated-gelu", "gated-silu", "gelu", "gated-mish"],
        "classifier_dropout": [0.25],
        "is_decoder": [True],
        "dense_act_fn": ["silu"],
        "is_gated_act": [True],
        "scale_decoder_outputs": [False],
    },
    "marian": {
        "architectures": [["MarianModel"]],
        "is_encoder_decoder": [False],
        "decoder_vocab_size": [29],
        "max_position_embeddings": [14],
        "encoder_layers": [3],
        "encoder_ffn_dim": [21],
        "encoder_attention_heads": [4],
        "decoder_layers": [3],
        "decoder_ffn_dim": [21],
        "decoder_attention_heads": [4],
        "encoder_layerdrop": [0.5],
        "decoder_layerdrop": [0.5],
        "activation_function": ["relu", "tanh", "selu"],
        "d_model": [24],
        "dropout": [0.25],
        "attention_dropout": [0.25],
        "activation_dropout": [0.25],
        "init_std": [0.5],
        "decoder_start_token_id": [4],
        "scale_embedding": [False],
        "forced_eos_token_id": [3],
        "share_encoder_decoder_embeddings": [False],
        "is_decoder": [True],
    },
}


def changes(family):
    """Pairs of a key and a value for it, of one family."""
    known = EVERY | OWN[family]
    if family == "marian":
        known = {k: v for k, v in known.items() if k != "initializer_range"}
    if family == "t5":
        known = {k: v for k, v in known.items() if k != "initializer_range"}
        known = {k: v for k, v in known.items() if k != "bos_token_id"}
    return [(key, value) for key, values in known.items() for value in values]


def reference(family, config):
    """A reference in evaluation mode; equally named and shaped weights are equal."""
    kind = getattr(transformers, BASES[family][0])
    net = kind(kind.config_class(**config, attn_implementation="eager")).eval()
    if family == "t5" and not config.get("tie_word_embeddings", True):
        # Version 5 ties it always; files that have both are read as they are.
        net.lm_head.weight = torch.nn.Parameter(torch.zeros(net.lm_head.weight.shape))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "embed_positions" not in name:
                seed = sum(map(ord, name))
                noise = torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(seed)
                )
                norm = parameter.ndim == 1 and name.endswith("weight")
                parameter.copy_(1 + 0.2 * noise if norm else 0.3 * noise)
    return net


def given(family):
    """Tokens, a mask, and for two sides the decoder's."""
    random = np.random.default_rng(0)
    tokens = random.integers(0, 29, (2, 2, 9), np.int32)
    mask = np.arange(9) < np.array([[9], [6]])
    if family == "gpt2":  # what stands at padding is nobody's business
        mask = np.ones_like(mask)
    inputs = {"tokens": tokens[0], "mask": mask}
    if family in ("t5", "marian"):
        inputs["decoder_tokens"] = tokens[1]
    return inputs


def theirs(net, family):
    """All floating outputs of the reference: logits first."""
    inputs = {k: torch.tensor(v) for k, v in given(family).items()}
    feed = {"input_ids": inputs["tokens"].long()}
    feed |= {"attention_mask": inputs["mask"].long()}
    if "decoder_tokens" in inputs:
        feed["decoder_input_ids"] = inputs["decoder_tokens"].long()
    for module in net.modules():  # with False, version 5.23 fails by itself
        if hasattr(module, "config"):
            module.config.return_dict = True
    with torch.no_grad():
        said = net(**feed)
    return [said[i].numpy() for i in range(2 if family == "bert" else 1)]


def base_config(family):
    return BASES[family][1] | {"architectures": [BASES[family][0]]}


def write(folder, family, net, config):
    """A checkpoint whose config.json says exactly `config`."""
    net.save_pretrained(folder)
    text = json.dumps({"model_type": family, **config})
    (folder / "config.json").write_text(text)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """By family: (net, variables, the reference's outputs) of the unchanged config."""
    made = {}

    def get(family):
        if family not in made:
            config = base_config(family)
            net, folder = reference(family, config), tmp_path_factory.mktemp(family)
            write(folder, family, net, config)
            made[family] = interop.load(folder)[0], theirs(net, family)
        return made[family]

    return get


@pytest.mark.parametrize("family", BASES)
def test_there_is_another_value_for_every_key(family):
    kind = getattr(transformers, BASES[family][0])
    keys = set(kind.config_class().to_dict())
    assert {key for key, _ in changes(family)} == keys
    plain = kind.config_class(**base_config(family)).to_dict()
    for key, value in changes(family):
        assert plain[key] != value, key


@pytest.mark.parametrize("name", settings.ACTIVATIONS)
def test_an_activation_is_the_reference_s_of_that_name(name):
    x = np.linspace(-9, 9, 999, dtype=np.float32)
    want = transformers.activations.ACT2FN[name](torch.tensor(x)).numpy()
    ours = activation.ACTIVATIONS[settings.ACTIVATIONS[name]](x)
    np.testing.assert_allclose(ours, want, atol=2e-6)


@pytest.mark.parametrize("family", BASES)
def test_second_names_of_keys_are_the_reference_s(family):
    kind = getattr(transformers, BASES[family][0])
    module = importlib.import_module(f"fmjax.interop.{interop.FAMILIES[family]}")
    assert getattr(module, "ALIASES", {}) == kind.config_class.attribute_map


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [(family, key, value) for family in BASES for key, value in changes(family)],
    ids=lambda x: str(x)[:24],
)
def test_a_changed_key_is_followed_or_refused_or_harmless(
    family, key, value, base, tmp_path
):
    plain, before = base(family)
    config = base_config(family) | {key: value}
    module = importlib.import_module(f"fmjax.interop.{interop.FAMILIES[family]}")
    try:
        built = {k: v for k, v in config.items() if k not in ("model_type", "dtype")}
        net = reference(family, built)
    except Exception:  # of many kinds: the reference has no such model either
        net = None
    write(tmp_path, family, net or reference(family, base_config(family)), config)
    try:
        loaded = interop.read(tmp_path)
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        print(f"{family} {key}={value!r}: refused")
        assert key in refusal
        return
    assert net is not None, f"the reference refuses {key}={value!r}, fmjax does not"
    assert loaded.report.settings == (), f"{key} is not known at all"
    after = theirs(net, family)
    same = all(
        a.shape == b.shape and np.abs(a - b).max() <= 1e-6
        for a, b in zip(before, after, strict=True)
    )
    followed = loaded.net != plain
    print(f"{family} {key}={value!r}: {'followed' if followed else 'harmless'}")
    if not followed:
        listed = {*settings.HARMLESS, *settings.LABELS}
        assert key in listed | {*getattr(module, "UNUSED", ())}
        assert same, f"{key} changes the reference's outputs"
    assert loaded.report.missing == loaded.report.unknown == ()
    have = jax.tree.leaves(loaded.net.apply(loaded.variables, given(family)))
    if key != "architectures":
        assert len(have) == len(after)
        for ours, want in zip(have, after, strict=True):
            np.testing.assert_allclose(ours, want, atol=2e-5)
