"""Resize and Upsample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from netspec.data.files.idx import Array
from netspec.interchange.onnx_nets.graph import Call, Refused, bounded, computes


@computes("Resize", "Upsample")
def resize(c: Call, x: Tensor, *rest: Tensor | None) -> Tensor:
    if x.dim() != 4:
        raise Refused(f"resizes {x.dim() - 2} axes")
    c.only("keep_aspect_ratio_policy", "stretch")
    c.only("antialias", 0)
    size = scaled(c, x)
    mode = c.get("mode", "nearest")
    if list(size) == list(x.shape[2:]):
        return x
    if mode == "nearest":
        if any(new % old for new, old in zip(size, x.shape[2:], strict=True)):
            raise Refused("repeats pixels unequally, which Caffe's layers do not")
        repeats(c, x, size)
        return F.interpolate(x, size)
    if mode not in ("linear", "bilinear"):
        raise Refused(f"mode {mode!r}; Caffe has nearest and linear")
    kind = c.get("coordinate_transformation_mode", "half_pixel" if c.kind == "Resize" else "asymmetric")
    if kind not in ("align_corners", "half_pixel", "pytorch_half_pixel"):
        raise Refused(f"coordinate_transformation_mode {kind!r}; Caffe's Interp puts corners on corners")
    return F.interpolate(x, size, mode="bilinear", align_corners=kind == "align_corners")


PLACES: dict[str, Callable[[Array, int], Array]] = {
    "asymmetric": lambda i, scale: i / scale,
    "half_pixel": lambda i, scale: (i + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda i, scale: (i + 0.5) / scale - 0.5,
    "tf_half_pixel_for_nn": lambda i, scale: (i + 0.5) / scale,
}
"""Where a pixel of the output lies in the input, by coordinate_transformation_mode."""
ROUNDED: dict[str, Callable[[Array], Array]] = {
    "floor": np.floor, "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - 0.5), "round_prefer_ceil": lambda x: np.floor(x + 0.5),
}  # fmt: skip


def repeats(c: Call, x: Tensor, size: Sequence[int]) -> None:
    """Refused unless nearest neighbours repeat each pixel as often as any other."""
    old = c.kind == "Upsample" or c.opset < 11
    kind = c.get("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    mode = c.get("nearest_mode", "floor" if old else "round_prefer_floor")
    for axis, new in enumerate(size, 2):
        scale = new // x.shape[axis]
        if (factors := factors_of(c)) and not math.isclose(factors[axis], scale, rel_tol=1e-6):
            raise Refused(
                f"scale {factors[axis]:g} gives {scale} pixels for each, which Caffe's layers do not"
            )
        if kind not in PLACES or mode not in ROUNDED:
            same = False
        else:
            places = ROUNDED[mode](PLACES[kind](np.arange(new), scale)).clip(0, x.shape[axis] - 1)
            same = np.array_equal(places, np.arange(new) // scale)
        if scale > 1 and not same:
            raise Refused(f"nearest_mode {mode!r} with coordinates {kind!r} repeats pixels unequally")


def factors_of(c: Call) -> list[float] | None:
    """The scales of a Resize, where it gives these and no sizes."""
    if 3 in c.constants and c.constants[3].numel():
        return None
    return c.lists.get(2 if c.kind == "Resize" and c.opset >= 11 else 1) or c.get("scales")


def scaled(c: Call, x: Tensor) -> list[int]:
    """Height and width that a Resize gives."""
    if 3 in c.constants and c.constants[3].numel():
        sizes = c.ints(3) or []
    else:
        factors = factors_of(c)
        if not factors:
            raise Refused("has a size that depends on the input")
        sizes = [math.floor(n * f) for n, f in zip(x.shape, factors, strict=True)]
    if list(sizes[:2]) != list(x.shape[:2]):
        raise Refused("changes batch or channels")
    bounded(math.prod(sizes))
    return [int(n) for n in sizes[2:]]
