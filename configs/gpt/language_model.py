"""Language models: a small GPT, and the published sizes (Radford 2019, Brown 2020).

    python -m fmjax.train --config configs/gpt/language_model.py --workdir runs/brown
    python -m fmjax.train --config configs/gpt/language_model.py:chinese \
        --workdir runs/peoples_daily
    python -m fmjax.generate --workdir runs/brown --temperature 0.8 "The jury"

'' is a small GPT on the words of the Brown corpus. Claim: perplexity 167 +- 5 a word on
the test split, where Kneser-Ney 5-grams have 216, by `python -m
experiments.language_models.run --seeds 3`, 7 minutes a seed on one core that was shared
with other work. 'chinese' is one on the characters of the People's Daily. Claim:
perplexity 69 +- 5 a character (6.11 bits) by the same command, 17 minutes a seed on a
shared core; Kneser-Ney has 63, and the two together 50.

The published sizes are for a corpus of your own
(--config.data.corpus.path=my_texts/): GPT-3's recipe (appendix B and table 2.1: Adam
0.9, 0.95, clip 1.0, cosine to 10 %, 375e6 tokens of warm-up, weight decay 0.1, its
rates and batch sizes, which here do not grow from 32,000 tokens; the cosine ends with
the run, after 300e9 tokens, and not after 260e9; biases and norms are not decayed, and
nothing is dropped, of which the paper does not speak). GPT-2's paper gives its batch,
512 windows of 1,024 tokens (section 2.3), and no rates, so that its sizes take the rest
from their GPT-3 neighbours. None of these has been trained to the end here. On TPUs
--config.model.implementation=flash keeps attention's weights out of memory
(experiments/scale). ':tiny' needs no network.
"""

from ml_collections import ConfigDict

from fmjax.models.gpt import SIZES

RATES = {  # learning rate, tokens a batch: table 2.1 of Brown et al. 2020
    "gpt3-small": (6e-4, 0.5e6),
    "gpt3-medium": (3e-4, 0.5e6),
    "gpt3-large": (2.5e-4, 0.5e6),
    "gpt3-xl": (2e-4, 1e6),
    "gpt3-2.7b": (1.6e-4, 1e6),
    "gpt3-6.7b": (1.2e-4, 2e6),
    "gpt3-13b": (1e-4, 2e6),
    "gpt3-175b": (0.6e-4, 3.2e6),
    "gpt2": (6e-4, 512 * 1024),
    "gpt2-medium": (3e-4, 512 * 1024),
    "gpt2-large": (2.5e-4, 512 * 1024),
    "gpt2-xl": (2e-4, 512 * 1024),
}


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "chinese", "tiny", *SIZES):
        known = ", ".join(map(repr, ("", "chinese", "tiny", *SIZES)))
        raise ValueError(f"no variant {arg!r}: {known}")
    corpus: dict = dict(name="brown")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="gpt", size=None, vocab_size=None)
    c.model.update(dict(depth=2, width=128, heads=4, mlp_width=512, max_length=128))
    c.model.dropout = c.model.attention_dropout = c.model.embed_dropout = 0.0
    c.objective = dict(name="next_token")
    c.tokenizer = dict(kind="words", vocab_size=16384, cased=True)
    c.data = dict(name="windows", corpus=corpus, length=128)
    c.inputs = dict(name="next_token", join_documents=False)
    c.optim = dict(name="adamw", lr=2e-3, schedule="cosine", warmup="2%")
    c.optim.weight_decay = 0.1
    c.optim.clip = 1.0
    c.batch_size = 8
    c.steps = "2 epochs"
    c.accum = 1
    c.evaluate = dict(every="0.5 epochs", splits=("validation",), patience=3)
    c.evaluate.metric = "validation/loss"
    c.checkpoint = dict(every="1 epoch", keep=1)
    c.log = dict(every="20 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = None

    if arg == "chinese":
        c.data.corpus = dict(name="peoples_daily")
        c.tokenizer = dict(kind="characters", vocab_size=4096, cased=True)
        c.model.depth = 3
        c.steps = "6 epochs"
        c.evaluate.every = "0.5 epochs"
    if arg in SIZES:
        rate, tokens = RATES[arg]
        length = SIZES[arg]["max_length"]
        c.model = dict(name="gpt", size=arg, vocab_size=None)
        c.model.dropout = c.model.attention_dropout = c.model.embed_dropout = 0.0
        c.model.scan, c.model.remat, c.model.dtype = True, "full", "bfloat16"
        c.data.corpus = dict(name="text", path="my_texts")
        c.data.length, c.inputs.join_documents = length, True
        c.tokenizer = dict(kind="bpe", vocab_size=50257, cased=True)
        c.batch_size = round(tokens / length / 8) * 8
        c.steps = f"{round(300e9 / (c.batch_size * length))} steps"
        c.optim.lr, c.optim.final, c.optim.b2 = rate, 0.1, 0.95
        c.optim.warmup = f"{round(375e6 / (c.batch_size * length))} steps"
        c.evaluate = dict(every="2000 steps", splits=("validation",), patience=None)
        c.evaluate.metric = "validation/loss"
        c.checkpoint.every, c.log.every = "2000 steps", "100 steps"
        c.parallel.params = "fsdp"
    if arg == "tiny":
        c.data.corpus, c.data.length = dict(name="synthetic_text", size=64), 16
        c.tokenizer = dict(kind="bpe", vocab_size=300, cased=True)
        fields = dict(depth=1, width=32, heads=2, mlp_width=64, max_length=32)
        c.model.update(fields)
        c.batch_size, c.steps = 16, "6 steps"
        c.evaluate.every, c.log.every = "3 steps", "1 step"
    return c
