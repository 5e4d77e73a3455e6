"""MobileNetV2 on ImageNet-1k (Sandler et al. 2018, arXiv:1801.04381).

    python -m fmjax.train --config configs/mobilenet/imagenet.py --workdir runs/v2 \\
        --config.data.path=/data/imagenet   (train/CLASS/*.JPEG, validation/CLASS/...)

Section 6.1: RMSProp with decay and momentum 0.9 at 0.045, times 0.98 an epoch, weight
decay 4e-5, batches of 16 x 96. It does not say how many epochs: 300 here, at whose end
the rate is 0.2 % of its first. Paper: 72.0 % (1.0) and 74.7 % (1.4) top-1. Ours: not
run; torchvision's weights of 1.0, imported, name real photos rightly
(tests/interop/test_mobilenet_weights.py). ':tiny' needs neither network nor data.
"""

from ml_collections import ConfigDict

from fmjax.models.mobilenet import SIZES


def get_config(arg: str = "1.0") -> ConfigDict:
    if arg not in (*SIZES, "tiny"):
        raise ValueError(f"no variant {arg!r}: {', '.join(map(repr, SIZES))}, 'tiny'")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="mobilenet", size=arg if arg in SIZES else "1.0", classes=None)
    c.model.dtype = "bfloat16"
    c.objective = dict(name="classify", label_smoothing=0.0)
    c.data = dict(name="image_folder", path="imagenet", size=None)
    c.inputs = dict(name="image", size=224, area=(0.08, 1.0), flip=True, centre=0.875)
    c.inputs.update(dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
    c.optim = dict(name="rmsprop", lr=0.045, b2=0.9, eps=1.0, momentum=0.9)
    c.optim.update(dict(schedule="exponential", final=0.98**300, weight_decay=4e-5))
    c.batch_size = 1536
    c.steps = "300 epochs"
    c.accum = 1  # batch statistics are of the whole batch
    c.evaluate = dict(every="5 epochs", splits=("validation",), patience=None)
    c.evaluate.update(dict(metric="validation/accuracy", higher=True))
    c.checkpoint = dict(every="1000 steps", keep=2)
    c.log = dict(every="50 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = None

    if arg == "tiny":
        c.data = dict(name="synthetic_images", size=32, shape=(32, 32, 3))
        c.inputs.size = 32
        c.model = dict(name="mobilenet", width=0.05, divisor=2, head=8, dropout=0.0)
        # No expansion; stride 2, and a shortcut after it; other channels.
        c.model.stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 96, 1, 1))
        c.model.classes = None
        c.batch_size, c.steps = 16, "4 steps"
        c.evaluate.every, c.log.every = "2 steps", "1 step"
    return c
