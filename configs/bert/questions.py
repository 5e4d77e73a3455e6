"""Fine-tuning MiniLM to find answers in passages (Devlin et al. 2018, section 4.2).

    python -m fmjax.train --config configs/bert/questions.py --workdir runs/squad \
        --config.data.corpus.path=squad-{split}.jsonl

JSON lines with `question`, `context`, `answer` and `start` (the answer's first
character), or `answers`, a list of such pairs, empty where there is none. Rate and
passes are for MiniLM: the paper has 5e-5 and 3 (SQuAD 2.0: 2, batch 48). It has not
been run on SQuAD here. ':tiny' needs no network.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "tiny"):
        raise ValueError(f"no variant {arg!r}: '', 'tiny'")
    corpus: dict = dict(name="records", path="squad-{split}.jsonl")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="bert", size="minilm-l6", head="span", vocab_size=None)
    c.model.max_length = 512
    c.model.dropout = c.model.attention_dropout = 0.1
    c.objective = dict(name="span_qa")
    c.tokenizer = dict(path="all-MiniLM-L6-v2")
    c.data = dict(name="question_windows", corpus=corpus, length=384, stride=128)
    c.data.question_length = 64
    c.inputs = dict(name="question_span")
    c.optim = dict(name="adamw", lr=1e-4, schedule="linear", warmup="10%")
    c.optim.weight_decay = 0.01
    c.optim.clip = 1.0
    c.batch_size = 32
    c.steps = "2 epochs"
    c.accum = 1
    c.evaluate = dict(every="0.5 epochs", splits=("validation",), patience=3)
    c.evaluate.metric = "validation/loss"
    c.checkpoint = dict(every="1 epoch", keep=1)
    c.log = dict(every="20 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = dict(path="all-MiniLM-L6-v2", missing="^span/", skip=None)

    if arg == "tiny":
        c.data.corpus = dict(name="synthetic_tasks", task="questions", size=64)
        c.data.length, c.data.stride, c.data.question_length = 32, 8, 16
        c.tokenizer = dict(vocab_size=128, cased=True)
        c.init_from, c.model.size = None, None
        fields = dict(depth=1, width=32, heads=2, mlp_width=64, max_length=64)
        c.model.update(fields)
        c.batch_size, c.steps = 16, "6 steps"
        c.evaluate.every, c.log.every = "3 steps", "1 step"
    return c
