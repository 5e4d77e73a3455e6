"""BoolQ as text to text: read a passage and a question, write 'yes' or 'no'.

    python -m fmjax.train --config configs/t5/boolq.py --workdir runs/t5-boolq \
        --config.init_from.path=runs/t5
    python -m fmjax.train --config configs/t5/boolq.py:scratch --workdir runs/scratch
    python -m fmjax.generate --workdir runs/t5-boolq --length 4 --split test \
        --metrics exact_match

'' starts from a run of configs/t5/pretrain.py, 'scratch' is the same network from
random values. Any other text-to-text task is the same config with other templates:
--config.inputs.source='summarize: {text}' --config.inputs.target='{summary}'. ':tiny'
needs no network.

As run by `python -m experiments.t5.run --seeds 3` (one busy core, 5 to 12 minutes
each): accuracy 0.634 [0.619, 0.650] on the 3,270 test questions, 0.636 [0.621, 0.651]
from scratch, where the commoner answer has 0.622. So small a net barely learns the
task.
"""

from ml_collections import ConfigDict

from configs.t5 import pretrain


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "scratch", "tiny"):
        raise ValueError(f"no variant {arg!r}: '', 'scratch', 'tiny'")
    c = pretrain.get_config("tiny" if arg == "tiny" else "")
    c.objective = dict(name="next_token", z_loss=0.0)
    c.tokenizer.corpus = c.data.corpus
    c.data = dict(name="boolq")
    c.inputs = dict(name="seq2seq", length=96, target_length=4)
    c.inputs.source = "question: {text} passage: {text2}"
    c.inputs.target = "{label}"
    c.model.dropout = 0.1
    c.optim = dict(name="adafactor", lr=3e-3, schedule="linear", warmup="10%")
    c.optim.clip = 1.0
    if arg == "tiny":
        c.data = dict(name="synthetic_text", size=64)
        c.inputs.length, c.inputs.target_length = 32, 8
        c.inputs.source = "mood: {text}"
    else:
        c.batch_size, c.steps = 32, "6 epochs"
        c.evaluate = dict(every="0.5 epochs", splits=("validation",), patience=None)
        c.evaluate.update(dict(metric="validation/accuracy", higher=True))
        c.init_from = dict(path="runs/t5", missing=None, skip=None)
    if arg == "scratch":
        c.init_from = None
    return c
