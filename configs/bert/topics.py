"""Fine-tuning MiniLM for topics: Reuters R8, R52 and 20 Newsgroups.

    python -m fmjax.train --config configs/bert/topics.py:r8 --workdir runs/r8

The variants are the data sets, with their published test splits. Test accuracy on one
busy CPU core: R8 0.966 [0.959, 0.972], one pass, three seeds of about 5 minutes; R52
0.942 [0.933, 0.950], four passes, three seeds of 20 minutes; 20 Newsgroups 0.842
[0.834, 0.849], three passes, two seeds (experiments/topics). ':tiny' needs no network.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "r8") -> ConfigDict:
    if arg not in ("r8", "r52", "20newsgroups", "tiny"):
        raise ValueError(f"no variant {arg!r}: 'r8', 'r52', '20newsgroups', 'tiny'")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="bert", size="minilm-l6", head="classify", vocab_size=None)
    c.model.classes, c.model.max_length = None, 512
    c.model.dropout = c.model.attention_dropout = 0.0  # the passes are few
    c.objective = dict(name="classify")
    c.tokenizer = dict(path="all-MiniLM-L6-v2")
    c.data = dict(name="topics", dataset=arg)
    c.inputs = dict(name="text", length=64)  # the beginning says it: 62 % are longer
    c.optim = dict(name="adamw", lr=2e-4, schedule="linear", warmup="10%")
    c.optim.weight_decay = 0.01
    c.optim.clip = 1.0
    c.batch_size = 16
    c.steps = "1 epoch"
    c.accum = 1
    c.evaluate = dict(every="0.5 epochs", splits=("validation",), patience=None)
    c.evaluate.metric = "validation/loss"
    c.checkpoint = dict(every="1 epoch", keep=1)
    c.log = dict(every="20 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = dict(path="all-MiniLM-L6-v2", missing="^classify/", skip=None)

    if arg == "20newsgroups":  # after one pass its loss was still falling
        c.inputs.length = 96
        c.steps, c.evaluate.every = "3 epochs", "1 epoch"
    if arg == "r52":  # rare topics have a handful of texts
        c.steps, c.evaluate.every = "4 epochs", "1 epoch"

    if arg == "tiny":
        c.data = dict(name="synthetic_text", classes=4, size=64)
        c.tokenizer = dict(corpus=c.data, vocab_size=128, cased=True, path=None)
        c.init_from, c.inputs.length = None, 32
        c.model.size = None
        fields = dict(depth=1, width=32, heads=2, mlp_width=64, max_length=64)
        c.model.update(fields)
        c.batch_size, c.steps = 16, "6 steps"
        c.evaluate.every, c.log.every = "3 steps", "1 step"
    return c
