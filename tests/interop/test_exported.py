"""transformers loads an exported run, tokenizer included: `pytest -m parity`."""

import json
import unicodedata

import jax
import numpy as np
import pytest

from fmjax import checkpoint, convert, generate, interop
from fmjax import workdir as workdirs
from fmjax.data import tokenizer as tokenizers
from fmjax.data import vocabulary
from tests import runs

pytestmark = pytest.mark.parity

needs = "needs the parity extra: pip install 'fmjax[parity]'"
torch = pytest.importorskip("torch", reason=needs)
transformers = pytest.importorskip("transformers", reason=needs)

RUNS = {
    "classify": ("configs/bert/topics.py", "AutoModelForSequenceClassification"),
    "tag": ("configs/bert/tagging.py", "AutoModelForTokenClassification"),
    "pretrain": ("configs/bert/pretrain.py", "AutoModelForPreTraining"),
    "gpt": ("configs/gpt/language_model.py", "AutoModelForCausalLM"),
    "t5": ("configs/t5/boolq.py", "AutoModelForSeq2SeqLM"),
    "translation": ("configs/transformer/translation.py", "AutoModelForSeq2SeqLM"),
}
TEXTS = ["The fine lamp!", "a dull table"]


@pytest.mark.parametrize("name", RUNS)
def test_transformers_gives_equal_logits_and_texts(name, tmp_path):
    file, auto = RUNS[name]
    runs.run(tmp_path / "run", runs.tiny(file, steps="2 steps"))
    convert.save(tmp_path / "run", tmp_path / "public")
    run = workdirs.open_run(tmp_path / "run")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "public")
    net, info = getattr(transformers, auto).from_pretrained(
        tmp_path / "public", attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values()), info

    pairs = [None, ["lamp", "of lamps"]] if name in ("classify", "pretrain") else [None]
    for second in pairs:
        feed = tokenizer(TEXTS, second, padding=True, return_tensors="pt")
        ours = {"tokens": feed["input_ids"], "mask": feed["attention_mask"].bool()}
        if "token_type_ids" in feed:
            ours["types"] = feed["token_type_ids"]
        if name in ("t5", "translation"):
            start = torch.full((2, 1), net.config.decoder_start_token_id)
            more = torch.cat([start, feed["input_ids"][:, :3]], dim=1)
            feed["decoder_input_ids"] = ours["decoder_tokens"] = more
        if name == "gpt":
            feed["position_ids"] = (feed["attention_mask"].cumsum(1) - 1).clip(0)
        with torch.no_grad():
            said = net.eval()(**feed)
        want = said.prediction_logits if name == "pretrain" else said.logits
        ours = {
            k: np.asarray(v) if v.dtype == torch.bool else np.asarray(v, np.int32)
            for k, v in ours.items()
        }
        params = jax.device_get(checkpoint.weights(tmp_path / "run")["params"])
        have = jax.jit(run.parts.net.apply)({"params": params}, ours)
        have = have[0] if name == "pretrain" else have
        real = ours["mask"] if name == "gpt" else np.ones(want.shape[:-1], bool)
        np.testing.assert_allclose(have[real], want.numpy()[real], atol=1e-5)

    # A text's ids are those that the run's own inputs make.
    (one,) = tokenizer(TEXTS[:1])["input_ids"]
    rows = {"text": TEXTS[0], "source": TEXTS[0], "words": TEXTS[0].split()}
    if name in ("classify", "translation"):
        made = run.parts.inputs(rows, None)["inputs"]
        assert one == made["tokens"][made["mask"]].tolist()
    if name == "classify":
        labels = [net.config.id2label[i] for i in range(len(run.classes))]
        assert labels == list(run.classes)
        assert net.config.label2id == {label: i for i, label in enumerate(labels)}
    if name in ("gpt", "t5", "translation"):
        prompt = "mood: " + TEXTS[0] if name == "t5" else TEXTS[0]
        key = "source" if name == "translation" else "text"
        options = dict(length=6, min_length=6)
        (ours,) = generate.generate(
            tmp_path / "run", [{key: TEXTS[0], "text": TEXTS[0]}], **options
        )
        feed = tokenizer([prompt], return_tensors="pt")
        ids = net.generate(**feed, max_new_tokens=6, min_new_tokens=6, do_sample=False)
        ids = ids[0, feed["input_ids"].shape[1] if name == "gpt" else 1 :].tolist()
        assert ours["generated"] == run.parts.tokenizer.decode(
            ids, skip_special_tokens=False
        )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_loaded_as_such(dtype, tmp_path):
    net, variables = interop.load(runs.ROOT / "tests/golden/lm/gpt2")
    interop.save(tmp_path, net, variables, dtype=dtype, shard_bytes=4000)
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert found.dtype == getattr(torch, dtype)
    table = variables["params"]["embed"]["tokens"]["embedding"].astype(dtype)
    weight = found.transformer.wte.weight.detach().float().numpy()
    np.testing.assert_array_equal(weight, table.astype("float32"))


TRICKY = [
    "Ünïcode Éa lamps",
    "  two  spaces\n",
    "don't stop",
    "灯 abc",
    "x" * 30,
    "[SEP] a",
]


# Whose lower case is longer, depends on the place or the language, or is themselves;
# and letters that are one character or two.
LETTERS = [
    *("İstanbul", "ISPARTA", "ılık", "Straße", "STRASSE", "GROẞE", "ΟΔΟΣ", "οδός"),
    *("Ä\u00c5 A\u030a", "e\u0301", "ŉ ǰ ǅ", "ﬁ", "Ⅷ", "Ω \u2126", "\u212a", "Ꭰ Ⴀ"),
    *("ガ か\u3099", "a\u00adb", "\u200bx", "𝐀 Ａ", "東京 a東"),
]
WAYS = [
    {"do_lower_case": True},
    {"do_lower_case": False},
    {"do_lower_case": True, "strip_accents": False},
    {"do_lower_case": True, "strip_accents": True},
    {"do_lower_case": False, "strip_accents": True},
    {"do_lower_case": True, "tokenize_chinese_chars": False},
    {},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_vocab_txt_is_read_as_bert_s(way, tmp_path):
    pieces = [*vocabulary.SPECIALS, *"abcdefghijklmnopqrstuvwxyz灯'EA", "##s", "lamp"]
    pieces += ["##" + c for c in "abcdeilmnopqtuxé"] + ["don", "unicode", "ea", "ü"]
    forms = (f(t) for t in LETTERS for f in (str, str.lower, str.upper))
    split = (unicodedata.normalize(kind, t) for t in forms for kind in ("NFC", "NFD"))
    letters = sorted({c for t in split for c in t if not c.isspace()})
    if not way:  # without a capital both take case for nothing
        letters = [c for c in letters if c == c.lower()]
        pieces = [p for p in pieces if p == p.lower() or p in vocabulary.SPECIALS]
    both = [w for c in letters for w in (c, f"##{c}")]
    pieces = [*dict.fromkeys([*pieces, *both])]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    settings = way | {"tokenizer_class": "BertTokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = tokenizers.load(tmp_path)
    for text in [*TRICKY, *LETTERS]:
        assert ours.encode(text).ids == theirs(text)["input_ids"], text
        pair, other = ours.encode(text, "a lamp"), theirs(text, "a lamp")
        assert pair.ids == other["input_ids"]
        assert pair.type_ids == other["token_type_ids"]


def test_byte_pairs_are_read_as_gpt_2_s(tmp_path):
    texts = ["the lamp on the table", "a lamp, a table don't"] * 3
    made = vocabulary.train("bpe", texts, 275, tmp_path / "t" / "tokenizer.json")
    folder = tmp_path / "gpt2"
    folder.mkdir()
    made.model.save(str(folder))
    theirs, ours = (
        transformers.GPT2Tokenizer.from_pretrained(folder),
        tokenizers.load(folder),
    )
    for text in [*TRICKY, "the<|endoftext|>lamp"]:
        assert ours.encode(text).ids == theirs(text)["input_ids"], text
