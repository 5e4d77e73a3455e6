"""A masked autoencoder (He et al. 2022, arXiv:2111.06377) on Fashion-MNIST's images.

    python -m fmjax.train --config configs/mae/fashion_mnist.py --workdir runs/mae
    python -m experiments.self_supervision.run   (probes and few labels after it)

The encoder of configs/vit/fashion_mnist.py:small, which sees 12 of 49 patches, and one
block of width 64 that paints the rest; normalised pixels, AdamW 2e-3 with betas 0.9 and
0.95, batch 256, 900 steps, for a CPU. No published neighbour. Ours:
experiments/self_supervision/README.md. ':tiny' needs neither network nor data.
"""

from ml_collections import ConfigDict

from configs.mae import imagenet


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "tiny"):
        raise ValueError(f"no variant {arg!r}: '', 'tiny'")
    if arg == "tiny":
        return imagenet.get_config(arg)
    c = imagenet.get_config()
    c.model = dict(name="mae", patch=4, width=64, depth=4, heads=4, mlp_width=128)
    c.model.update(dict(image=(28, 28), channels=1, decoder_width=64, decoder_depth=1))
    c.model.update(dict(decoder_heads=4, decoder_mlp_width=128))
    c.data = dict(name="fashion_mnist")
    c.inputs = dict(name="masked_image", patch=4, mean=(0.2860,), std=(0.3530,))
    c.inputs.flip = True
    c.optim.update(dict(lr=2e-3, warmup="10%"))
    c.batch_size, c.steps = 256, "900 steps"
    c.evaluate.every, c.checkpoint.every = "300 steps", "300 steps"
    return c
