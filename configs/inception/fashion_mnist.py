"""The small Inception (Zhang et al. 2017, arXiv:1611.03530) on Fashion-MNIST.

    python -m fmjax.train --config configs/inception/fashion_mnist.py \\
        --workdir runs/inception
    python -m experiments.fashion_mnist.run --net inception   (test split)

Eight modules of 1x1 and 3x3 convolutions side by side and two that halve the size, at a
quarter of the paper's width, 13 million multiplications an image: 0.42 to 0.5 processor
seconds a step, 3 to 3.5 minutes an epoch. The recipe is that of
configs/resnet/fashion_mnist.py:10, for 4 epochs. Paper, on CIFAR-10 at full width with
random crops and weight decay: 89.05 %. Published on Fashion-MNIST: ResNet-18 94.9 %.
Ours: 91.3 % (experiments/fashion_mnist/README.md). 'full' has the paper's width; not
run. ':tiny' needs no network.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "full", "tiny"):
        raise ValueError(f"no variant {arg!r}: '', 'full', 'tiny'")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="inception", size="small", width=0.25, classes=None)
    c.objective = dict(name="classify", label_smoothing=0.0)
    c.data = dict(name="fashion_mnist")
    c.inputs = dict(name="image", mean=(0.2860,), std=(0.3530,), flip=True, crop=2)
    c.optim = dict(name="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4)
    c.optim.update(dict(nesterov=True, schedule="cosine", warmup="10%"))
    c.batch_size = 128
    c.steps = "4 epochs"
    c.accum = 1  # batch statistics are of the whole batch
    c.evaluate = dict(every="1 epoch", splits=("validation",), patience=None)
    c.evaluate.update(dict(metric="validation/accuracy", higher=True))
    c.checkpoint = dict(every="1 epoch", keep=1)
    c.log = dict(every="100 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = None

    if arg == "full":
        c.model.width = 1.0
    if arg == "tiny":
        c.data = dict(name="synthetic_images", size=64, shape=(8, 8, 1))
        c.inputs.crop = 1
        c.model.width = 0.03
        c.batch_size, c.steps, c.optim.warmup = 16, "6 steps", "0%"
        c.evaluate.every, c.log.every = "3 steps", "1 step"
    return c
