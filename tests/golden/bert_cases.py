"""The cases in which BERT is held against transformers, and our side of each.

Shared by the ordinary test against committed numbers and by the parity test against
the live reference; needs no torch. Everything is a flat dict of arrays with the
reference's names: input/, output/, act/ (named intermediates), grad/, and loss.
"""

import dataclasses

import jax
import numpy as np
import optax

from fmjax.interop import bert, names


@dataclasses.dataclass(frozen=True)
class Case:
    """kind: a transformers class; padding: where rows are masked; golden: committed."""

    kind: str
    padding: str
    length: int
    hidden_size: int = 12
    num_hidden_layers: int = 2
    num_attention_heads: int = 3
    intermediate_size: int = 20
    vocab_size: int = 31
    max_position_embeddings: int = 9
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    num_labels: int = 2
    golden: bool = False

    def config(self):
        """Keywords of transformers.BertConfig."""
        ours = ("kind", "padding", "length", "golden")
        fields = {k: v for k, v in dataclasses.asdict(self).items() if k not in ours}
        # With a padding id the reference stops that row's gradient, which neither the
        # paper nor fmjax does.
        return fields | {"pad_token_id": None}


CASES = {
    "pretrain": Case("BertForPreTraining", "right", 7, golden=True),
    "pretrain-full": Case("BertForPreTraining", "none", 9, hidden_act="gelu_new"),
    "pretrain-one-type": Case(
        "BertForPreTraining", "left", 8, type_vocab_size=1, hidden_act="silu"
    ),
    "pretrain-seven-heads": Case(
        "BertForPreTraining",
        "right",
        33,
        hidden_size=49,
        num_attention_heads=7,
        intermediate_size=101,
        vocab_size=257,
        max_position_embeddings=40,
        num_hidden_layers=3,
    ),
    "pretrain-wide": Case(
        "BertForPreTraining",
        "right",
        64,
        hidden_size=192,
        num_attention_heads=3,
        intermediate_size=768,
        vocab_size=1001,
        max_position_embeddings=64,
        num_hidden_layers=6,
    ),
    "encoder": Case(
        "BertModel", "left", 9, type_vocab_size=1, hidden_act="relu", golden=True
    ),
    "encoder-one-token": Case("BertModel", "none", 1, num_attention_heads=1),
    "encoder-one-layer": Case(
        "BertModel", "middle", 6, num_hidden_layers=1, type_vocab_size=5
    ),
    "encoder-quick-gelu": Case("BertModel", "right", 9, hidden_act="quick_gelu"),
    "classify": Case(
        "BertForSequenceClassification",
        "right",
        6,
        num_labels=3,
        hidden_act="gelu_new",
        num_attention_heads=4,
        golden=True,
    ),
    "classify-tanh": Case(
        "BertForSequenceClassification",
        "left",
        9,
        num_labels=5,
        hidden_act="tanh",
        layer_norm_eps=1e-5,
        hidden_size=15,
        num_attention_heads=5,
    ),
    "mlm": Case("BertForMaskedLM", "left", 8, hidden_act="quick_gelu"),
    "tag": Case("BertForTokenClassification", "right", 7, num_labels=4),
    "tag-wide": Case(
        "BertForTokenClassification", "right", 9, num_labels=9, hidden_size=126
    ),
    "span": Case("BertForQuestionAnswering", "right", 9, num_attention_heads=2),
    "span-one-type": Case("BertForQuestionAnswering", "left", 6, type_vocab_size=1),
    "choose": Case("BertForMultipleChoice", "right", 8),
    "choose-seven-heads": Case(
        "BertForMultipleChoice", "left", 9, hidden_size=21, num_attention_heads=7
    ),
}


ROWS = 2  # of a committed batch: all fixtures together stay below 1 MB


def inputs(case, seed=0, batch=3):
    """Random inputs and targets: input/tokens, types, mask, and what the loss needs."""
    random = np.random.default_rng(seed)
    shape = (batch, case.length)
    mask = np.ones(shape, bool)
    for row, padding in enumerate((0, 1, case.length // 2)[:batch]):
        match case.padding:
            case "left":
                mask[row, :padding] = False
            case "right":
                mask[row, case.length - padding :] = False
            case "middle":
                mask[row, 1 : 1 + padding] = False
    out = {
        "tokens": random.integers(0, case.vocab_size, shape, np.int32),
        "types": random.integers(0, case.type_vocab_size, shape, np.int32),
        "mask": mask,
    }
    if case.kind in ("BertForPreTraining", "BertForMaskedLM"):
        count = max(1, case.length // 4)
        order = np.argsort(random.random(shape), axis=1)[:, :count]
        out["positions"] = np.sort(order, axis=1).astype(np.int32)
        out["targets"] = random.integers(0, case.vocab_size, (batch, count), np.int32)
        if case.kind == "BertForPreTraining":
            out["next"] = random.integers(0, 2, batch, np.int32)
    elif case.kind == "BertModel":
        hidden = (*shape, case.hidden_size)
        out["hidden_weight"] = random.random(hidden, np.float32)
        out["pooled_weight"] = random.random(hidden[::2], np.float32)
    elif case.kind == "BertForTokenClassification":
        out["label"] = random.integers(0, case.num_labels, shape, np.int32)
    elif case.kind == "BertForQuestionAnswering":
        out["first"], out["last"] = random.integers(
            0, case.length, (2, batch), np.int32
        )
    elif case.kind == "BertForMultipleChoice":
        # As many questions as options, from the same texts in two orders.
        out = {k: np.stack([v, v[::-1]], axis=1) for k, v in out.items()}
        out["label"] = random.integers(0, 2, batch, np.int32)
    else:
        out["label"] = random.integers(0, case.num_labels, batch, np.int32)
    return {f"input/{name}": value for name, value in out.items()}


def ours(net, variables, given):
    """What fmjax computes for `inputs`, under the reference's names."""
    given = {name.removeprefix("input/"): value for name, value in given.items()}
    feed = {k: given[k] for k in ("tokens", "types", "mask")}

    def loss(params):
        if net.head == "pretrain":
            feed_at = feed | {"positions": given["positions"]}
            tokens, pair = net.apply({"params": params}, feed_at)
            terms = ((tokens, given["targets"]), (pair, given["next"]))
        elif net.head == "mlm":
            feed_at = feed | {"positions": given["positions"]}
            terms = ((net.apply({"params": params}, feed_at), given["targets"]),)
        elif net.head == "span":
            logits = net.apply({"params": params}, feed)
            ends = (given["first"], given["last"])
            terms = tuple((logits[..., i], end) for i, end in enumerate(ends))
        elif net.head in ("classify", "tag", "choose"):
            terms = ((net.apply({"params": params}, feed), given["label"]),)
        else:
            hidden, pooled = net.apply({"params": params}, feed)
            hidden = (hidden**2 * given["hidden_weight"]).mean()
            return hidden + (pooled**2 * given["pooled_weight"]).mean()
        entropy = optax.softmax_cross_entropy_with_integer_labels
        total = sum(entropy(logits, labels).mean() for logits, labels in terms)
        return total / 2 if net.head == "span" else total  # the reference's mean

    @jax.jit
    def everything(variables):
        outputs, seen = net.apply(variables, feed, capture_intermediates=True)
        value, grads = jax.value_and_grad(loss)(variables["params"])
        return jax.tree.leaves(outputs), seen["intermediates"], value, grads

    outputs, seen, value, grads = everything(variables)
    if net.head == "span":
        outputs = [outputs[0][..., 0], outputs[0][..., 1]]
    out = {f"output/{i}": array for i, array in enumerate(outputs)} | {"loss": value}
    seen, entries = names.flatten(seen), bert.entries(net)
    for entry in entries:
        module, _, leaf = entry.path.rpartition("/")
        if leaf in ("kernel", "scale"):
            # Each linear map and norm is a module in both; its output is the same.
            name = bert.public(net, entry.name).removesuffix(".weight")
            out[f"act/{name}"] = seen[f"{module}/__call__"][0]
    flat = {path: np.asarray(grad) for path, grad in names.flatten(grads).items()}
    for name, grad in names.collect(flat, entries).items():
        out[f"grad/{bert.public(net, name)}"] = grad
    return {name: np.asarray(array) for name, array in out.items()}


def differences(expected, got):
    """The largest differences as {'act', 'output', 'loss', 'grad'}, and worst cosine.

    act, output: absolute. loss: relative. grad: relative to the largest entry of that
    parameter's gradient. Softmax does not see a key's bias, nor one that all of its
    scores have (places of an answer, options), so both sides' gradient is
    nothing but rounding: it is measured against the kernel's. Likewise all that
    leads to the softmax over a single token, whence the millionth of the largest.
    """
    assert set(expected) == set(got), sorted(set(expected) ^ set(got))
    largest = max(
        float(np.abs(v).max()) for k, v in expected.items() if k.startswith("grad/")
    )
    worst = {"act": 0.0, "output": 0.0, "loss": 0.0, "grad": 0.0, "cosine": 1.0}
    for name, want in expected.items():
        have, kind = got[name], name.partition("/")[0]
        assert have.shape == want.shape, (name, have.shape, want.shape)
        difference = float(np.abs(have - want).max())
        if kind == "loss":
            difference /= abs(float(want))
        if kind == "grad":
            unseen = [".key.bias", ".k_proj.bias", ".k_norm.bias", "qa_outputs.bias"]
            if "grad/qa_outputs.bias" in expected:
                # The same for all places, whatever the head's kernel.
                norms = [n for n in expected if n.endswith(".output.LayerNorm.bias")]
                unseen.append(max(n for n in norms if ".attention." not in n))
            if name.endswith(tuple(unseen)) or want.shape == (1,):
                scale = expected[name.removesuffix("bias") + "weight"]
            else:
                scale = want
            difference /= max(float(np.abs(scale).max()), largest / 1e6)
        if kind in ("act", "output"):
            a, b = have.ravel().astype(float), want.ravel().astype(float)
            cosine = a @ b / np.sqrt((a @ a) * (b @ b))
            worst["cosine"] = min(worst["cosine"], float(cosine))
        worst[kind] = max(worst[kind], difference)
    return worst


def assert_within_bars(width, worst):
    """The project's bars for parity in float32 on CPU, stricter for tiny configs."""
    bar = 1e-5 if width <= 64 else 1e-4
    assert worst["act"] <= bar, worst
    assert worst["output"] <= bar, worst
    assert worst["cosine"] >= 0.999999, worst
    assert worst["loss"] <= 1e-5, worst
    assert worst["grad"] <= 1e-4, worst
