"""SimCLR with a ResNet-50 on ImageNet-1k (Chen et al. 2020, arXiv:2002.05709).

    python -m fmjax.train --config configs/simclr/imagenet.py --workdir runs/simclr
    python -m fmjax.evaluate --workdir runs/simclr --metrics linear_probe

Section 2.2 and appendix B.6: batch 4,096, LARS at 0.3 x batch / 256 without rate or
decay for biases and norms, weight decay 1e-6, 10 epochs of warm-up and a cosine, 1,000
epochs, temperature 0.1. Blocks that begin as their shortcuts, a head of deviation 0.01
whose last norm has no shift: the authors' code. Its pixels are of 0 to 1, and its
convolutions begin by their fan-in, but a norm behind each and LARS make nothing of the
scale of either. Paper: 69.3 % top-1 by a linear probe on 128 TPUv3 cores. Ours: not
run. 'supervised' is the loss of Khosla et al. 2020 with labels (78.7 % for R50 with
their own recipe, which this is not). ':tiny' needs neither network nor data.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "supervised", "tiny"):
        raise ValueError(f"no variant {arg!r}: '', 'supervised', 'tiny'")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="simclr", size="R50", dtype="bfloat16")
    c.objective = dict(name="simclr", temperature=0.1)
    c.data = dict(name="tfds", dataset="imagenet2012", test="validation")
    c.data.update(dict(train="train[:99%]", validation="train[99%:]"))
    c.inputs = dict(name="two_views", size=224, centre=0.875)
    c.inputs.update(dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
    c.optim = dict(name="lars", lr=0.3 * 4096 / 256, schedule="cosine", warmup="1%")
    c.optim.weight_decay = 1e-6
    c.batch_size = 4096
    c.steps = "1000 epochs"
    c.accum = 1  # all rows of a batch are each other's negatives
    c.evaluate = dict(every="20 epochs", splits=("validation",), patience=None)
    c.evaluate.metric = "validation/loss"
    c.checkpoint = dict(every="1000 steps", keep=2)
    c.log = dict(every="50 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = None

    if arg == "supervised":
        c.objective.name = "supervised_contrastive"
    if arg == "tiny":
        c.data = dict(name="synthetic_images", size=64, shape=(16, 16, 3))
        c.inputs.update(dict(size=16, blur=0.0, strength=0.5))
        backbone = dict(name="resnet", depths=(1, 1), width=4, stem="small")
        c.model = dict(name="simclr", backbone=backbone, width=16, joint=8)
        c.optim.lr = 0.3
        c.batch_size, c.steps = 16, "6 steps"
        c.evaluate.every, c.log.every = "3 steps", "1 step"
    return c
