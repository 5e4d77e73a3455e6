"""ResNets on ImageNet-1k, the 90-epoch recipe (He et al. 2016; Goyal et al. 2017).

    python -m fmjax.train --config configs/resnet/imagenet.py --workdir runs/resnet50 \\
        --config.data.path=/data/imagenet   (train/CLASS/*.JPEG, validation/CLASS/...)

arXiv:1706.02677, section 5.1: Nesterov SGD at 0.1 x batch / 256, a tenth from epochs
30, 60 and 80 on, 5 epochs of warm-up (from 0, theirs from 0.1), weight decay 1e-4 (not
of norms, nor here of the classes' bias), batch statistics over the whole batch (theirs
are of 32 images), blocks that begin as their shortcuts, crops of 8-100 %. Paper: 76.4 %
top-1 for ResNet-50 on 8 P100; He et al.'s files, whose strides are others, have 75.3
(50), 76.4 (101), 77.0 (152) for one crop. Ours: not run; it needs ImageNet in folders
and an accelerator. ':tiny' needs neither network nor data.
"""

from ml_collections import ConfigDict

from fmjax.models.resnet import LARGE


def get_config(arg: str = "50") -> ConfigDict:
    if arg not in (*LARGE, "tiny"):
        raise ValueError(f"no variant {arg!r}: {', '.join(map(repr, LARGE))}, 'tiny'")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="resnet", size=arg if arg in LARGE else "50", classes=None)
    c.model.update(dict(zero_init=True, dtype="bfloat16"))
    c.objective = dict(name="classify", label_smoothing=0.0)
    c.data = dict(name="image_folder", path="imagenet", size=None)
    c.inputs = dict(name="image", size=224, area=(0.08, 1.0), flip=True, centre=0.875)
    c.inputs.update(dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
    c.optim = dict(name="sgd", lr=0.4, momentum=0.9, nesterov=True, weight_decay=1e-4)
    # Of 90 epochs: 5, and 30, 60, 80.
    c.optim.update(dict(schedule="step", warmup="5.56%"))
    c.optim.drops = ("33.33%", "66.67%", "88.89%")
    c.batch_size = 1024
    c.steps = "90 epochs"
    c.accum = 1  # batch statistics are of the whole batch
    c.evaluate = dict(every="5 epochs", splits=("validation",), patience=None)
    c.evaluate.update(dict(metric="validation/accuracy", higher=True))
    c.checkpoint = dict(every="1000 steps", keep=2)
    c.log = dict(every="50 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = None

    if arg == "tiny":
        c.data = dict(name="synthetic_images", size=64, shape=(16, 16, 3))
        c.inputs.size = 16
        c.model = dict(name="resnet", depths=(1, 1), width=4, bottleneck=True)
        c.model.update(dict(classes=None, zero_init=True))
        c.batch_size, c.steps, c.optim.warmup = 16, "6 steps", "2 steps"
        c.optim.lr = 0.1
        c.evaluate.every, c.log.every = "3 steps", "1 step"
    return c
