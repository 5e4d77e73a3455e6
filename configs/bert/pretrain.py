"""BERT pre-training: masked LM and next-sentence prediction (Devlin et al. 2018).

    python -m fmjax.train --config configs/bert/pretrain.py --workdir runs/pretrain
    python -m fmjax.train --config configs/bert/pretrain.py:base --workdir runs/base \
        --config.data.corpus.name=text --config.data.corpus.path=my_texts/

'' is a small cased BERT on the Wikipedia passages of BoolQ's training questions, which
takes minutes on two cores; what it gave is in experiments/sentiment/README.md. 'base'
and 'large' are the paper's recipe (section A.2: batch 256, 1M steps, Adam 1e-4, 10k
warm-up, linear decay, L2 0.01, dropout 0.1) and the authors' code's (no bias correction
in Adam, eps 1e-6, clip 1.0, lower case, ten cuts of each document) for a corpus of your
own; the paper used 4 to 16 Cloud TPUs for four days. They have not been trained here.
Not as there: length 512 throughout, where the paper has 128 for 90 % of the steps;
tokens are masked anew in each epoch, and never replaced by a special one; half of the
windows have a random next sentence, forced ones included; the decay begins at the end
of the warm-up, not before it (1 % of the rate); GELU is exact, as in the first release,
not its tanh form; the whole gradient is clipped, and not each core's before they are
added up. ':tiny' needs no network.

'adapt' goes on with such a run on the texts of a domain, before it is fine-tuned there
(Gururangan et al. 2020, arXiv:2004.10964); not trained here:

    python -m fmjax.train --config configs/bert/pretrain.py:adapt --workdir runs/law \
        --config.init_from.path=runs/pretrain --config.data.corpus.path=law/

It keeps the run's tokenizer. To learn another one from the new texts, add the flags
--config.tokenizer.path=none --config.tokenizer.vocab_size=8192
--config.init_from.vocabulary="embed/tokens|mlm/bias"; tokens that the old one has too
keep their vectors.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "tiny", "adapt", "base", "large"):
        raise ValueError(f"no variant {arg!r}: '', 'tiny', 'adapt', 'base', 'large'")
    corpus: dict = dict(name="boolq_passages")
    length, predictions = 64, 10  # 15 % of 64 tokens are 10
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="bert", size="tiny", head="pretrain", vocab_size=None)
    c.model.max_length = 128
    c.model.dropout = c.model.attention_dropout = 0.0  # few epochs
    c.objective = dict(name="bert_pretrain")
    c.tokenizer = dict(vocab_size=8192, cased=True)  # learnt from data.corpus
    c.data = dict(name="sentence_pairs", corpus=corpus, length=length)
    c.data.copies = 1
    c.inputs = dict(name="masked_pairs", rate=0.15, predictions=predictions)
    c.optim = dict(name="adamw", lr=1e-3, schedule="linear", warmup="10%")
    c.optim.weight_decay = 0.01
    c.optim.clip = 1.0
    c.batch_size = 32
    c.steps = "3 epochs"
    c.accum = 1
    c.evaluate = dict(every="10%", splits=("validation",), metric="validation/loss")
    c.checkpoint = dict(every="200 steps", keep=2)
    c.log = dict(every="20 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = None

    if arg == "adapt":
        c.data.corpus = dict(name="text", path="texts")
        c.tokenizer = dict(path="runs/pretrain/tokenizer.json", vocab_size=None)
        c.tokenizer.cased = True
        c.init_from = dict(path="runs/pretrain", vocabulary=None)
        c.optim.lr = 2e-4
        c.steps = "1 epoch"
    if arg in ("base", "large"):
        c.model.size, c.model.max_length = arg, 512
        c.model.dropout = c.model.attention_dropout = 0.1
        c.tokenizer.vocab_size, c.tokenizer.cased = 30522, False
        c.data.length, c.inputs.predictions, c.data.copies = 512, 77, 10
        c.batch_size, c.steps = 256, "1000000 steps"
        c.optim.name, c.optim.eps = "bertadam", 1e-6
        c.optim.lr, c.optim.warmup = 1e-4, "10000 steps"
        c.evaluate.every = c.checkpoint.every = "10000 steps"
        c.log.every = "100 steps"
        c.parallel.params = "fsdp"
    if arg == "tiny":
        corpus = dict(name="synthetic_text", size=64)
        c.tokenizer.vocab_size = 128
        c.data.corpus, c.data.length, c.inputs.predictions = corpus, 32, 5
        fields = dict(depth=1, width=32, heads=2, mlp_width=64, max_length=32)
        c.model.size = None
        c.model.update(fields)
        c.batch_size, c.steps = 16, "6 steps"
        c.evaluate.every, c.log.every = "3 steps", "1 step"
    return c
