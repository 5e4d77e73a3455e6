"""T5 pre-training by span corruption (Raffel et al. 2020, section 3.1.4).

    python -m fmjax.train --config configs/t5/pretrain.py --workdir runs/t5
    python -m fmjax.train --config configs/t5/pretrain.py:base --workdir runs/t5-base \
        --config.data.corpus.path=my_texts/

'' is a small T5 1.0 on the Wikipedia passages of BoolQ's training questions. The
published sizes have the recipe of the paper's last section (512 tokens, 2,048 windows a
step, 1M steps, Adafactor, rate 1/sqrt(max(n, 10,000)); the ramp up to it is ours) for a
corpus of your own; 1.1 is without dropout. Not as there: 1.0's last models also read
the supervised tasks (section 3.7), and a dropout mask was one for all places of a text.
':tiny' needs no network.

'' as run by `python -m experiments.t5.run` (one busy core, 24 minutes): validation
loss 3.82 nats a target token, accuracy 0.352. The published sizes have not been trained
here.
"""

from ml_collections import ConfigDict

from fmjax.models.t5 import SIZES


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "tiny", *SIZES):
        known = ", ".join(map(repr, ("", "tiny", *SIZES)))
        raise ValueError(f"no variant {arg!r}: {known}")
    corpus: dict = dict(name="boolq_passages")
    window = 100  # tokens, which become 91 and 21
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="t5", size=None, vocab_size=None)
    c.model.update(dict(width=128, depth=2, heads=4, mlp_width=512, head_width=32))
    c.model.dropout = 0.0
    c.objective = dict(name="next_token", z_loss=1e-4)
    c.tokenizer = dict(kind="unigram", vocab_size=4096, cased=True)
    c.data = dict(name="windows", corpus=corpus, length=window)
    c.data.overlap, c.data.separator = 0, False
    c.inputs = dict(name="span_corruption", window=window, rate=0.15, mean_span=3.0)
    # Steps relative to each matrix: tokens begin at a scale of 1, queries at 1 / 64.
    c.optim = dict(name="adafactor", lr=0.03, schedule="linear", warmup="5%")
    c.optim.clip = 1.0
    c.batch_size = 32
    c.steps = "10 epochs"
    c.accum = 1
    c.evaluate = dict(every="20%", splits=("validation",), metric="validation/loss")
    c.checkpoint = dict(every="500 steps", keep=1)
    c.log = dict(every="20 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = None

    if arg in SIZES:
        c.model = dict(name="t5", size=arg, vocab_size=32128)
        c.model.dropout = 0.0 if arg.startswith("1.1") else 0.1
        c.model.scan, c.model.remat, c.model.dtype = True, "full", "bfloat16"
        c.tokenizer.vocab_size = 32100
        c.data.corpus = dict(name="text", path="my_texts")
        c.data.length = c.inputs.window = 568  # tokens, which become 512 and 114
        c.optim = dict(name="adafactor", lr=0.01, schedule="rsqrt")
        c.optim.warmup = "10000 steps"
        c.batch_size, c.steps = 2048, "1000000 steps"
        c.evaluate.every = c.checkpoint.every = "10000 steps"
        c.log.every = "100 steps"
        c.parallel.params = "fsdp"
    if arg == "tiny":
        c.data.corpus = dict(name="synthetic_text", size=64)
        c.data.length, c.inputs.window, c.inputs.mean_span = 24, 24, 2.0
        c.tokenizer.vocab_size = 300
        fields = dict(width=32, depth=1, heads=2, mlp_width=64, head_width=16)
        c.model.update(fields)
        c.batch_size, c.steps = 16, "6 steps"
        c.evaluate.every, c.log.every = "3 steps", "1 step"
    return c
