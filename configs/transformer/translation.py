"""Translation by the Transformer (Vaswani et al. 2017): English to Spanish here.

    python -m fmjax.train --config configs/transformer/translation.py --workdir runs/es
    python -m fmjax.generate --workdir runs/es --beams 4 --split test \
        --metrics translation

'' is a small Transformer on the verses of two Bibles, split by book. 'base' and 'big'
are the paper's sizes and recipe (section 5: Adam 0.9, 0.98, 1e-9; rate D^-0.5 times the
smaller of n^-0.5 and n * 4000^-1.5; label smoothing 0.1; some 25,000 tokens a side in a
step) for pairs of your own as JSON lines: --config.data.path=wmt-{split}.jsonl. Not as
there: a step is 832 pairs, whatever their lengths (WMT's English to German has some 30
pieces a side), padded and cut at 128 and not batched by length; pieces are Unigram's
and not byte pairs; the weights are the last and no average of checkpoints, unless
optim.ema is set. The paper's search is --beams 4 --length-penalty 0.6 --gnmt. ':tiny'
needs no network.

'' as run by `python -m experiments.translation.run --seeds 2` (an hour a seed on a
shared core): BLEU 19.0 [18.4, 19.7] and chrF 40.8 [40.3, 41.4] with 4 beams on the
1,530 test verses. 'base' and 'big' have not been trained here.
"""

from ml_collections import ConfigDict

from fmjax.models.transformer import SIZES

STEPS = {"base": 100_000, "big": 300_000}


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "base", "big", "tiny"):
        raise ValueError(f"no variant {arg!r}: '', 'base', 'big', 'tiny'")
    data: dict = dict(name="bible_verses")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="transformer", size=None, vocab_size=None)
    c.model.update(dict(width=128, depth=2, heads=4, mlp_width=512, max_length=256))
    c.model.dropout, c.model.attention_dropout = 0.1, 0.0
    c.objective = dict(name="next_token", label_smoothing=0.1)
    c.tokenizer = dict(kind="unigram", vocab_size=4096, cased=True, corpus=data)
    c.data = data
    c.inputs = dict(name="seq2seq", length=64, target_length=64)
    c.optim = dict(name="muon", lr=0.005, rms=0.2, b2=0.98, eps=1e-9)
    c.optim.schedule, c.optim.warmup = "cosine", "400 steps"
    c.batch_size = 32
    c.steps = "8 epochs"
    c.accum = 1
    c.evaluate = dict(every="1 epoch", splits=("validation",), patience=2)
    c.evaluate.metric = "validation/loss"
    c.checkpoint = dict(every="1 epoch", keep=1)
    c.log = dict(every="20 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = None

    if arg in SIZES:
        data = dict(name="records", path="wmt-{split}.jsonl")
        c.model = dict(name="transformer", size=arg, vocab_size=None)
        c.model.scan, c.model.remat, c.model.dtype = True, None, "bfloat16"
        c.tokenizer.corpus, c.tokenizer.vocab_size, c.data = data, 37000, data
        c.inputs.length = c.inputs.target_length = 128
        # 25,000 tokens a side and not places: WMT's pairs have 116e6 / 4.5e6 = 26
        # English words on average (Luong et al. 2015), which is some 30 pieces.
        c.batch_size, c.steps = 832, f"{STEPS[arg]} steps"
        c.optim = dict(name="adam", b2=0.98, eps=1e-9, schedule="rsqrt")
        c.optim.lr = (SIZES[arg]["width"] * 4000) ** -0.5
        c.optim.warmup = "4000 steps"
        c.evaluate.every = c.checkpoint.every = "2000 steps"
        c.log.every = "100 steps"
        c.parallel.params = "fsdp"
    if arg == "tiny":
        data = dict(name="synthetic_tasks", task="translation", size=64)
        c.data = c.tokenizer.corpus = data
        c.tokenizer.vocab_size = 300
        fields = dict(width=32, depth=1, heads=2, mlp_width=64, max_length=96)
        c.model.update(fields)
        c.inputs.length = c.inputs.target_length = 24
        c.optim.warmup = "2 steps"
        c.batch_size, c.steps = 16, "6 steps"
        c.evaluate.every, c.log.every = "3 steps", "1 step"
    return c
