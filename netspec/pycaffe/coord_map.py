"""Where the positions of one blob lie in another, and the Crop layer that lines two blobs up (for FCNs).

A map is (axis, a, b): position x along the axes from `axis` on is position a x + b of the other blob. a and b
are numbers, or arrays with one entry per axis; axis None means any.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netspec.pycaffe.net_spec import Function, Top, layers

Map = tuple[Any, Any, Any]

PASS_THROUGH = (
    "AbsVal", "ReLU", "PReLU", "Dropout", "LRN", "Eltwise", "BatchNorm", "BNLL", "Log", "Exp", "MVN", "Power",
    "Sigmoid", "Split", "TanH", "Threshold", "ELU", "Scale", "Bias", "Clip", "Swish", "ReLU6", "BN",
)  # fmt: skip
"""Layers whose tops lie where their bottoms do."""


class UndefinedMapException(Exception):
    """The layer does not keep positions."""


class AxisMismatchException(Exception):
    """Two maps begin at different axes."""


KEYS = {"pad": "pad", "kernel": "kernel_size", "stride": "stride"}


def window(fn: Function) -> tuple[int, Any, Any, Any]:
    """(axis, stride, kernel size with dilation, pad) of a layer that slides a window."""
    p = fn.params.get("pooling_param" if fn.type_name == "Pooling" else "convolution_param", fn.params)
    for name in ("pad_h", "pad_w", "kernel_h", "kernel_w", "stride_h", "stride_w"):
        if name in p:
            raise AssertionError(f"{name} is not supported here; give {KEYS[name[:-2]]}, a list if need be")
    size, dilation = np.array(p["kernel_size"], ndmin=1), np.array(p.get("dilation", 1), ndmin=1)
    stride, pad = np.array(p.get("stride", 1), ndmin=1), np.array(p.get("pad", 0), ndmin=1)
    return p.get("axis", 1), stride, (size - 1) * dilation + 1, pad


def coord_map(fn: Function) -> Map:
    """From positions of a layer's bottom to those of its top; UndefinedMapException when it keeps none."""
    if fn.type_name in ("Convolution", "Pooling", "Im2col"):
        axis, stride, size, pad = window(fn)
        return axis, 1 / stride, (pad - (size - 1) / 2) / stride
    if fn.type_name == "Deconvolution":
        axis, stride, size, pad = window(fn)
        return axis, stride, (size - 1) / 2 - pad
    if fn.type_name in PASS_THROUGH:
        return None, 1, 0
    if fn.type_name == "Crop":
        p = fn.params.get("crop_param", fn.params)
        return p.get("axis", 2) - 1, 1, -np.array(p.get("offset", 0), ndmin=1)
    raise UndefinedMapException(f"a {fn.type_name} layer keeps no positions")


def compose(first: Map, second: Map) -> Map:
    """The map that applies `second`, then `first`; AxisMismatchException when their axes differ."""
    axes = {axis for axis in (first[0], second[0]) if axis is not None}
    if len(axes) > 1:
        raise AxisMismatchException(f"maps begin at axes {first[0]} and {second[0]}")
    return (axes.pop() if axes else None), first[1] * second[1], first[1] * second[2] + first[2]


def inverse(coordinates: Map) -> Map:
    """The map the other way."""
    axis, a, b = coordinates
    return axis, 1 / a, -b / a


def bottoms(top: Top) -> tuple[Any, ...]:
    """The blobs that give a blob its positions: of a Crop only the one that is cropped."""
    return top.fn.inputs[:1] if top.fn.type_name == "Crop" else top.fn.inputs


def maps_above(start: Top) -> dict[Top, Map]:
    """For `start` and each blob it is computed from with positions kept, the map from there to `start`."""
    maps: dict[Top, Map] = {start: (None, 1, 0)}
    frontier = [start]
    while frontier:
        top = frontier.pop(0)
        try:
            step = coord_map(top.fn)
            new = {bottom: compose(maps[top], step) for bottom in bottoms(top) if bottom not in maps}
        except UndefinedMapException:
            continue
        maps.update(new)
        frontier += new
    return maps


def coord_map_from_to(top_from: Top, top_to: Top) -> Map:
    """(axis, a, b): position x of `top_from` is a x + b of `top_to`; RuntimeError when nothing joins them."""
    ours, theirs = maps_above(top_from), maps_above(top_to)
    common = next((top for top in theirs if top in ours), None)
    if common is None:
        raise RuntimeError("Could not compute map between tops; are they connected by spatial layers?")
    return compose(theirs[common], inverse(ours[common]))


def crop(top_from: Top, top_to: Top) -> Any:
    """A Crop layer that cuts `top_from` to the part that lies on `top_to`.

    AssertionError when the two have different scales, or the part does not begin at a position inside.
    """
    axis, a, b = coord_map_from_to(top_from, top_to)
    a, b = np.array(a, ndmin=1), np.array(b, ndmin=1)
    if not (a == 1).all():
        raise AssertionError(f"scale mismatch on crop (a = {a})")
    if not (b <= 0).all():
        raise AssertionError(f"cannot crop negative offset (b = {b})")
    if not (np.round(b) == b).all():
        raise AssertionError(f"cannot crop noninteger offset (b = {b})")
    offset = [int(size) for size in -np.round(b)]
    return layers.Crop(top_from, top_to, crop_param={"axis": axis + 1, "offset": offset})
