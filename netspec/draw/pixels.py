"""Tensors of pixel values as RGB bitmaps: range, the colour of missing values, colours of signed maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from netspec.draw.canvas import DrawError

Bitmap = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Range = tuple[float, float]

MISSING = "#6fa8dc"
"""Colour of missing (NaN) pixels: none that a grey image has."""
_DIVERGING = ("#2166ac", "#67a9cf", "#d1e5f0", "#f7f7f7", "#fddbc7", "#ef8a62", "#b2182b")
"""Blue for negative, red for positive: evenly spaced anchors of ColorBrewer's RdBu."""


def array(values: Any) -> Floats:
    """A torch tensor or anything array-like as float64 on the CPU."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def images(values: Any) -> Floats:
    """Images as (N, C, H, W) with C 1 or 3, from that, (N, H, W) or (H, W); DrawError for any other shape."""
    x = array(values)
    if x.ndim == 2:
        x = x[None, None]
    elif x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4 or x.shape[1] not in (1, 3) or 0 in x.shape:
        raise DrawError(
            f"images must have shape (N, 1, H, W), (N, 3, H, W), (N, H, W) or (H, W); "
            f"found {tuple(np.shape(values))}"
        )
    return x


def value_range(x: Floats) -> Range:
    """(0, 1) for values that stay in it, else the least and largest finite value."""
    finite = x[np.isfinite(x)]
    if not finite.size or (finite.min() >= 0 and finite.max() <= 1):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def bitmaps(values: Any, limits: Range | None = None, missing: str = MISSING, bgr: bool = False) -> Bitmap:
    """(N, H, W, 3) bitmaps of images, values clipped to `limits` (see `value_range`), NaN in its colour."""
    x = images(values)
    low, high = limits or value_range(x)
    gone = np.isnan(x).any(axis=1)
    level = np.clip((np.nan_to_num(x, nan=low, posinf=high, neginf=low) - low) / (high - low), 0, 1)
    if level.shape[1] == 1:
        level = np.repeat(level, 3, axis=1)
    elif bgr:
        level = level[:, ::-1]
    pixels = np.rint(level * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    pixels[gone] = colour(missing)
    return np.ascontiguousarray(pixels)


def colour(code: str) -> tuple[int, int, int]:
    """(red, green, blue) of "#rrggbb"; DrawError for anything else."""
    try:
        if len(code) != 7 or code[0] != "#":
            raise ValueError
        return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)
    except ValueError:
        raise DrawError(f"a colour is written as #rrggbb; found {code!r}") from None


def diverging(values: Floats, most: float) -> Bitmap:
    """Colours (..., 3) of signed values: blue at -most, near white at 0, red at +most; NaN is grey."""
    anchors = np.array([colour(code) for code in _DIVERGING], dtype=np.float64)
    at = (np.clip(np.nan_to_num(values) / (most or 1.0), -1, 1) + 1) / 2 * (len(anchors) - 1)
    mixed = np.stack([np.interp(at, np.arange(len(anchors)), anchors[:, k]) for k in range(3)], axis=-1)
    mixed[np.isnan(values)] = 128
    pixels: Bitmap = np.rint(mixed).astype(np.uint8)
    return pixels


def over(image: Bitmap, heat: Bitmap) -> Bitmap:
    """Heat colours over a picture: the picture, faded to between mid-grey and white, darkens the colours."""
    grey = image.astype(np.float64).mean(axis=-1, keepdims=True) / 255
    pixels: Bitmap = np.rint(heat * (0.45 + 0.55 * (1 - grey))).astype(np.uint8)
    return pixels
