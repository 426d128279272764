"""Pictures in files: decoding and resizing as OpenCV does for Caffe."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from netspec.data.files.idx import Array
from netspec.errors import DataError, no_such_file
from netspec.schema.regular import refuse_special

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 1 << 26
"""No picture above this size is decoded."""

FORMATS = ("BMP", "JPEG", "JPEG2000", "PNG", "PPM", "SUN", "TIFF", "WEBP")
"""The formats that OpenCV reads; other decoders of Pillow may start programs on their input."""
OWN_FORMATS = (*FORMATS, "GIF")
"""The formats of the user's own pictures; of a GIF the first frame."""
ORIENTATION = 0x0112
"""The EXIF tag that says how the camera was held."""

COEF_BITS = 11
"""Bits of a weight in OpenCV's 8-bit bilinear resizing."""


def taps(size: int, new: int, ratio: float | None = None) -> tuple[Array, Array, Array]:
    """For each output place: left neighbour, right neighbour, weight of the right one (pixel centres aligned). `ratio`:
    old size over new size, where it is not the quotient of the numbers of pixels.
    """
    place = ((np.arange(new) + 0.5) * (size / new if ratio is None else ratio) - 0.5).astype(np.float32)
    left = np.floor(place).astype(np.int64)
    right_weight = (place - left).astype(np.float32)
    return left.clip(0, size - 1), (left + 1).clip(0, size - 1), right_weight


def resize(images: Array, height: int, width: int, ratio: float | None = None) -> Array:
    """Bilinear without antialiasing over the last two axes; uint8 in OpenCV's fixed-point arithmetic, else
    float32.

    Halving both sides of uint8 images averages 2x2 blocks, as OpenCV does.
    """
    old_height, old_width = images.shape[-2:]
    if (old_height, old_width) == (height, width):
        return images
    if images.dtype == np.uint8 and (old_height, old_width) == (2 * height, 2 * width):
        blocks = images.reshape(*images.shape[:-2], height, 2, width, 2).astype(np.uint16)
        means: Array = (blocks.sum((-3, -1), dtype=np.uint16) + 2) >> 2
        return means.astype(np.uint8)
    top, bottom, wy = taps(old_height, height, ratio)
    left, right, wx = taps(old_width, width, ratio)
    wx[left == right] = (
        0  # rows keep the weights of a neighbour outside: in whole numbers this rounds otherwise
    )
    if images.dtype != np.uint8:
        rows = images[..., left] * (1 - wx) + images[..., right] * wx
        below = wy[:, None]
        out: Array = rows[..., top, :] * (1 - below) + rows[..., bottom, :] * below
        return out.astype(np.float32)
    whole = 1 << COEF_BITS
    ax1, ay1 = (np.rint(w * whole).astype(np.int32) for w in (wx, wy))
    ax0, ay0 = (np.rint((1 - w) * whole).astype(np.int32) for w in (wx, wy))
    rows = (images[..., left] * ax0 + images[..., right] * ax1) >> 4
    upper = (rows[..., top, :] * ay0[:, None]) >> 16
    lower = (rows[..., bottom, :] * ay1[:, None]) >> 16
    out = (upper + lower + 2) >> 2
    return out.clip(0, 255).astype(np.uint8)


def nearest(images: Array, height: int, width: int) -> Array:
    """Nearest neighbour over the last two axes: output place i takes input place floor(i * old / new)."""
    old_height, old_width = images.shape[-2:]
    rows = (np.arange(height) * (old_height / height)).astype(np.int64).clip(max=old_height - 1)
    columns = (np.arange(width) * (old_width / width)).astype(np.int64).clip(max=old_width - 1)
    return images[..., rows[:, None], columns]


def decode(source: bytes | Path, color: bool | None, name: str, own: bool = False) -> Array:
    """A picture as (C, H, W) uint8, colour in the order B, G, R.

    color: True gives three channels, False one, None the file's own (three where it has more than one).
    Orientation tags are ignored and transparency is dropped, as OpenCV 2.4 does; own: for pictures that were not made
    for Caffe, GIFs are read too and orientation tags followed. Raises DataError with `name`.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, Path):
        refuse_special(source)
    try:
        with Image.open(
            io.BytesIO(source) if isinstance(source, bytes) else source,
            formats=OWN_FORMATS if own else FORMATS,
        ) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DataError(f"{name}: {image.width}x{image.height} pixels; too large")
            channels = pixels(image, color)
            return upright(channels, image.getexif().get(ORIENTATION, 1)) if own else channels
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(no_such_file(name)) from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name}: not a picture in a known format ({', '.join(OWN_FORMATS if own else FORMATS)})"
        ) from error
    except Exception as error:  # decoders raise anything on damaged pictures
        raise DataError(f"{name}: does not decode ({error})") from error


def encode(image: Array, kind: str, name: str) -> bytes:
    """A (C, H, W) uint8 image, colour in the order B, G, R, as the bytes of a picture file ("png", "jpg", ...).

    Raises DataError with `name` when there is no such kind, or it cannot hold the image.
    """
    from PIL import Image

    kinds = {ending[1:]: known for ending, known in Image.registered_extensions().items() if known in FORMATS}
    if kind.lower() not in kinds:
        raise DataError(f"{name}: no pictures can be written as {kind!r}; there are {', '.join(kinds)}")
    rows = image[0] if len(image) == 1 else np.ascontiguousarray(image[::-1].transpose(1, 2, 0))
    out = io.BytesIO()
    try:
        # OpenCV's own quality, not Pillow's.
        quality = {"quality": 95} if kinds[kind.lower()] == "JPEG" else {}
        Image.fromarray(rows).save(out, kinds[kind.lower()], **quality)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{name}: cannot be written as {kind} ({error})") from error
    return out.getvalue()


def upright(image: Array, orientation: int) -> Array:
    """A picture (C, H, W) as it is to be seen, by its EXIF orientation (as it is but for 2 to 8)."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(0, 2, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(image[:, rows, columns])


def pixels(image: Image.Image, color: bool | None) -> Array:
    """The channels of an opened picture."""
    gray_modes = ("1", "L", "LA", "I", "I;16", "I;16B", "F")
    want_color = color if color is not None else image.mode not in gray_modes
    if not want_color and image.format == "JPEG":
        image.draft("L", image.size)  # the decoder's own luminance, as OpenCV reads it
    if image.mode in ("I", "I;16", "I;16B"):
        gray = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(gray[None], 3 if want_color else 1, axis=0)
    if want_color:
        return np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1].transpose(2, 0, 1))
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))[None]
    rgb = np.asarray(image.convert("RGB")).astype(np.int32)
    # OpenCV's 8-bit weights of R, G, B: 0.299, 0.587, 0.114 in 1/16384.
    return ((rgb @ np.array([4899, 9617, 1868], np.int32) + 8192) >> 14).astype(np.uint8)[None]
