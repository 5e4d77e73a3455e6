"""BERT in Hugging Face's format (transformers' BertModel and its heads)."""

from collections.abc import Callable, Mapping, Set
from typing import Any

import numpy as np

from fmjax.interop import names, sentence_folder, settings
from fmjax.interop.names import Entry
from fmjax.interop.settings import ACTIVATIONS, integer, number
from fmjax.models import bert

Model = bert.Model
ARCHITECTURES: dict[str, str | None] = {
    "BertModel": None,
    "BertForPreTraining": "pretrain",
    "BertForMaskedLM": "mlm",
    "BertForSequenceClassification": "classify",
    "BertForMultipleChoice": "choose",
    "BertForTokenClassification": "tag",
    "BertForQuestionAnswering": "span",
}
CLASSED = ("classify", "tag")  # heads whose classes the config counts

WRITTEN = {head: name for name, head in ARCHITECTURES.items()} | {"embed": "BertModel"}

# What transformers takes where config.json is silent (BertConfig's signature).
DEFAULTS: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "classifier_dropout": None,
}

# Each would change the mathematics; only these values are what `models/bert.py` does.
REQUIRED: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
    "tie_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
}

# What changes the outputs and no shape shows.
UNSEEN = ("num_attention_heads", "hidden_act", "layer_norm_eps")

check_embed = sentence_folder.check

# The least that traces a net.
INPUTS = {"tokens": np.zeros((1, 1), np.int32)}


def fields(
    config: Mapping[str, Any],
    head: str | None,
    classes: int | None,
    found: Set[str] = frozenset(),
) -> dict[str, Any]:
    """Fields of `models.bert.Model` for a config.json, checked as hostile input."""
    settings.require(config, REQUIRED)
    if head in ("pretrain", "mlm"):
        # An untied decoder is a different model; the encoder alone does not mind.
        settings.require(config, {"tie_word_embeddings": (True,)})
    if head in CLASSED and classes is None:
        classes = settings.classes(config)
    c = DEFAULTS | dict(config)
    dropout = c["classifier_dropout"]
    return {
        "vocab_size": integer(c, "vocab_size", 100_000_000),
        "width": integer(c, "hidden_size", 1_000_000),
        "depth": integer(c, "num_hidden_layers", 1_000),
        "heads": integer(c, "num_attention_heads", 10_000),
        "mlp_width": integer(c, "intermediate_size", 10_000_000),
        "max_length": integer(c, "max_position_embeddings", 100_000_000),
        "types": integer(c, "type_vocab_size", 1_000_000),
        "dropout": number(c, "hidden_dropout_prob", below=1),
        "attention_dropout": number(c, "attention_probs_dropout_prob", below=1),
        "head_dropout": (
            None if dropout is None else number(c, "classifier_dropout", below=1)
        ),
        "activation": settings.choice(c, "hidden_act", ACTIVATIONS),
        "eps": number(c, "layer_norm_eps", below=1),
        "head": head,
        "classes": classes if head in CLASSED else None,
    }


def read_as(config: Mapping[str, Any], head: str | None) -> str | None:
    """The head to read a checkpoint under, for a net whose head is `head`.

    `classifier.*` is another map in every architecture, so that it serves the same
    head only.
    """
    named = config.get("architectures")
    own = {ARCHITECTURES.get(a) for a in named or [] if isinstance(a, str)}
    if head in ("pretrain", "mlm") or head in own:
        return head
    return None if head in bert.POOLED else "embed"


def config(net: bert.Model) -> dict[str, Any]:
    """config.json for a net: the inverse of `fields`."""
    out: dict[str, Any] = {
        "architectures": [WRITTEN[net.head]],
        "model_type": "bert",
        "vocab_size": net.vocab_size,
        "hidden_size": net.width,
        "num_hidden_layers": net.depth,
        "num_attention_heads": net.heads,
        "intermediate_size": net.mlp_width,
        "max_position_embeddings": net.max_length,
        "type_vocab_size": net.types,
        "hidden_dropout_prob": net.dropout,
        "attention_probs_dropout_prob": net.attention_dropout,
        "classifier_dropout": net.head_dropout,
        "hidden_act": settings.PUBLIC[net.activation],
        "layer_norm_eps": net.eps,
        "initializer_range": 0.02,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    if net.head in CLASSED:
        assert net.classes is not None
        labels = [f"LABEL_{i}" for i in range(net.classes)]
        out["id2label"] = {str(i): label for i, label in enumerate(labels)}
        out["label2id"] = {label: i for i, label in enumerate(labels)}
    return out


def unread(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of a config.json which neither this file nor any computation knows."""
    known = {
        *DEFAULTS,
        *REQUIRED,
        *settings.LABELS,
        "tie_word_embeddings",
        *settings.HARMLESS,
    }
    return tuple(sorted(key for key in config if key not in known))


def entries(net: bert.Model) -> list[Entry]:
    """Every tensor of a net, as transformers writes it under this head."""
    e = "bert.embeddings."
    table = [
        *names.embedding(e + "word_embeddings", "embed/tokens"),
        *names.embedding(e + "position_embeddings", "embed/positions"),
        *names.embedding(e + "token_type_embeddings", "embed/segments"),
        *names.norm(e + "LayerNorm", "embed/norm"),
    ]
    if net.head in bert.POOLED:
        table += names.linear("bert.pooler.dense", "pooler")
    for i in range(net.depth):
        theirs, ours = f"bert.encoder.layer.{i}.", f"layer{i}/"
        for part in ("query", "key", "value"):
            table += names.linear(
                f"{theirs}attention.self.{part}", f"{ours}attention/{part}"
            )
        table += [
            *names.linear(theirs + "attention.output.dense", ours + "attention/out"),
            *names.norm(theirs + "attention.output.LayerNorm", ours + "attention_norm"),
            *names.linear(theirs + "intermediate.dense", ours + "mlp/up"),
            *names.linear(theirs + "output.dense", ours + "mlp/down"),
            *names.norm(theirs + "output.LayerNorm", ours + "mlp_norm"),
        ]
    return table + HEADS[net.head]


MLM = [
    *names.linear("cls.predictions.transform.dense", "mlm/dense"),
    *names.norm("cls.predictions.transform.LayerNorm", "mlm/norm"),
    Entry("cls.predictions.bias", "mlm/bias"),
]

HEADS: dict[str | None, list[Entry]] = {
    None: [],
    "embed": [],
    "mlm": MLM,
    "pretrain": [*MLM, *names.linear("cls.seq_relationship", "nsp")],
    "classify": names.linear("classifier", "classify"),
    "choose": names.linear("classifier", "choose"),
    "tag": names.linear("classifier", "tag"),
    "span": names.linear("qa_outputs", "span"),
}

# The decoder is the token table (tied), and its bias is saved under either name.
TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}


def canonical(net: bert.Model) -> Callable[[str], str]:
    """Names as files have them, to names as in `entries`.

    Files of the bare encoder have no `bert.`; files converted from TensorFlow call a
    norm's weight gamma and its bias beta.
    """
    # Other heads don't use the decoder, which may then be one of its own.
    tied = TIED if net.head in ("pretrain", "mlm") else {}

    def rename(name: str) -> str:
        if name.startswith(("embeddings.", "encoder.", "pooler.")):
            name = "bert." + name
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        return tied.get(name, name)

    return rename


def other(name: str) -> bool:
    """Does a canonical name belong to some head of BERT."""
    return name.startswith(("cls.", "classifier.", "qa_outputs.", "bert.pooler."))


def buffers(name: str, tensor: np.ndarray) -> bool:
    """Buffers which old files carry; raises ValueError where one is not the usual."""
    if name == "bert.embeddings.position_ids":
        if not np.array_equal(tensor.ravel(), np.arange(tensor.size)):
            raise ValueError(f"{name} is not 0, 1, 2 ...: other positions are refused")
        return True
    if name == "bert.embeddings.token_type_ids":
        if tensor.any():
            raise ValueError(f"{name} is not all 0: other default segments are refused")
        return True
    return False


def public(net: bert.Model, name: str) -> str:
    """The name for writing: the bare encoder's has no `bert.` in front."""
    return name.removeprefix("bert.") if net.head in (None, "embed") else name
