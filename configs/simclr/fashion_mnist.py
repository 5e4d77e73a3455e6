"""SimCLR (Chen et al. 2020, arXiv:2002.05709) on Fashion-MNIST's images, for a CPU.

    python -m fmjax.train --config configs/simclr/fashion_mnist.py --workdir runs/simclr
    python -m experiments.self_supervision.run   (probes and few labels after it)

The ResNet of configs/resnet/fashion_mnist.py:10 under a head of 64, temperature 0.2,
crops of 40 % and more, mirrored, brightness and contrast, no blur; AdamW 2e-3, batch
128, 450 steps of the paper's 1,000 epochs. No published neighbour. Ours:
experiments/self_supervision/README.md. ':tiny' needs neither network nor data.
"""

from ml_collections import ConfigDict

from configs.simclr import imagenet


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "tiny"):
        raise ValueError(f"no variant {arg!r}: '', 'tiny'")
    c = imagenet.get_config(arg)
    if arg == "tiny":
        return c
    backbone = dict(name="resnet", size="20", depths=(0, 2, 2))
    c.model = dict(name="simclr", backbone=backbone, width=64, joint=64)
    c.objective.temperature = 0.2
    c.data = dict(name="fashion_mnist")
    c.inputs = dict(name="two_views", size=28, mean=(0.2860,), std=(0.3530,))
    c.inputs.update(dict(area=(0.4, 1.0), resample="bilinear", strength=0.5))
    c.inputs.update(dict(grey=0.0, blur=0.0))
    c.optim = dict(name="adamw", lr=2e-3, schedule="cosine", warmup="10%")
    c.optim.weight_decay = 1e-4
    c.batch_size, c.steps = 128, "450 steps"
    c.evaluate.every, c.checkpoint.every = "150 steps", "150 steps"
    return c
