"""SSD's degradations of a picture: grey, blurred, equalised, compressed, eroded, posterised, inverted, with
random pixels.

A picture is (C, H, W), uint8 or float32 of 0..255, colour in the order B, G, R. Source: SSD, im_transforms.cpp
(ApplyNoise).
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from netspec.data.files.idx import Array

MISSING = ("clahe", "convert_to_hsv", "convert_to_lab")
"""Degradations that are not implemented."""
LUMA = np.array([0.114, 0.587, 0.299], np.float32).reshape(3, 1, 1)
"""Weights of B, G and R in grey."""
STEP = 64
"""Width of the bands of posterised values."""


def missing(param: Any) -> str:
    """The first field that asks for a degradation that is not implemented; "" where none does."""
    return next((name for name in MISSING if getattr(param, name)), "")


def degraded(image: Array, param: Any, generator: np.random.Generator) -> Array:
    """The picture after all degradations that `param` (an ImageNoiseParameter) names, in SSD's order."""
    dtype, x = image.dtype, image.astype(np.float32)
    if param.decolorize and len(x) == 3:
        x = np.broadcast_to(np.rint((x * LUMA).sum(0)), x.shape).astype(np.float32)
    if param.gauss_blur:
        x = blurred(x)
    if param.hist_eq:
        x = equalised(x)
    if param.jpeg > 0:
        x = compressed(x, round(param.jpeg))
    if param.erode:
        x = eroded(x)
    if param.posterize:
        x = x // STEP * STEP + STEP // 2
    if param.inverse:
        x = 255 - x
    if param.saltpepper:
        x = peppered(x, param.saltpepper_param, generator)
    return x.clip(0, 255).astype(dtype)


def blurred(x: Array) -> Array:
    """A Gaussian of deviation 1.5 over 7 x 7 pixels, the picture mirrored at its border."""
    weights = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    for axis in (1, 2):
        margins = [(3, 3) if i == axis else (0, 0) for i in range(3)]
        wide = np.pad(x, margins, mode="reflect" if x.shape[axis] > 3 else "edge")
        x = sum(
            weight * np.take(wide, range(i, i + x.shape[axis]), axis=axis)
            for i, weight in enumerate(weights.astype(np.float32))
        )
    return np.rint(x)


def equalised(x: Array) -> Array:
    """The brightness spread evenly over 0..255, the colour kept."""
    luma = (x * LUMA).sum(0) if len(x) == 3 else x[0]
    level = np.rint(luma).clip(0, 255).astype(np.int64)
    counts = np.bincount(level.ravel(), minlength=256).cumsum()
    first = counts[counts > 0][0]
    if first == counts[-1]:
        return x
    table = np.rint((counts - first) / (counts[-1] - first) * 255).clip(0, 255)
    moved: Array = x + (table[level] - luma)
    return moved.clip(0, 255)


def compressed(x: Array, quality: int) -> Array:
    """The picture through JPEG of this quality."""
    from PIL import Image

    pixels = np.rint(x).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(
        pixels[0] if len(x) == 1 else np.ascontiguousarray(pixels[::-1].transpose(1, 2, 0))
    )
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=min(max(quality, 1), 100))
    back = np.asarray(Image.open(file), np.float32)
    return back[None] if back.ndim == 2 else back.transpose(2, 0, 1)[::-1]


def eroded(x: Array) -> Array:
    """The least value of each 3 x 3 ellipse (a cross) of pixels."""
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = x.shape[1:]
    shifts = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
    least: Array = np.minimum.reduce([wide[:, dy : dy + height, dx : dx + width] for dy, dx in shifts])
    return least


def peppered(x: Array, param: Any, generator: np.random.Generator) -> Array:
    """The picture with `fraction` of its pixels, drawn with replacement, set to `value`."""
    out = x.copy()
    count = int(param.fraction * x.shape[1] * x.shape[2])
    value = np.array(list(param.value) or [0.0], np.float32)
    rows, columns = generator.integers(x.shape[1], size=count), generator.integers(x.shape[2], size=count)
    out[:, rows, columns] = np.broadcast_to(value[:, None], (len(x), count))
    return out
