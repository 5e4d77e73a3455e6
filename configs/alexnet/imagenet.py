"""AlexNet on ImageNet-1k (Krizhevsky et al. 2012; one tower: arXiv:1404.5997).

    python -m fmjax.train --config configs/alexnet/imagenet.py --workdir runs/alexnet \\
        --config.data.path=/data/imagenet   (train/CLASS/*.JPEG, validation/CLASS/...)

The paper's section 5: SGD with momentum 0.9 at 0.01, batch 128, weight decay 5e-4, 90
epochs, the rate a tenth three times (there by hand, here from 30, 60 and 80 epochs on),
mirrored crops. Not the paper's: crops of 8-100 % (there 224 x 224 of 256 x 256, and
colours by principal components), pixels divided by their deviation, kernels by He et
al. 2015 and biases at zero (there pixels of 0 to 255 less their mean, kernels of
deviation 0.01, and biases of one in convolutions 2, 4 and 5 and the hidden layers).
Paper: 59.3 % top-1 (40.7 % error) of five convolutions with ten crops; torchvision's
weights of this net 56.5 % with one. Ours: not run; it needs ImageNet in folders and an
accelerator.
':tiny' needs neither network nor data.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "tiny"):
        raise ValueError(f"no variant {arg!r}: '', 'tiny'")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="alexnet", size="base", classes=None, dropout=0.5)
    c.objective = dict(name="classify", label_smoothing=0.0)
    c.data = dict(name="image_folder", path="imagenet", size=None)
    c.inputs = dict(name="image", size=224, area=(0.08, 1.0), flip=True, centre=0.875)
    c.inputs.update(dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
    c.optim = dict(name="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4)
    c.optim.update(dict(schedule="step", drops=("33.33%", "66.67%", "88.89%")))
    c.batch_size = 128
    c.steps = "90 epochs"
    c.accum = 1
    c.evaluate = dict(every="5 epochs", splits=("validation",), patience=None)
    c.evaluate.update(dict(metric="validation/accuracy", higher=True))
    c.checkpoint = dict(every="1000 steps", keep=2)
    c.log = dict(every="50 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = None

    if arg == "tiny":
        c.data = dict(name="synthetic_images", size=32, shape=(64, 64, 3))
        c.inputs.size = 64
        c.model = dict(name="alexnet", channels=(4, 4, 4, 4, 4), dense=16)
        c.model.update(dict(classes=None, dropout=0.0))
        c.batch_size, c.steps = 16, "4 steps"
        c.evaluate.every, c.log.every = "2 steps", "1 step"
    return c
