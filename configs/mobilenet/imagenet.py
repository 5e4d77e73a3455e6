"""MobileNetV2 on ImageNet-1k (Sandler et al. 2018, arXiv:1801.04381).

    python -m fmjax.train --config configs/mobilenet/imagenet.py --workdir runs/v2 \\
        --config.data.path=/data/imagenet   (train/CLASS/*.JPEG, validation/CLASS/...)

The authors' own command for 72.0 % (tensorflow/models, slim/nets/mobilenet) on 8 GPUs:
RMSProp with decay and momentum 0.9 and epsilon 1 at 8 x 0.045, times 0.98 every 2.5
epochs, batches of 8 x 96, 700,000 steps (420 epochs), weight decay 4e-5 (not of
depthwise kernels), label smoothing 0.1, averaging by 0.9999, kernels of deviation 0.09,
running statistics by 0.997, crops of 5-100 %, brightness and saturation. (Section 6.1
has 0.045, batches of 96 on each of 16 workers that do not wait for each other, and 0.98
an epoch.) It differs in that the rate falls in steps, not evenly, brightness is added
to, not multiplied, batch statistics are of 96 images, and running statistics are
averaged with the parameters. Paper: 72.0 % (1.0) and 74.7 % (1.4) top-1. Ours: not run;
torchvision's weights of 1.0, imported, name real photos rightly
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
    c.model.update(dict(kernel_std=0.09, norm_momentum=0.997, norm_eps=1e-3))
    c.model.dtype = "bfloat16"
    c.objective = dict(name="classify", label_smoothing=0.1)
    c.data = dict(name="image_folder", path="imagenet", size=None)
    c.inputs = dict(name="image", size=224, area=(0.05, 1.0), flip=True, centre=0.875)
    c.inputs.update(dict(mean=0.5, std=0.5, jitter=(32 / 255, 0.0, 0.5, 0.0)))
    c.optim = dict(name="rmsprop", lr=8 * 0.045, b2=0.9, eps=1.0, momentum=0.9)
    c.optim.update(dict(schedule="exponential", final=0.98 ** (420 / 2.5)))
    c.optim.update(dict(weight_decay=4e-5, ema=0.9999))
    c.optim.no_decay = r"(^|/)(bias|scale)$|/depthwise/"
    c.batch_size = 8 * 96
    c.steps = "420 epochs"
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
        c.model.classes, c.optim.ema = None, 0.5
        c.batch_size, c.steps = 16, "4 steps"
        c.evaluate.every, c.log.every = "2 steps", "1 step"
    return c
