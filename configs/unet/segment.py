"""U-Net (Ronneberger et al. 2015, arXiv:1505.04597): a class for every pixel.

    python -m fmjax.train --config configs/unet/segment.py --workdir runs/scenes
    python -m fmjax.evaluate --workdir runs/scenes

'' is a small one, with padding, on scenes of real cut-outs (Tux Paint's stamps) before
real textures, split by stamp: cross-entropy and soft Dice, Adam 1e-3. 'paper' is the
paper's net for images and masks of your own (--config.data.path=FOLDER): valid
convolutions, 572 x 572 pixels in, 388 x 388 out, one image a batch and momentum 0.99,
cross-entropy alone, without its weight map, which is for touching cells, and without
its elastic deformations; the rate, dropout and number of steps are ours. Its 92 %
and 77.5 % IoU are of the ISBI cell tracking challenge of 2015. Ours: '' has a mIoU of
0.267 after its 6 epochs (experiments/scenes/README.md); 'paper' is not run. ':tiny'
needs neither network nor data.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "paper", "tiny"):
        raise ValueError(f"no variant {arg!r}: '', 'paper', 'tiny'")
    c = ConfigDict()
    c.seed = 0
    c.model = dict(name="unet", classes=None, channels=(16, 32, 64, 128))
    c.model.update(dict(padding="same", dropout=0.0))
    c.objective = dict(name="segment", dice=1.0, cross_entropy=1.0)
    c.data = dict(name="scenes", side=48)
    c.inputs = dict(name="image_mask", flip=True, mean=0.5, std=0.25)
    c.optim = dict(name="adam", lr=1e-3, schedule="cosine", warmup="2%", clip=1.0)
    c.batch_size = 16
    c.steps = "6 epochs"
    c.accum = 1
    c.evaluate = dict(every="1 epoch", splits=("validation",), patience=None)
    c.evaluate.metric = "validation/loss"
    c.checkpoint = dict(every="1 epoch", keep=1)
    c.log = dict(every="20 steps")
    c.parallel = dict(how="jit", params="replicate")
    c.init_from = None

    if arg == "paper":
        c.model = dict(name="unet", size="paper", classes=None, dropout=0.5)
        c.objective.dice = 0.0
        classes = ("background", "cell")
        c.data = dict(name="image_masks", path="my_cells", classes=classes, size=572)
        c.data.channels = 1
        c.optim = dict(name="sgd", lr=1e-3, schedule="constant", momentum=0.99)
        c.batch_size, c.steps, c.parallel.devices = 1, "30000 steps", 1
        c.evaluate.every = c.checkpoint.every = "1000 steps"
    if arg == "tiny":
        c.data = dict(name="synthetic_scenes", size=64, shape=(16, 16, 3))
        c.model.channels = (4, 8)
        c.batch_size, c.steps, c.optim.warmup = 16, "6 steps", "1 step"
        c.evaluate.every, c.log.every = "3 steps", "1 step"
    return c
