"""Files that are no plain image: read as a viewer shows them, or refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fmjax.data.images import decode, pack
from fmjax.data.sources import image_folder

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 7, 3), np.uint8)


def encoded(picture, kind="PNG", **fields):
    out = io.BytesIO()
    picture.save(out, kind, **fields)
    return out.getvalue()


def png(width, height, data=b"", bits=8, kind=2):
    """A PNG that says it has this size, with any data; kind 0 is grey, 2 RGB."""

    def chunk(name, body):
        code = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + code

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    body = chunk(b"IDAT", data or zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


def test_plain_images_are_bit_equal():
    plain = Image.fromarray(PIXELS)
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        np.testing.assert_array_equal(decode.decode(encoded(plain, kind)), PIXELS)
    grey = encoded(Image.fromarray(PIXELS[..., 0]))
    np.testing.assert_array_equal(
        decode.decode(grey, channels=1)[..., 0], PIXELS[..., 0]
    )
    np.testing.assert_array_equal(
        decode.decode(grey), np.repeat(PIXELS[..., :1], 3, axis=-1)
    )
    assert decode.decode(encoded(plain), channels=4)[..., 3].min() == 255


def test_a_turned_photo_stands_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees to see it upright
    turned = encoded(Image.fromarray(PIXELS), "PNG", exif=exif)
    np.testing.assert_array_equal(decode.decode(turned), np.rot90(PIXELS, -1))


def test_transparency_lies_on_the_background():
    alpha = np.array([[0, 255, 51]], np.uint8).repeat(2, 0)
    rgba = np.dstack([np.full((2, 3, 3), 100, np.uint8), alpha])
    data = encoded(Image.fromarray(rgba))
    np.testing.assert_array_equal(decode.decode(data)[0, :, 0], [255, 100, 224])
    on_black = decode.decode(data, background=0)
    np.testing.assert_array_equal(on_black[0, :, 0], [0, 100, 20])
    np.testing.assert_array_equal(decode.decode(data, channels=4), rgba)


def test_a_palette_with_a_transparent_entry():
    picture = Image.new("P", (3, 2), 1)
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((0, 0), 0)
    found = decode.decode(encoded(picture, transparency=0))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[1, 1].tolist() == [40, 50, 60]


def test_sixteen_bits_are_scaled_not_clipped():
    deep = np.array([[0, 257, 32896], [128, 129, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        found = decode.decode(encoded(Image.fromarray(deep), kind), channels=1)
        assert found[..., 0].tolist() == [[0, 1, 128], [0, 1, 255]]
    for white in (65535, 4095):  # one of 12 bits has its own white
        head, body = b"P5\n3 2\n%d\n" % white, (deep // (65536 // (white + 1)))
        found = decode.decode(head + body.astype(">u2").tobytes(), channels=1)
        np.testing.assert_allclose(found[..., 0], [[0, 1, 128], [0, 0, 255]], atol=1)


def test_cmyk_becomes_rgb():
    ink = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    found = decode.decode(encoded(ink, "JPEG", quality=95))
    np.testing.assert_allclose(found[4, 4], [0, 255, 255], atol=6)


def two_frames(kind):
    frames = [Image.new("RGB", (4, 4), (v, 0, 0)) for v in (0, 255)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


CUT = encoded(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)), "JPEG")
BAD = {
    "empty": (b"", "not readable"),
    "text": (b"<html>no image</html>", "not readable"),
    "cut.jpg": (CUT[: len(CUT) // 2], "truncated"),
    "cut.png": (encoded(Image.fromarray(PIXELS))[:60], "not readable"),
    "moving.gif": (two_frames("GIF"), "2 frames"),
    "moving.webp": (two_frames("WEBP"), "2 frames"),
    "moving.png": (two_frames("PNG"), "2 frames"),
    "pages.tif": (two_frames("TIFF"), "2 frames"),
    "pixel.gif": (encoded(Image.new("RGB", (1, 1)), "GIF"), "1 x 1 pixels"),
    "line.png": (encoded(Image.new("RGB", (40, 1))), "40 x 1 pixels"),
    "bomb.png": (png(60_000, 60_000), "too large"),
    "large.png": (png(10_000, 10_000), "too large"),
    "float.tif": (encoded(Image.new("F", (3, 3)), "TIFF"), "floating-point"),
    "int.tif": (encoded(Image.new("I", (3, 3)), "TIFF"), "32-bit"),
    "script.png": (encoded(Image.new("RGB", (4, 4)), "EPS"), "cannot identify"),
    "icon.png": (encoded(Image.new("RGB", (16, 16)), "ICO"), "cannot identify"),
    "short.png": (png(9, 9), "not readable"),
    "crc.png": (encoded(Image.fromarray(PIXELS)).replace(b"IDAT", b"IDAX"), "readable"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_image_is_refused_by_name(tmp_path, name):
    data, why = BAD[name]
    (tmp_path / name).write_bytes(data)
    for given in (tmp_path / name, str(tmp_path / name)):
        with pytest.raises(decode.Unreadable, match=why) as caught:
            decode.decode(given)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
    with pytest.raises(decode.Unreadable, match=f"^row 7: .*{why}"):
        decode.decode(data, name="row 7")


def test_no_file_and_a_lower_limit(tmp_path):
    with pytest.raises(decode.Unreadable, match="there is no such file"):
        decode.decode(tmp_path / "none.png")
    with pytest.raises(decode.Unreadable, match="7 x 5 is over 34 pixels"):
        decode.decode(encoded(Image.fromarray(PIXELS)), max_pixels=34)
    with pytest.raises(ValueError, match="1 \\(grey\\), 3"):
        decode.decode(b"", channels=2)


def test_a_phones_photo_with_a_gain_map_is_its_first_frame():
    first, second = (Image.new("RGB", (16, 16), (v, v, v)) for v in (40, 200))
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    np.testing.assert_allclose(decode.decode(data), 40, atol=3)


def test_mutated_files_are_read_or_refused_and_nothing_else():
    whole = [
        encoded(Image.fromarray(PIXELS), kind)
        for kind in ("PNG", "GIF", "WEBP", "TIFF", "BMP")
    ] + [CUT]
    outcomes = {"read": 0, "refused": 0}
    for _ in range(600):
        data = bytearray(whole[RNG.integers(len(whole))])
        for place in RNG.integers(0, len(data), 1 + RNG.integers(4)):
            data[place] = RNG.integers(256)
        try:
            found = decode.decode(bytes(data), max_pixels=1 << 16)
        except decode.Unreadable:
            outcomes["refused"] += 1
        else:
            assert found.dtype == np.uint8
            outcomes["read"] += 1
    assert min(outcomes.values()) > 50


def test_masks_are_numbers_not_colours():
    numbers = RNG.integers(0, 5, (4, 6), np.uint8)
    plain = encoded(Image.fromarray(numbers))
    np.testing.assert_array_equal(decode.decode_mask(plain), numbers)
    indexed = Image.frombytes("P", (6, 4), numbers.tobytes())
    indexed.putpalette([v for i in range(5) for v in (50 * i, 0, 9)])
    np.testing.assert_array_equal(decode.decode_mask(encoded(indexed)), numbers)
    turned = Image.Exif()
    turned[0x112] = 6
    for kind in ("PNG", "TIFF"):
        found = decode.decode_mask(encoded(Image.fromarray(numbers), kind, exif=turned))
        np.testing.assert_array_equal(found, np.rot90(numbers, -1))
    with pytest.raises(decode.Unreadable, match="mode RGB: a mask is"):
        decode.decode_mask(encoded(Image.fromarray(PIXELS)))
    deep = encoded(Image.fromarray(np.full((3, 3), 300, np.uint16)))
    with pytest.raises(decode.Unreadable, match="class 300: they go from 0 to 255"):
        decode.decode_mask(deep)


@pytest.mark.parametrize("largest", [1, 3, 7, 100, 254, 255, 256, 1000, 65535])
def test_numbers_of_a_pgm_are_those_written_whatever_its_largest(largest):
    numbers = np.arange(min(largest, 255) + 1)
    head = f"{{}}\n{len(numbers)} 2\n{largest}\n".encode()
    wide = "u1" if largest < 256 else ">u2"
    raw = head.replace(b"{}", b"P5") + np.tile(numbers, 2).astype(wide).tobytes()
    words = " ".join(map(str, [*numbers, *numbers])).encode()
    plain = head.replace(b"{}", b"P2") + words + b"\n"
    for data in (raw, plain):
        found = decode.decode_mask(data)
        np.testing.assert_array_equal(found, np.stack([numbers] * 2))
    white = 255 if largest < 256 else round(255 * 255 / largest)  # as a picture
    assert abs(int(decode.decode(raw, channels=1).max()) - white) <= 1


def test_numbers_of_few_bits_are_those_written():
    rows = {
        2: bytes([0, 0b00011011, 0, 0b11100100]),
        4: bytes([0, 0, 0x1F, 0, 2, 0x3E]),
    }
    two = png(4, 2, zlib.compress(rows[2]), bits=2, kind=0)
    assert decode.decode_mask(two).tolist() == [[0, 1, 2, 3], [3, 2, 1, 0]]
    four = png(4, 2, zlib.compress(rows[4]), bits=4, kind=0)
    assert decode.decode_mask(four).tolist() == [[0, 0, 1, 15], [0, 2, 3, 14]]
    assert decode.decode(two, channels=1)[0, :, 0].tolist() == [0, 85, 170, 255]


def test_a_folder_counts_and_names_every_kind(tmp_path):
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    (folder / "good.png").write_bytes(encoded(Image.fromarray(PIXELS)))
    kinds = [name for name in BAD if "." in name]
    for name in kinds:
        (folder / name).write_bytes(BAD[name][0])
    load = {"path": str(tmp_path / "images"), "size": 4, "holdout": (0, 0)}
    with pytest.raises(ValueError, match=f"{len(kinds)} of {len(kinds) + 1} rows"):
        image_folder.load("train", **load)
    found = image_folder.load("train", **load, bad_rows="skip")
    assert len(found.rows) == 1
    assert found.facts["bad rows"]["count"] == len(kinds)
    assert "a/bomb.png: too large" in found.facts["bad rows"]["first"][0]


def test_without_a_size_files_keep_theirs(tmp_path):
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(encoded(Image.fromarray(PIXELS)))
    found = image_folder.load(
        "train", path=str(folder.parent), size=None, holdout=(0, 0)
    )
    np.testing.assert_array_equal(found.rows[0]["image"], PIXELS)
    packed = pack.pack([folder / "1.png"], (3, 3), None)
    assert "a mask is" in packed.bad[0]


def test_predict_reads_pictures_the_same_way(tmp_path):
    from fmjax import config, predict

    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(PIXELS)))
    row = predict.read_image(str(tmp_path / "a.png"), (4, 6, 1))
    assert row["image"].shape == (4, 6, 1)
    own = predict.read_image(str(tmp_path / "a.png"), (4, 6, 3), resize=False)
    np.testing.assert_array_equal(own["image"], PIXELS)
    (tmp_path / "b.png").write_bytes(BAD["moving.png"][0])
    with pytest.raises(config.ConfigError, match=r"b\.png: moves, .* 2 frames"):
        predict.read_image(str(tmp_path / "b.png"), (4, 6, 3))
