"""The classic small CNN on Fashion-MNIST (Xiao et al. 2017), official split.

    python -m fmjax.train --config configs/cnn/fashion_mnist.py --workdir runs/fashion
    python -m experiments.fashion_mnist.run --net classic --seeds 3   (test split)

Adam 1e-3, 10 epochs, early stopping on 5,000 of the 60,000 training images. Published
neighbours: 91-92.5 %. Ours: 90.6 % (experiments/fashion_mnist/README.md). The variants
are the sizes of fmjax/models/cnn.py, and 'augmented': 'two' on images moved by up to 2
pixels and mirrored, for 5 epochs with a cosine. ':tiny' needs no network.
"""

from ml_collections import ConfigDict

from fmjax.models.cnn import SIZES


def get_config(arg: str = "classic") -> ConfigDict:
    if arg not in (*SIZES, "augmented", "tiny"):
        names = ", ".join(map(repr, SIZES))
        raise ValueError(f"no variant {arg!r}: {names}, 'augmented', 'tiny'")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="cnn", size=arg if arg in SIZES else None, classes=None)
    c.objective = dict(name="classify", label_smoothing=0.0)
    c.data = dict(name="fashion_mnist")
    c.inputs = dict(name="image", mean=(0.2860,), std=(0.3530,), flip=False)
    c.optim = dict(name="adam", lr=1e-3, schedule="constant")
    c.batch_size = 64
    c.steps = "10 epochs"
    c.accum = 1
    c.evaluate = dict(every="1 epoch", splits=("validation",), patience=3)
    c.evaluate.metric = "validation/loss"
    c.checkpoint = dict(every="1 epoch", keep=1)
    c.log = dict(every="100 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = None

    if arg == "augmented":
        c.model.size = "two"
        c.inputs.update(dict(flip=True, crop=2))
        c.optim.schedule = "cosine"
        c.batch_size, c.steps, c.evaluate.patience = 128, "5 epochs", None
    if arg == "tiny":
        c.data = dict(name="synthetic_images", size=64)
        c.model.channels, c.model.dense = (4,), 16
        c.batch_size, c.steps = 16, "6 steps"
        c.evaluate.every, c.log.every = "3 steps", "1 step"
    return c
