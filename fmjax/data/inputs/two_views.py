"""Two random views of an image (SimCLR: Chen et al. 2020, arXiv:2002.05709)."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fmjax.data.images import augment
from fmjax.data.images.normalise import Numbers, scaler
from fmjax.data.images.threads import threaded
from fmjax.data.inputs.image import labelled
from fmjax.data.source import Row


def make(
    *,
    size: int | Sequence[int] | None = None,
    mean: Numbers = 0.0,
    std: Numbers = 1.0,
    area: Sequence[float] = (0.08, 1.0),
    centre: float = 1.0,
    resample: str = "bicubic",
    flip: bool = True,
    strength: float = 1.0,
    jitter_rate: float = 0.8,
    grey: float = 0.2,
    blur: float = 0.5,
    sigma: Sequence[float] = (0.1, 2.0),
    threads: int = 1,
) -> Callable[[Row, np.random.Generator | None], dict[str, Any]]:
    """Two views of each image, changed independently as in the paper's appendix A.

    A random resized crop (`area`) to `size` (None: the image's own), a mirror for half
    (`flip`), brightness, contrast, saturation and hue by strength x (0.8, 0.8, 0.8,
    0.2) with chance `jitter_rate`, no colour with chance `grey`, a blur of `sigma`
    pixels with chance `blur`. The defaults are the paper's for ImageNet at 224; its
    small images (appendix B.9) go without blur and at strength 0.5. centre, threads: as
    in `inputs/image`.

    Returns inputs {view1, view2: float32 [H, W, C], (x / 255 - mean) / std} and, where
    the row has a label, label int32. Without a generator (evaluation) the draws follow
    from the pixels alone, and inputs have `image` too, which nothing was done to but
    the cut to `size`: features are of it. Raises ValueError on an image of another
    type.
    """
    scaled = scaler(mean, std)
    if strength < 0 or 0.2 * strength > 0.5:
        raise ValueError(f"inputs.strength={strength}: from 0 to 2.5")
    colours = [strength * x for x in (0.8, 0.8, 0.8, 0.2)]
    changes = augment.changes(
        size or 1,  # stands in until an image says its own
        area=area,
        centre=centre,
        resample=resample,
        flip=flip,
        jitter=colours if strength else None,
        jitter_rate=jitter_rate,
        grey=grey,
        blur=blur,
        sigma=sigma,
    )

    def inputs(row: Row, rng: np.random.Generator | None) -> dict[str, Any]:
        image = augment.of_row(row)
        own = changes if size else changes._replace(size=image.shape[:2])
        still = {}
        if rng is None:
            still["image"] = scaled(augment.evaluate(image, own))
            seed = hashlib.blake2b(image.tobytes(), digest_size=8).digest()
            rng = np.random.default_rng(int.from_bytes(seed, "big"))
        views = {
            name: scaled(augment.train(image, rng, own)) for name in ("view1", "view2")
        }
        return {"inputs": views | still} | labelled(row)

    return threaded(inputs, threads)
