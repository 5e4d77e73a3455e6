"""Changes of images: equal to references, to the formula, or as often as they say."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from fmjax.data.images import augment, colour, erase, geometry, mix, randaugment
from fmjax.data.images.normalise import scaler
from fmjax.data.images.resize import resize

PIXELS = np.random.default_rng(0).integers(0, 256, (19, 26, 3), np.uint8)


def rng(seed=0):
    return np.random.default_rng(seed)


def weights(old, new, kind):
    """[new, old]: a filter written out, as wide as the shrinking asks."""
    scale = max(old / new, 1.0)
    radius = {"bilinear": 1.0, "bicubic": 2.0}[kind]
    centre = (np.arange(new)[:, None] + 0.5) * old / new
    x = np.abs(np.arange(old) + 0.5 - centre) / scale
    if kind == "bilinear":
        found = np.maximum(1 - x, 0)
    else:
        near = 1.5 * x**3 - 2.5 * x**2 + 1
        far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        found = np.where(x < 1, near, np.where(x < 2, far, 0))
    found[x >= radius] = 0
    return found / found.sum(1, keepdims=True)


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(7, 9), (40, 51), (19, 5)])
def test_resizing_is_pillows_and_the_formulas(kind, size):
    found = resize(PIXELS, size, kind)
    assert found.shape == (*size, 3)
    theirs = Image.fromarray(PIXELS).resize(
        size[::-1], getattr(Image.Resampling, kind.upper())
    )
    np.testing.assert_array_equal(found, np.asarray(theirs))
    down, across = weights(19, size[0], kind), weights(26, size[1], kind)
    halfway = np.clip(np.einsum("xw,hwc->hxc", across, PIXELS), 0, 255)
    want = np.clip(np.einsum("yh,hxc->yxc", down, halfway), 0, 255)
    # Pillow rounds to bytes after going across, and again after going down.
    assert np.abs(found - want).max() < 1.5
    assert np.abs(found - want).mean() < 0.4


def test_resizing_other_kinds():
    mask = (PIXELS[..., 0] > 99).astype(np.uint8)
    assert set(np.unique(resize(mask, (5, 50), "nearest"))) <= {0, 1}
    assert resize(PIXELS[..., :1], (4, 4)).shape == (4, 4, 1)
    assert resize(PIXELS, (19, 26)) is PIXELS
    window = resize(PIXELS, (6, 6), "nearest", box=(2, 3, 8, 9))
    np.testing.assert_array_equal(window, PIXELS[2:8, 3:9])
    with pytest.raises(ValueError, match="no filter 'cubic': nearest, bilinear"):
        resize(PIXELS, (4, 4), "cubic")
    with pytest.raises(ValueError, match="1, 3 or 4 channels, not 2"):
        resize(PIXELS[..., :2], (4, 4))
    with pytest.raises(ValueError, match="not float64"):
        resize(PIXELS / 2, (4, 4))


def test_windows_have_the_shares_and_ratios_they_should():
    found = []
    for seed in range(2000):
        top, left, bottom, right = geometry.random_box(
            (100, 150), rng(seed), (0.1, 0.4)
        )
        assert 0 <= top < bottom <= 100
        assert 0 <= left < right <= 150
        h, w = bottom - top, right - left
        found.append((h * w / 15_000, w / h, top / max(100 - h, 1)))
    share, ratio, place = np.array(found).T
    assert 0.09 < share.min() < 0.11
    assert 0.39 < share.max() < 0.41
    assert abs(share.mean() - 0.25) < 0.01
    assert ratio.min() > 0.7
    assert ratio.max() < 1.4
    assert abs(np.log(ratio).mean()) < 0.03
    assert abs(place.mean() - 0.5) < 0.03
    # None fits: the largest central window within the ratios.
    assert geometry.random_box((10, 100), rng(), (0.9, 1)) == (0, 43, 10, 56)
    assert geometry.random_box((1, 1), rng()) == (0, 0, 1, 1)


@pytest.mark.parametrize("size", [(7, 10), (10, 7), (9, 9)])
@pytest.mark.parametrize("shape", [(1, 5001), (2, 5000), (4000, 3), (9, 801)])
def test_the_centre_of_a_line_is_scaled_without_the_rest(monkeypatch, shape, size):
    line = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    sides = []

    def watched(image, size, how):
        sides.append(max(size))
        return resize(image, size, how)

    monkeypatch.setattr(geometry, "resize", watched)
    found = geometry.resized_centre(line, size)
    assert found.shape == (*size, 3)
    # The same as of the whole line, scaled: 5001 pixels of 1 make 50,010 of 10.
    monkeypatch.setattr(geometry, "_LONGEST", 1 << 20)
    whole = geometry.resized_centre(line, size)
    assert np.abs(found.astype(int) - whole).max() <= 4
    assert sides[0] == sides[1] < 1 << 14 or sides[0] < 16_500 < sides[1]


def test_lines_come_to_a_size_that_is_no_square_in_little_memory():
    line = np.zeros((1, 5000, 3), np.uint8)
    line[:, 2400:2600] = 200
    tracemalloc.start()
    found = geometry.resized_centre(line, (320, 224), 0.875)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.shape == (320, 224, 3)
    assert (found == 200).all()
    assert held < 1 << 27


def test_crops_and_mirrors():
    np.testing.assert_array_equal(
        geometry.centre_crop(PIXELS, (9, 6)), PIXELS[5:14, 10:16]
    )
    np.testing.assert_array_equal(geometry.flip(PIXELS), PIXELS[:, ::-1])
    with pytest.raises(ValueError, match="no centre of 20 x 5 in an image of 19 x 26"):
        geometry.centre_crop(PIXELS, (20, 5))
    want = geometry.centre_crop(resize(PIXELS, (16, 22)), (14, 14))
    found = geometry.resized_centre(PIXELS, (14, 14), 0.875)
    np.testing.assert_array_equal(found, want)
    assert geometry.resized_centre(PIXELS, (8, 30), 0.9).shape == (8, 30, 3)
    assert geometry.resized_centre(PIXELS[:3], (9, 9)).shape == (9, 9, 3)
    mirrored = sum(
        np.array_equal(geometry.random_flip(PIXELS, rng(s)), PIXELS[:, ::-1])
        for s in range(400)
    )
    assert 150 < mirrored < 250


@pytest.mark.parametrize("factor", [0.0, 0.1, 0.4, 1 / 3, 1.0, 1.237, 1.9])
def test_enhancements_are_pillows(factor):
    for what, theirs in (
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
        ("sharpness", ImageEnhance.Sharpness),
    ):
        want = np.asarray(theirs(Image.fromarray(PIXELS)).enhance(factor))
        found = colour.enhance(PIXELS, what, factor)
        np.testing.assert_array_equal(found, want)
    want = np.clip(PIXELS * factor, 0, 255)
    assert np.abs(colour.enhance(PIXELS, "brightness", factor) - want).max() <= 1


def test_grey_images_have_no_colour_to_change():
    one = PIXELS[..., :1]
    for image in (
        colour.enhance(one, "saturation", 0.3),
        colour.shift_hue(one, 0.4),
        colour.grey(one),
    ):
        np.testing.assert_array_equal(image, one)
    for function in (colour.enhance(one, "contrast", 0.5), colour.blur(one, 1.0)):
        assert function.shape == one.shape
    found = colour.grey(PIXELS)
    luma = PIXELS @ np.array([0.299, 0.587, 0.114])
    assert np.abs(found - luma[..., None]).max() <= 1
    assert (found == found[..., :1]).all()


def test_hue_turns_around():
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    np.testing.assert_allclose(colour.shift_hue(red, 1 / 3)[0, 0], [0, 255, 0], atol=8)
    np.testing.assert_allclose(colour.shift_hue(red, -1 / 3)[0, 0], [0, 0, 255], atol=8)
    np.testing.assert_array_equal(colour.shift_hue(red, 0.0), red)
    there_and_back = colour.shift_hue(colour.shift_hue(PIXELS, 0.25), -0.25)
    assert np.abs(there_and_back.astype(int) - PIXELS).mean() < 3


def test_jitter_stays_in_its_range_and_visits_it():
    plain = np.full((4, 4, 3), 100, np.uint8)
    levels = [
        int(colour.jitter(plain, rng(s), (0.4, 0, 0, 0))[0, 0, 0]) for s in range(300)
    ]
    assert 59 <= min(levels) < 66
    assert 134 < max(levels) <= 140
    assert abs(np.mean(levels) - 100) < 4
    orders = {
        colour.jitter(PIXELS, rng(s), (0.8, 0.8, 0.8, 0.2)).tobytes() for s in range(9)
    }
    assert len(orders) == 9
    np.testing.assert_array_equal(colour.jitter(PIXELS, rng(), (0, 0, 0, 0)), PIXELS)


@pytest.mark.parametrize("sigma", [0.6, 1.5, 3.0])
def test_blur_is_near_a_gaussian(sigma):
    point = np.zeros((41, 41, 1), np.uint8)
    point[10:31, 10:31] = 240
    taps = np.exp(-0.5 * (np.arange(-15, 16) / sigma) ** 2)
    taps /= taps.sum()
    want = np.apply_along_axis(
        np.convolve, 0, point[..., 0].astype(float), taps, "same"
    )
    want = np.apply_along_axis(np.convolve, 1, want, taps, "same")
    error = np.abs(colour.blur(point, sigma)[..., 0] - want)
    assert error.max() < 8
    assert error.mean() < 1


def test_every_operation_of_randaugment_at_its_end():
    def at(operation, m=10.0, image=PIXELS):
        return randaugment.apply(image, operation, m)

    plain = Image.fromarray(PIXELS)
    np.testing.assert_array_equal(at("identity"), PIXELS)
    np.testing.assert_array_equal(at("solarize"), 255 - PIXELS)
    np.testing.assert_array_equal(at("posterize"), PIXELS & 0xF0)
    flat = np.full((19, 26, 3), 77, np.uint8)
    for image in (PIXELS, PIXELS // 5 + 60, PIXELS // 90, flat):
        for name, theirs in (
            ("autocontrast", ImageOps.autocontrast),
            ("equalize", ImageOps.equalize),
        ):
            want = np.asarray(theirs(Image.fromarray(image)))
            np.testing.assert_array_equal(at(name, 10, image), want)
    for m in (0, 3, 7.5, 10):
        for name, want in (
            ("solarize", ImageOps.solarize(plain, round(256 * (1 - m / 10)))),
            ("posterize", ImageOps.posterize(plain, 8 - round(0.4 * m))),
        ):
            np.testing.assert_array_equal(at(name, m), np.asarray(want))
    for name in ("brightness", "contrast", "saturation", "sharpness"):
        np.testing.assert_array_equal(at(name), colour.enhance(PIXELS, name, 1.9))
        np.testing.assert_array_equal(at(name, -10), colour.enhance(PIXELS, name, 0.1))
    # 150 / 331 of 331 pixels are 150, and grey comes in.
    wide = np.arange(331, dtype=np.uint8)[None, :, None].repeat(331, 0)
    moved = at("translate_x", 10, wide)
    np.testing.assert_array_equal(moved[:, :181], wide[:, 150:])
    assert (moved[:, 181:] == 128).all()
    np.testing.assert_array_equal(at("translate_x", -10, wide)[:, 150:], wide[:, :181])
    down = at("translate_y", 10, wide.swapaxes(0, 1))
    np.testing.assert_array_equal(down.swapaxes(0, 1), moved)
    # A shear moves the borders apart and leaves the middle; a rotation is by 30.
    stripe = np.zeros((101, 101, 1), np.uint8)
    stripe[:, 50] = 255
    sheared = at("shear_x", 10, stripe)[..., 0]
    assert abs(int(sheared[0].argmax()) - int(sheared[100].argmax())) == 30
    assert abs(int(sheared[50].argmax()) - 50) <= 1
    turned = at("rotate", 10, stripe)[..., 0]
    slope = (int(turned[30, 20:81].argmax()) - int(turned[70, 20:81].argmax())) / 40
    assert abs(abs(slope) - np.tan(np.pi / 6)) < 0.05


@pytest.mark.parametrize("operation", randaugment.OPERATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_randaugment_keeps_shapes_and_starts_from_nothing(operation, channels):
    image = PIXELS[..., :channels]
    for m in (-30, -4, 13, 30):
        found = randaugment.apply(image, operation, m)
        assert found.shape == image.shape
        assert found.dtype == np.uint8
    if operation not in ("autocontrast", "equalize"):
        np.testing.assert_array_equal(randaugment.apply(image, operation, 0), image)


def test_randaugment_draws_all_of_them():
    gradient = np.linspace(40, 200, 48, dtype=np.uint8).reshape(6, 8, 1)
    gradient = np.concatenate([gradient, gradient[::-1], gradient // 2], -1)
    found = {
        randaugment.randaugment(gradient, rng(s), 1, 7).tobytes() for s in range(300)
    }
    # 14 operations, of which 9 go two ways; identity and others may coincide.
    assert len(found) >= 20
    twice = [randaugment.randaugment(PIXELS, rng(5), 2, 9) for _ in range(2)]
    np.testing.assert_array_equal(*twice)
    with pytest.raises(ValueError, match="no operation 'invert'"):
        randaugment.apply(PIXELS, "invert", 3)


def test_erasing_covers_what_it_says_as_often_as_it_says():
    black = np.zeros((40, 50, 3), np.uint8)
    shares = []
    for seed in range(500):
        found = erase.random_erase(black, rng(seed), 0.25, area=(0.1, 0.3))
        rows, columns = (found.any(axis=(a, 2)).nonzero()[0] for a in (1, 0))
        if len(rows):
            shares.append(len(rows) * len(columns) / 2000)
            inside = found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert 100 < inside.mean() < 155
            shares_of_noise = (inside > 0).mean()
            assert shares_of_noise > 0.97
    assert 90 < len(shares) < 160
    assert min(shares) > 0.08
    assert max(shares) < 0.32
    assert not black.any()


def test_mixup_is_the_formula_for_both():
    a, b = (
        {"inputs": rng(s).random((4, 4, 1), np.float32), "label": np.int32(s)}
        for s in (1, 2)
    )
    first, second = mix.Paired(None, mixup=0.4).pair(a, b, rng())
    share = float(first["share"])
    assert 0 < share < 1
    np.testing.assert_allclose(
        first["inputs"], share * a["inputs"] + (1 - share) * b["inputs"], rtol=1e-6
    )
    np.testing.assert_allclose(
        first["inputs"] + second["inputs"], a["inputs"] + b["inputs"], rtol=1e-5
    )
    assert [int(x[k]) for x in (first, second) for k in ("label", "label2")] == [
        1,
        2,
        2,
        1,
    ]
    assert first["inputs"].dtype == np.float32


def test_cutmix_shares_are_those_of_the_pixels():
    ones, zeros = np.ones((8, 10, 1), np.float32), np.zeros((8, 10, 1), np.float32)
    a, b = ({"inputs": x, "label": np.int32(x[0, 0, 0])} for x in (ones, zeros))
    shares = []
    for seed in range(300):
        first, second = mix.Paired(None, cutmix=1.0).pair(a, b, rng(seed))
        assert first["share"] == pytest.approx(first["inputs"].mean(), abs=1e-6)
        np.testing.assert_array_equal(first["inputs"] + second["inputs"], ones)
        rows = first["inputs"][..., 0].min(1) == 0  # the window is a rectangle
        columns = first["inputs"][..., 0].min(0) == 0
        assert (1 - first["inputs"]).sum() == rows.sum() * columns.sum()
        shares.append(float(first["share"]))
    assert min(shares) < 0.3  # a large window is clipped, wherever its centre is
    assert max(shares) > 0.95
    assert ones.all()
    both = mix.Paired(None, mixup=1.0, cutmix=1.0)
    soft = [
        len(np.unique(both.pair(a, b, rng(s))[0]["inputs"])) == 1 for s in range(60)
    ]
    assert 15 < sum(soft) < 55  # mixed values are one value: the coin


def test_mixing_wants_labels_and_something_to_do():
    with pytest.raises(ValueError, match="these rows have none"):
        mix.Paired(None, mixup=1.0).pair({"inputs": 1}, {"inputs": 2}, rng())
    with pytest.raises(ValueError, match=r"inputs\.mixup=0"):
        mix.Paired(None)


def test_scaling_by_channel_is_the_formula():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    want = (PIXELS / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(scaler(mean, std)(PIXELS), want, atol=1e-5)
    with pytest.raises(ValueError, match="are for 3 channels, and the image has 1"):
        scaler(mean, std)(PIXELS[..., :1])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"size": (4, 0)}, "one number or"),
        ({"size": 4, "area": (0.5, 1.2)}, r"area=\(0.5, 1.2\): \(low, high\) shares"),
        ({"size": None, "area": (0.5, 1.0)}, "set inputs.size too"),
        ({"size": 4, "centre": 0}, "such as 0.875"),
        ({"size": 4, "resample": "cubic"}, "one of nearest, bilinear"),
        ({"size": 4, "jitter": (0.4, 0.4, 0.4, 0.6)}, "hue <= 0.5"),
        ({"size": 4, "randaugment": (2, 31)}, "m from 0 to 30"),
        ({"size": 4, "erase": 1.5}, "a chance, 0 to 1"),
    ],
)
def test_settings_that_make_no_sense_are_named(fields, said):
    with pytest.raises(ValueError, match=said):
        augment.changes(**fields)
