"""Fine-tuning MiniLM on BoolQ: does the passage say yes? (Clark et al. 2019)

    python -m fmjax.train --config configs/bert/boolq.py --workdir runs/boolq

A pair of texts, question and passage. Two passes, 1,064 steps of 1.5 s on
one CPU core: 0.688 [0.675, 0.702], three seeds, not told apart from TF-IDF
(experiments/boolq). ':tiny' needs no network.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "tiny"):
        raise ValueError(f"no variant {arg!r}: '', 'tiny'")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="bert", size="minilm-l6", head="classify", vocab_size=None)
    c.model.classes, c.model.max_length = None, 512
    c.model.dropout = c.model.attention_dropout = 0.0  # two passes are few
    c.objective = dict(name="classify")
    c.tokenizer = dict(path="all-MiniLM-L6-v2")
    c.data = dict(name="boolq")
    c.inputs = dict(name="text", length=96)
    c.optim = dict(name="adamw", lr=1e-4, schedule="linear", warmup="10%")
    c.optim.weight_decay = 0.01
    c.optim.clip = 1.0
    c.batch_size = 16
    c.steps = "2 epochs"
    c.accum = 1
    c.evaluate = dict(every="0.5 epochs", splits=("validation",), patience=None)
    c.evaluate.metric = "validation/loss"
    c.checkpoint = dict(every="1 epoch", keep=1)
    c.log = dict(every="20 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = dict(path="all-MiniLM-L6-v2", missing="^classify/", skip=None)

    if arg == "tiny":
        c.data = dict(name="synthetic_text", size=64)
        c.tokenizer = dict(corpus=c.data, vocab_size=128, cased=True, path=None)
        c.init_from, c.inputs.length = None, 32
        c.model.size = None
        fields = dict(depth=1, width=32, heads=2, mlp_width=64, max_length=64)
        c.model.update(fields)
        c.batch_size, c.steps = 16, "6 steps"
        c.evaluate.every, c.log.every = "3 steps", "1 step"
    return c
