"""Several tasks on one MiniLM: sentiment, topics and parts of speech, in one step.

    python -m fmjax.train --config configs/bert/multitask.py --workdir runs/tasks
    python -m fmjax.train --config configs/bert/multitask.py --workdir runs/even \
        --config.data.temperature=100

Liu et al. 2019 (arXiv:1901.11504): one encoder, a linear head a task. Examples are
mixed by the square root of how many a task has (temperature 2), or by
--config.data.rates="{'sentiment': 2, 'topics': 1, 'tags': 1}"; each task's loss is the
mean over its own rows of a batch, times its --config.objective.weights. An epoch has
every example of every task, those of smaller tasks several times. Not trained to the
end here. ':tiny' needs no network.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "tiny"):
        raise ValueError(f"no variant {arg!r}: '', 'tiny'")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="bert", size="minilm-l6", head=None, vocab_size=None)
    c.model.max_length = 512
    c.model.dropout = c.model.attention_dropout = 0.1
    tasks = dict(sentiment="classify", topics="classify", tags="tag")
    c.transforms = dict(heads=dict(tasks=tasks, dropout=0.1))
    c.objective = dict(name="multitask", weights=None)
    c.objective.tasks = dict(
        sentiment=dict(name="classify"),
        topics=dict(name="classify"),
        tags=dict(name="token_classify"),
    )
    c.tokenizer = dict(path="all-MiniLM-L6-v2")
    c.data = dict(name="mixture", temperature=2.0, rates=None)
    c.data.tasks = dict(
        sentiment=dict(name="movie_snippets"),
        topics=dict(name="topics", dataset="r8"),
        tags=dict(name="brown"),
    )
    c.inputs = dict(name="mixture")
    c.inputs.tasks = dict(
        sentiment=dict(name="text", length=64),
        topics=dict(name="text", length=64),
        tags=dict(name="token_tags", length=64),
    )
    c.optim = dict(name="adamw", lr=2e-4, schedule="linear", warmup="10%")
    c.optim.weight_decay = 0.01
    c.optim.clip = 1.0
    c.batch_size = 32
    c.steps = "1 epoch"
    c.accum = 1
    c.evaluate = dict(every="0.5 epochs", splits=("validation",), patience=None)
    c.evaluate.metric = "validation/loss"
    c.checkpoint = dict(every="1000 steps", keep=1)
    c.log = dict(every="20 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = dict(path="all-MiniLM-L6-v2", missing="^heads/", skip=None)

    if arg == "tiny":
        c.data.tasks = dict(
            sentiment=dict(name="synthetic_text", size=64),
            topics=dict(name="synthetic_text", classes=4, size=32),
            tags=dict(name="synthetic_tasks", task="tags", size=48),
        )
        corpus = dict(name="synthetic_text", classes=4, size=64)
        c.tokenizer = dict(corpus=corpus, vocab_size=128, cased=True, path=None)
        for inputs in c.inputs.tasks.values():
            inputs.length = 32
        c.init_from, c.model.size = None, None
        fields = dict(depth=1, width=32, heads=2, mlp_width=64, max_length=32)
        c.model.update(fields)
        c.batch_size, c.steps = 16, "6 steps"
        c.evaluate.every, c.log.every = "3 steps", "1 step"
    return c
