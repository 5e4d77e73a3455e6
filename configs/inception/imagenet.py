"""Inception-v3 on ImageNet-1k (Szegedy et al. 2016, arXiv:1512.00567).

    python -m fmjax.train --config configs/inception/imagenet.py --workdir runs/v3 \\
        --config.data.path=/data/imagenet   (train/CLASS/*.JPEG, validation/CLASS/...)

Sections 7 and 8: 100 epochs in batches of 50 x 32, RMSProp (decay 0.9, epsilon 1) at
0.045, times 0.94 every two epochs, gradients clipped at norm 2, label smoothing 0.1,
averaged parameters, 299x299. Of what the paper leaves open the authors' code
(tensorflow/models, inception) says: momentum 0.9, averaging by 0.9999, weight decay
4e-5, dropout 0.2, 0.4 of the auxiliary classifier's loss (0.3 in Szegedy et al. 2015),
kernels of deviation 0.1, running statistics by 0.9997, crops of 5-100 % and changed
colours. It differs in that the rate falls in steps, not evenly, brightness is added to,
not multiplied, batch statistics are of 32 images, and running statistics are averaged
with the parameters. Paper: 78.8 % top-1 (21.2 % error) for one crop; public weights
77.3-78.0. Ours: not run; it needs ImageNet in folders and an accelerator. ':tiny' needs
neither network nor data.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "tiny"):
        raise ValueError(f"no variant {arg!r}: '', 'tiny'")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="inception", size="v3", classes=None, dtype="bfloat16")
    c.model.update(dict(dropout=0.2, kernel_std=0.1, norm_momentum=0.9997))
    c.objective = dict(name="classify_auxiliary", share=0.4, label_smoothing=0.1)
    c.data = dict(name="image_folder", path="imagenet", size=None)
    c.inputs = dict(name="image", size=299, area=(0.05, 1.0), flip=True, centre=0.875)
    c.inputs.update(dict(mean=0.5, std=0.5, jitter=(32 / 255, 0.5, 0.5, 0.2)))
    c.optim = dict(name="rmsprop", lr=0.045, b2=0.9, eps=1.0, momentum=0.9)
    c.optim.update(dict(schedule="exponential", final=0.94**50, clip=2.0, ema=0.9999))
    c.optim.weight_decay = 4e-5
    c.batch_size = 1600
    c.steps = "100 epochs"
    c.accum = 1  # batch statistics are of the whole batch
    c.evaluate = dict(every="5 epochs", splits=("validation",), patience=None)
    c.evaluate.update(dict(metric="validation/accuracy", higher=True))
    c.checkpoint = dict(every="1000 steps", keep=2)
    c.log = dict(every="50 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = None

    if arg == "tiny":
        # One block of a kind; the auxiliary classifier would need 299x299.
        blocks = ("Mixed_5b", "Mixed_6a", "Mixed_7a", "Mixed_7b")
        c.data = dict(name="synthetic_images", size=32, shape=(76, 76, 3))
        c.inputs.size = 76
        c.model = dict(name="inception", width=0.03, blocks=blocks, auxiliary=False)
        c.model.update(dict(classes=None, dropout=0.0))
        c.objective = dict(name="classify", label_smoothing=0.1)
        c.optim.ema = 0.5
        c.batch_size, c.steps = 16, "4 steps"
        c.evaluate.every, c.log.every = "2 steps", "1 step"
    return c
