"""Masked autoencoders on ImageNet-1k (He et al. 2022, arXiv:2111.06377), 800 epochs.

    python -m fmjax.train --config configs/mae/imagenet.py --workdir runs/mae-b16
    python -m fmjax.evaluate --workdir runs/mae-b16 --metrics knn --metrics linear_probe

Table 8 of the paper: batch 4,096, AdamW 1.5e-4 x batch / 256 with betas 0.9 and 0.95,
weight decay 0.05, 40 epochs of warm-up and a cosine, random resized crops of 20 % and
more, mirrored; 75 % hidden, normalised pixels as targets. Paper: ViT-L after 800 epochs
85.4 % fine-tuned, 73.9 % by a linear probe (table 1d; 84.9 and 73.5 % with targets that
are not normalised); ViT-B after 1,600 83.6 %. Ours: not run.
The encoder's parameters have the names of models/vit.py's: pool='mean', cls_token=True,
norm_last=True, positions='sincos' and init_from.missing='classify' fine-tune it. The
paper's own recipe for that (table 9) has stochastic depth and lets the positions learn,
which models/vit.py does not. ':tiny' needs neither network nor data.
"""

from ml_collections import ConfigDict

from fmjax.models.mae import SIZES


def get_config(arg: str = "B/16") -> ConfigDict:
    if arg not in (*SIZES, "tiny"):
        raise ValueError(f"no variant {arg!r}: {', '.join(map(repr, SIZES))}, 'tiny'")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="mae", size=arg if arg in SIZES else "B/16")
    c.model.update(dict(image=(224, 224), scan=True, dtype="bfloat16"))
    c.objective = dict(name="mae", normalised=True)
    c.data = dict(name="tfds", dataset="imagenet2012", test="validation")
    c.data.update(dict(train="train[:99%]", validation="train[99%:]"))
    c.inputs = dict(name="masked_image", patch=16, size=224, area=(0.2, 1.0), flip=True)
    c.inputs.update(dict(resample="bicubic", centre=0.875))
    c.inputs.update(dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
    c.optim = dict(name="adamw", lr=1.5e-4 * 4096 / 256, schedule="cosine", warmup="5%")
    c.optim.update(dict(b2=0.95, weight_decay=0.05))
    c.batch_size = 4096
    c.steps = "800 epochs"
    c.accum = 1
    c.evaluate = dict(every="20 epochs", splits=("validation",), patience=None)
    c.evaluate.metric = "validation/loss"
    c.checkpoint = dict(every="1000 steps", keep=2)
    c.log = dict(every="50 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = None

    if arg in SIZES:
        c.inputs.patch = SIZES[arg]["patch"]
    if arg == "H/14":
        c.parallel.params, c.model.remat = "fsdp", "full"
    if arg == "tiny":
        c.data = dict(name="synthetic_images", size=64, shape=(16, 16, 3))
        c.inputs.size, c.inputs.patch = 16, 4
        c.model = dict(name="mae", patch=4, width=16, depth=1, heads=2, mlp_width=32)
        c.model.update(dict(decoder_width=8, decoder_depth=1, decoder_heads=2))
        c.model.update(dict(decoder_mlp_width=16, image=(16, 16)))
        c.optim.lr = 1e-3
        c.batch_size, c.steps = 16, "6 steps"
        c.evaluate.every, c.log.every = "3 steps", "1 step"
    return c
