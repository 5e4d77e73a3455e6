"""The small ResNets and plain nets (He et al. 2016, section 4.2) on Fashion-MNIST.

    python -m fmjax.train --config configs/resnet/fashion_mnist.py:plain-20 \\
        --workdir runs/plain-20

20, 32, 44, 56, 110 and each as 'plain-N', without shortcuts. The paper's recipe for
CIFAR-10: batch 128, SGD 0.1 with momentum 0.9, weight decay 1e-4, a tenth from half and
from three quarters of the run on, images moved by up to 4 pixels and mirrored; but 20
epochs for its 164, for a CPU, and 2 % of warm-up, which it has for 110 alone. Paper:
test errors of 8.75 (20) and 6.97 % (56) with shortcuts, while plain-56 trains worse
than plain-20. Published on Fashion-MNIST: ResNet-18 94.9 %. Ours: not run to the end
yet. '10' is 20 without its first stage and with two blocks in each other one, cosine,
3 epochs, for one CPU core: 90.4 % (experiments/fashion_mnist/README.md). 'wide-6' has
one block in each of those two stages, twice the width, 10 % label smoothing and 12
epochs, 22 million multiplications an image: 92.7 %. 'wide-6-muon' is that net with
Muon, 16 epochs: 94.0 %; '20-muon' is 20 itself so, 5 epochs: 93.4 %. ':tiny' needs no
network.
"""

from ml_collections import ConfigDict

from fmjax.models.resnet import SMALL

SHORT = ("10", "wide-6", "wide-6-muon", "20-muon")
VARIANTS = (*SMALL, *(f"plain-{size}" for size in SMALL), *SHORT)


def get_config(arg: str = "20") -> ConfigDict:
    if arg not in (*VARIANTS, "tiny"):
        names = ", ".join(map(repr, VARIANTS))
        raise ValueError(f"no variant {arg!r}: {names}, 'tiny'")
    c = ConfigDict()
    c.seed = 0
    size = arg.removeprefix("plain-") if arg not in (*SHORT, "tiny") else "20"
    c.model = dict(name="resnet", size=size, classes=None)
    c.model.shortcut = not arg.startswith("plain-")
    c.objective = dict(name="classify", label_smoothing=0.0)
    c.data = dict(name="fashion_mnist")
    c.inputs = dict(name="image", mean=(0.2860,), std=(0.3530,), flip=True, crop=4)
    c.optim = dict(name="sgd", lr=0.1, momentum=0.9, weight_decay=1e-4)
    c.optim.update(dict(schedule="step", warmup="2%", drops=("50%", "75%")))
    c.batch_size = 128
    c.steps = "20 epochs"
    c.accum = 1  # batch statistics are of the whole batch
    c.evaluate = dict(every="1 epoch", splits=("validation",), patience=None)
    c.evaluate.update(dict(metric="validation/accuracy", higher=True))
    c.checkpoint = dict(every="1 epoch", keep=1)
    c.log = dict(every="100 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = None

    if arg in SHORT:
        c.inputs.crop = 2
        c.optim = dict(name="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4)
        c.optim.update(dict(nesterov=True, schedule="cosine", warmup="10%"))
        c.steps = "3 epochs"
    if arg == "10":
        c.model.depths = (0, 2, 2)
    if arg.startswith("wide-6"):
        c.model.update(dict(depths=(0, 1, 1), width=32))
        c.objective.label_smoothing, c.optim.warmup = 0.1, "5%"
        c.steps = "12 epochs"
    if arg in ("wide-6-muon", "20-muon"):
        # Rate by validation of wide-6 after 300 steps: 0.005, 0.01, 0.02, 0.04.
        c.objective.label_smoothing = 0.1
        c.optim = dict(name="muon", lr=0.02, rms=0.2, weight_decay=0.01)
        c.optim.update(dict(schedule="cosine", warmup="5%"))
        c.steps = "16 epochs" if arg == "wide-6-muon" else "5 epochs"
    if arg == "tiny":
        c.data = dict(name="synthetic_images", size=64, shape=(8, 8, 1))
        c.inputs.crop = 1
        c.model = dict(name="resnet", depths=(1, 1), width=4, stem="small")
        c.model.update(dict(classes=None, projection=False, shortcut=True))
        c.batch_size, c.steps, c.optim.warmup = 16, "6 steps", "0%"
        c.evaluate.every, c.log.every = "3 steps", "1 step"
    return c
