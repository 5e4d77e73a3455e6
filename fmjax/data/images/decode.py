"""The one way from an image file, which nobody has vouched for, to an array.

Kept: what a viewer shows. A turned photo stands upright (EXIF), transparency lies on a
background, palettes, CMYK and 16-bit samples become 8-bit grey or RGB. Refused, by
name: what is no image, or is cut short, moves, has a side of one pixel, has samples
without a known range, or is so large that it would fill the memory.
"""

import contextlib
import functools
import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
    | {".pbm", ".pgm", ".pnm", ".ppm"}
)
# Whatever a file is called, no other of Pillow's readers is tried: the one for EPS, for
# one, would run Ghostscript on it.
FORMATS = ("PNG", "JPEG", "MPO", "GIF", "WEBP", "TIFF", "BMP", "PPM")
MAX_PIXELS = 89_478_485  # Pillow's own: a quarter of a gigabyte as RGB
BACKGROUND = 255  # white, as of a page

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_STILLS = {"MPO"}  # a phone's photo with a preview or gain map behind it
_WHITE = "fmjax: white as written"  # of Image.info
_DAMAGE = (  # what Pillow raises on damaged or hostile files
    OSError,
    ValueError,
    SyntaxError,
    OverflowError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class Unreadable(ValueError):
    """A file that is no image for us; `why` is the reason without the file's name."""

    def __init__(self, name: str, why: str):
        super().__init__(f"{name}: {why}")
        self.why = why


def decode(
    file: str | Path | bytes,
    *,
    channels: int = 3,
    name: str | None = None,
    background: int = BACKGROUND,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """uint8 [H, W, channels] of an image file or of its bytes.

    channels: 1 (grey), 3 (RGB) or 4 (RGBA: transparency is kept). name: for messages,
    where it is not the path. background: grey level, 0 to 255, that lies under what is
    transparent. max_pixels: judged by the header, before anything is decoded.

    16-bit grey v becomes round(v / 257); CMYK goes by Pillow's formula, without colour
    profiles. Raises Unreadable, with the name; nothing else but for programming errors.
    """
    if channels not in _MODES:
        raise ValueError(f"channels={channels}: 1 (grey), 3 (RGB) or 4 (RGBA)")
    with _opened(file, name, max_pixels) as (image, name):
        ImageOps.exif_transpose(image, in_place=True)
        return _flat(_eight_bits(image, name), channels, background)


def decode_mask(
    file: str | Path | bytes, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """uint8 [H, W] of class numbers: a palette image's indices or a grey one's values.

    As they are written, also in a PGM whose largest is not 255 and in a PNG or TIFF of
    2 or 4 bits; black is 0. A turned one stands upright, as in `decode`. Raises
    Unreadable as that does, and for colour images, whose classes it cannot tell, and
    ones with numbers above 255.
    """
    with _opened(file, name, max_pixels) as (image, name):
        white = image.info.get(_WHITE)
        ImageOps.exif_transpose(image, in_place=True)
        values = np.asarray(image)
        if white and image.mode in ("L", "I"):  # Pillow has made it 255, or 65535
            full = 255 if image.mode == "L" else 65535
            values = np.rint(values.astype(np.float64) * white / full).astype(np.int32)
        if values.ndim != 2 or values.dtype.kind not in "bui":
            raise Unreadable(
                name, f"mode {image.mode}: a mask is a palette or grey image of numbers"
            )
        if values.min() < 0 or values.max() > 255:
            raise Unreadable(name, f"class {values.max()}: they go from 0 to 255")
        return values.astype(np.uint8)


@contextlib.contextmanager
def _opened(
    file: str | Path | bytes, name: str | None, max_pixels: int
) -> Iterator[tuple[Image.Image, str]]:
    """(the decoded image, its name); all that goes wrong inside becomes Unreadable."""
    name = name or ("an image in memory" if isinstance(file, bytes) else str(file))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            content = io.BytesIO(file) if isinstance(file, bytes) else file
            with Image.open(content, formats=_readers()) as image:
                _check(image, name, max_pixels)
                image.info[_WHITE] = _white(image)
                image.load()
                yield image, name
    except Unreadable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable(name, f"too large: {error}") from error
    except FileNotFoundError as error:
        raise Unreadable(name, "there is no such file") from error
    except _DAMAGE as error:
        why = f"not readable as an image: {error or type(error).__name__}"
        raise Unreadable(name, why) from error


@functools.cache
def _readers() -> list[str]:
    """FORMATS as far as this Pillow was built with them."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _check(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise Unreadable(
            name, f"too large: {width} x {height} is over {max_pixels:,} pixels"
        )
    if min(width, height) < 2:
        raise Unreadable(name, f"{width} x {height} pixels: too small to show anything")
    if image.format not in _STILLS and getattr(image, "is_animated", False):
        frames = getattr(image, "n_frames", "several")
        raise Unreadable(name, f"moves, or has pages: {frames} frames; give one image")


def _white(image: Image.Image) -> int | None:
    """The number of white in the file, where Pillow will scale to another."""
    tiles = getattr(image, "tile", None)
    told = tiles[0][3] if tiles else None
    raw, *more = told if told and isinstance(told, tuple) else (told,)
    if image.format == "PPM" and len(more) == 1 and isinstance(more[0], int):
        return more[0]
    few = re.match(r"L;([24])", str(raw))
    return 2 ** int(few[1]) - 1 if few else None


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """The image with 8-bit samples. Pillow's own conversion would clip them at 255."""
    # Pillow brings the white of a deep PPM, of whatever depth, to 65535 itself.
    deep_ppm = image.mode == "I" and image.format == "PPM"
    if image.mode.startswith("I;16") or deep_ppm:
        samples = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((samples + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise Unreadable(
            name,
            f"{'32-bit integers' if image.mode == 'I' else 'floating-point samples'}, "
            "whose white is not known: scale them to 8 or 16 bits",
        )
    return image


def _flat(image: Image.Image, channels: int, background: int) -> np.ndarray:
    clear = image.has_transparency_data
    if clear or channels == 4:
        image = image.convert("RGBA")
        if channels != 4:
            under = Image.new("RGBA", image.size, (background,) * 3 + (255,))
            image = Image.alpha_composite(under, image)
    if image.mode != _MODES[channels]:  # convert would copy
        image = image.convert(_MODES[channels])
    array = np.asarray(image)
    return array.reshape(image.height, image.width, channels)
