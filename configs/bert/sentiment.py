"""Fine-tuning BERT for the sentiment of movie snippets (positive or negative).

    python -m fmjax.train --config configs/bert/sentiment.py --workdir runs/sentiment \
        --config.init_from.path=runs/pretrain
    python -m fmjax.train --config configs/bert/sentiment.py:minilm \
        --workdir runs/minilm

'' starts from a run of configs/bert/pretrain.py, 'scratch' is the same network from
random values, 'minilm' is the public 6-layer, 384-wide MiniLM (Wang et al. 2020) that
is packaged on PyPI. Own data: --config.data.name=csv --config.data.path=reviews.csv,
with columns `text` and `label`. Results: experiments/sentiment/README.md. ':tiny' needs
no network.

    python -m fmjax.sweep --config configs/bert/sentiment.py:scratch \
        --study studies/sentiment --trials 20 --workers 2
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "scratch", "minilm", "tiny"):
        raise ValueError(f"no variant {arg!r}: '', 'scratch', 'minilm', 'tiny'")
    corpus: dict = dict(name="boolq_passages")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="bert", size="tiny", head="classify")
    c.model.vocab_size = c.model.classes = None  # from the tokenizer, from the data
    c.model.max_length = 128
    c.model.dropout = c.model.attention_dropout = 0.1
    c.objective = dict(name="classify", label_smoothing=0.0)
    c.tokenizer = dict(corpus=corpus, vocab_size=8192, cased=True, path=None)
    c.data = dict(name="movie_snippets")
    c.inputs = dict(name="text", length=56)  # 6 % of the snippets are longer
    c.optim = dict(name="adamw", lr=3e-4, schedule="linear", warmup="10%")
    c.optim.weight_decay = 0.01
    c.optim.clip = 1.0
    c.batch_size = 32
    c.steps = "5 epochs"
    c.accum = 1
    c.evaluate = dict(every="0.5 epochs", splits=("validation",), patience=2)
    c.evaluate.metric = "validation/loss"
    c.checkpoint = dict(every="1 epoch", keep=1)
    c.log = dict(every="20 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = dict(path="runs/pretrain", missing="^classify/", skip="^(mlm|nsp)/")

    if arg == "scratch":
        c.init_from = None
    if arg == "minilm":
        c.model.size, c.model.max_length = "minilm-l6", 512
        c.tokenizer = dict(path="all-MiniLM-L6-v2")
        c.init_from = dict(path="all-MiniLM-L6-v2", missing="^classify/", skip=None)
        c.optim.lr = 1e-4
        c.steps = "1 epoch"
    if arg == "tiny":
        corpus = dict(name="synthetic_text", size=64)
        c.tokenizer = dict(corpus=corpus, vocab_size=128, cased=True, path=None)
        c.data, c.init_from = dict(name="synthetic_text", size=64), None
        c.inputs.length = 32
        fields = dict(depth=1, width=32, heads=2, mlp_width=64, max_length=32)
        c.model.size = None
        c.model.update(fields)
        c.batch_size, c.steps = 16, "6 steps"
        c.evaluate.every, c.log.every = "3 steps", "1 step"
    return c


def get_sweep(arg: str = "") -> dict:
    """What Devlin et al. 2019 (appendix A.3) searched, with wider rates and dropout."""
    rates = (1e-5, 1e-4) if arg == "minilm" else (1e-4, 3e-3)
    return {
        "optim.lr": ("log", *rates),
        "batch_size": (16, 32),
        "model.dropout": (0.0, 0.1),
    }
