"""CLIP on images and their texts (Radford et al. 2021, arXiv:2103.00020).

    python -m fmjax.train --config configs/clip/pairs.py --workdir runs/clip \
        --config.data.path=my_pairs.jsonl
    python -m fmjax.train --config configs/clip/pairs.py:emoji --workdir runs/emoji
    python -m fmjax.evaluate --workdir runs/emoji

'B/32' and the other sizes are the paper's (table 18: batch 32,768, 32 epochs, Adam with
betas 0.9 and 0.98, eps 1e-6, weight decay 0.2, 2,000 steps of warm-up and a cosine;
table 20: at 5e-4, L/14 at 4e-4, L/14-336 at 2e-5 for one epoch more of L/14, whose
weights `init_from` wants; its 400 million pairs are not public), for images and texts
of your own: 63.2 % zero-shot on ImageNet for B/32. Crops of 90-100 % are OpenCLIP's
(the paper: a random square of the scaled image). 'emoji' is a small one of emoji and
their names, whose evaluation is retrieval among those held out. Ours: for emoji,
recall@10 of 0.262 and 0.271 among 284 (experiments/emoji/README.md); the others are not
run. ':tiny' needs neither network nor data.
"""

from ml_collections import ConfigDict

from fmjax.models.clip import SIZES

MEAN, STD = (0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)  # the authors' images'


def get_config(arg: str = "B/32") -> ConfigDict:
    if arg not in ("emoji", "tiny", *SIZES):
        known = ", ".join(map(repr, ("emoji", "tiny", *SIZES)))
        raise ValueError(f"no variant {arg!r}: {known}")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="clip", size=arg, vocab_size=None, eos=None)
    c.objective = dict(name="clip")
    c.tokenizer = dict(kind="bpe", vocab_size=49408, cased=False)
    c.inputs = dict(name="image_text", length=77, size=224, area=(0.9, 1.0))
    c.inputs.update(dict(resample="bicubic", mean=MEAN, std=STD))
    c.data = dict(name="captions", path="my_pairs.jsonl", size=None)
    c.optim = dict(name="adamw", lr=5e-4, schedule="cosine", warmup="2000 steps")
    c.optim.update(dict(b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.2))
    c.batch_size = 32768
    c.steps = "32 epochs"
    c.accum = 1  # all rows of a batch are each other's candidates
    c.evaluate = dict(every="1 epoch", splits=("validation",), patience=None)
    c.evaluate.metric = "validation/loss"
    c.checkpoint = dict(every="1000 steps", keep=2)
    c.log = dict(every="50 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = None

    if arg in SIZES:
        c.model.scan, c.model.remat, c.model.dtype = True, "dots", "bfloat16"
        c.inputs.size = SIZES[arg]["image"][0]
        c.optim.lr = {"L/14": 4e-4, "L/14-336": 2e-5}.get(arg, 5e-4)
        # Of neither gains nor biases (section 2.5), and the temperature is a gain.
        c.optim.no_decay = r"(^|/)(bias|scale|logit_scale)$"
        c.tokenizer.corpus = dict(name="jsonl", path="my_pairs.jsonl", text="text")
    else:
        small = arg == "tiny"
        width = 16 if small else 128
        tower = dict(depth=1 if small else 3, heads=2 if small else 4)
        c.model = dict(name="clip", vocab_size=None, joint=8 if small else 64)
        c.model.update(dict(width=width, mlp_width=2 * width, **tower))
        c.model.update({f"text_{k}": v for k, v in tower.items()})
        c.model.update(dict(text_width=width, text_mlp_width=2 * width, max_length=16))
        side = 16 if small else 32
        c.model.update(dict(image=(side, side), patch=8, eos=None))
        c.inputs.update(dict(length=16, size=side, mean=(0.5,) * 3, std=(0.5,) * 3))
    if arg == "emoji":
        c.data = dict(name="emoji")
        c.tokenizer = dict(kind="words", vocab_size=2048, cased=False)
        c.tokenizer.corpus = dict(name="emoji")
        c.inputs.update(dict(area=(0.6, 1.0), flip=False))
        c.optim.update(dict(lr=1e-3, warmup="5%", b2=0.98))
        c.batch_size, c.steps = 256, "30 epochs"
        c.evaluate.every, c.checkpoint.every = "3 epochs", "10 epochs"
        # The loss is soon that of too sure a net, which goes on to find more.
        c.evaluate.update(dict(metric="validation/text_to_image", higher=True))
        c.log.every = "10 steps"
    if arg == "tiny":
        c.data = dict(name="synthetic_scenes", size=64, shape=(16, 16, 3))
        c.tokenizer = dict(kind="words", vocab_size=64, cased=False)
        c.tokenizer.corpus = dict(name="synthetic_scenes", size=64)
        c.optim.update(dict(lr=1e-3, warmup="1 step"))
        c.batch_size, c.steps = 16, "6 steps"
        c.evaluate.every, c.log.every = "3 steps", "1 step"
    return c
