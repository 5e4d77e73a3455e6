"""Choosing one of several texts (Devlin et al. 2018, section 4.4), as in SWAG.

    python -m fmjax.train --config configs/bert/choices.py --workdir runs/swag \
        --config.data.path=swag-{split}.jsonl

JSON lines with `text`, `choices` (a list of texts) and `label` (the number of the right
one). The rate is for MiniLM: the paper has 2e-5. It has not been run on SWAG here.
':tiny' needs no network.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "tiny"):
        raise ValueError(f"no variant {arg!r}: '', 'tiny'")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="bert", size="minilm-l6", head="choose", vocab_size=None)
    c.model.max_length = 512
    c.model.dropout = c.model.attention_dropout = 0.1
    c.objective = dict(name="classify")
    c.tokenizer = dict(path="all-MiniLM-L6-v2")
    c.data = dict(name="records", path="swag-{split}.jsonl")
    c.inputs = dict(name="choices", choices=4, length=128)
    c.optim = dict(name="adamw", lr=5e-5, schedule="linear", warmup="10%")
    c.optim.weight_decay = 0.01
    c.optim.clip = 1.0
    c.batch_size = 16
    c.steps = "3 epochs"
    c.accum = 1
    c.evaluate = dict(every="0.5 epochs", splits=("validation",), patience=3)
    c.evaluate.metric = "validation/loss"
    c.checkpoint = dict(every="1 epoch", keep=1)
    c.log = dict(every="20 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = dict(path="all-MiniLM-L6-v2", missing="^choose/", skip=None)

    if arg == "tiny":
        c.data = dict(name="synthetic_tasks", task="choices", size=64)
        c.tokenizer = dict(corpus=c.data, vocab_size=128, cased=True, path=None)
        c.init_from, c.inputs.length = None, 32
        c.model.size = None
        fields = dict(depth=1, width=32, heads=2, mlp_width=64, max_length=64)
        c.model.update(fields)
        c.batch_size, c.steps = 16, "6 steps"
        c.evaluate.every, c.log.every = "3 steps", "1 step"
    return c
