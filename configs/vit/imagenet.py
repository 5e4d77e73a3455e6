"""Plain ViTs on ImageNet-1k, S/16 by "Better plain ViT baselines" (Beyer et al. 2022).

    python -m fmjax.train --config configs/vit/imagenet.py --workdir runs/vit-s16

arXiv:2205.01580: 90 epochs, batch 1,024, Adam 1e-3 with 10,000 steps of warm-up and a
cosine, decoupled weight decay 1e-4 (of the parameter, not times the rate: 0.1 here),
clip 1.0, RandAugment (2, 10), mixup 0.2, sin-cos positions, the mean of the patches, no
dropout: 76.5 % top-1 in 6.5 hours on TPUv3-8, 79-80 % in 150 and 300 epochs
(--config.steps='300 epochs'). Ours: not run; it needs ImageNet, prepared by TFDS, and
an accelerator. The other sizes of fmjax/models/vit.py take the same recipe, of which
the paper says nothing. ':tiny' needs neither network nor data.

Other in the authors' code (big_vision): RandAugment inverts, cuts out and adds before
it solarises (Cubuk et al. 2020, as here, do none of it, and nothing once in 14), at 10
only raises brightness and its like, and moves by 100 pixels, not 45 % of the side; one
share of mixup a batch; GELU by tanh (--config.model.activation=gelu_tanh); a layer with
tanh before the classes, of which the paper's own text has none; frequencies of the
positions (fmjax/layers/patches.py).
"""

from ml_collections import ConfigDict

from fmjax.models.vit import SIZES


def get_config(arg: str = "S/16") -> ConfigDict:
    if arg not in (*SIZES, "tiny"):
        raise ValueError(f"no variant {arg!r}: {', '.join(map(repr, SIZES))}, 'tiny'")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="vit", size=arg if arg in SIZES else "S/16", classes=None)
    c.model.update(dict(pool="mean", positions="sincos", image=(224, 224)))
    c.model.update(dict(dropout=0.0, scan=True, dtype="bfloat16"))
    c.objective = dict(name="classify")
    c.data = dict(name="tfds", dataset="imagenet2012", test="validation")
    c.data.update(dict(train="train[:99%]", validation="train[99%:]"))
    c.inputs = dict(name="image", size=224, area=(0.05, 1.0), flip=True, centre=0.875)
    c.inputs.update(dict(mean=0.5, std=0.5, randaugment=(2, 10), mixup=0.2))
    c.optim = dict(name="adamw", lr=1e-3, schedule="cosine", warmup="10000 steps")
    c.optim.update(dict(weight_decay=0.1, clip=1.0))
    c.batch_size = 1024
    c.steps = "90 epochs"
    c.accum = 1
    c.evaluate = dict(every="5 epochs", splits=("validation",), patience=None)
    c.evaluate.update(dict(metric="validation/accuracy", higher=True))
    c.checkpoint = dict(every="1000 steps", keep=2)
    c.log = dict(every="50 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = None

    if arg in ("H/14", "g/14", "G/14", "22B/14"):
        c.parallel.params, c.model.remat = "fsdp", "full"
    if arg == "tiny":
        c.data = dict(name="synthetic_images", size=64, shape=(16, 16, 3))
        c.inputs.size = 16
        c.model = dict(name="vit", patch=8, width=16, depth=1, heads=2, mlp_width=32)
        c.model.update(dict(classes=None, pool="mean", positions="sincos"))
        c.model.update(dict(image=(16, 16), dropout=0.0))
        c.batch_size, c.steps, c.optim.warmup = 16, "6 steps", "2 steps"
        c.evaluate.every, c.log.every = "3 steps", "1 step"
    return c
