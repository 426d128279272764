"""Sliding windows: sizes, strides and pads as convolution_param and pooling_param write them, and im2col for
any rank.

Shape legend: B batch, C channels, K values of one window (channels x kernel), P window positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape


@dataclass(frozen=True)
class Window:
    """A window's geometry, one value for each spatial axis."""

    kernel: Shape
    stride: Shape
    pad: Shape
    dilation: Shape

    @property
    def extent(self) -> Shape:
        """Cells a window spans along each axis, holes of the dilation included."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def positions(self, sizes: Sequence[int]) -> Shape:
        """How many windows fit along each axis (rounded down; below 1 where none does)."""
        return tuple(
            (size + 2 * p - e) // s + 1
            for size, p, e, s in zip(sizes, self.pad, self.extent, self.stride, strict=True)
        )


def convolution_window(layer: Layer, axes: int) -> Window:
    """The Window of a layer's convolution_param for `axes` spatial axes; SpecError where its fields do not
    fit.
    """
    return Window(
        kernel=_per_axis(layer, axes, "kernel_size", ("kernel_h", "kernel_w"), default=None, least=1),
        stride=_per_axis(layer, axes, "stride", ("stride_h", "stride_w"), default=1, least=1),
        pad=_per_axis(layer, axes, "pad", ("pad_h", "pad_w"), default=0, least=0),
        dilation=_per_axis(layer, axes, "dilation", None, default=1, least=1),
    )


def _per_axis(
    layer: Layer, axes: int, name: str, pair: tuple[str, str] | None, *, default: int | None, least: int
) -> Shape:
    """Field `name` of convolution_param as one value per axis: given once, once for each axis, or as an _h/_w
    pair.
    """
    message: Any = layer.param
    field = str(layer.param_field)
    values = tuple(getattr(message, name))
    if pair and any(message.HasField(part) for part in pair):
        if values:
            layer.fail(f"gives both {name} and {pair[0]}/{pair[1]}; use one form", field, name, 0)
        if axes != 2:
            layer.fail(
                f"{pair[0]}/{pair[1]} need 2 spatial axes, the bottom has {axes}; use {name}", field, pair[0]
            )
        values = tuple(getattr(message, part) for part in pair)
        for part, value in zip(pair, values, strict=True):
            if value < least:
                layer.fail(f"{part} must be at least {least}, found {value}", field, part)
        return values
    if not values and axes:
        if default is None:
            layer.fail(f"needs {name}" + (f", or {pair[0]} and {pair[1]}" if pair else ""), field)
        values = (default,)
    if len(values) == 1:
        values *= axes
    if len(values) != axes and axes:
        layer.fail(
            f"{len(values)} {name} values for {axes} spatial axes; give 1 or {axes}", field, name, axes
        )
    for i, value in enumerate(values[:axes]):
        if value < least:
            layer.fail(f"{name} must be at least {least}, found {value}", field, name, i)
    return values[:axes]


def unroll(x: Tensor, kernel: Shape, stride: Shape, dilation: Shape | None = None) -> Tensor:
    """Every window over the last axes of x, as a view: (..., *sizes) -> (..., *positions, *kernel)."""
    first = x.dim() - len(kernel)
    for i, (k, s, d) in enumerate(zip(kernel, stride, dilation or (1,) * len(kernel), strict=True)):
        x = x.unfold(first + i, d * (k - 1) + 1, s)
        if d > 1:
            x = x[..., ::d]
    return x


def columns(x: Tensor, window: Window) -> Tensor:
    """im2col: (B, C, *sizes) -> (B, K, P), zeros outside; K runs over channels, then kernel, as in Caffe."""
    n = len(window.kernel)
    if n == 2:
        return torch.nn.functional.unfold(x, window.kernel, window.dilation, window.pad, window.stride)
    if any(window.pad):
        x = torch.nn.functional.pad(x, [p for pad in reversed(window.pad) for p in (pad, pad)])
    x = unroll(x, window.kernel, window.stride, window.dilation)  # (B, C, *positions, *kernel)
    order = (0, 1, *range(2 + n, 2 + 2 * n), *range(2, 2 + n))
    return x.permute(order).reshape(x.shape[0], x.shape[1] * prod(window.kernel), -1)


def spread(columns_BKP: Tensor, window: Window, channels: int, sizes: Sequence[int]) -> Tensor:
    """col2im, the transpose of `columns`: windows added up into (B, channels, *sizes)."""
    positions = window.positions(sizes)
    n = len(window.kernel)
    x = columns_BKP.reshape(columns_BKP.shape[0], channels, *window.kernel, *positions)
    x = x.permute(*range(2, 2 + n), 0, 1, *range(2 + n, 2 + 2 * n))  # (*kernel, B, C, *positions)
    padded = [size + 2 * p for size, p in zip(sizes, window.pad, strict=True)]
    out = x.new_zeros(columns_BKP.shape[0], channels, *padded)
    for offset in product(*(range(k) for k in window.kernel)):
        places: list[Any] = [
            slice(o * d, o * d + (count - 1) * s + 1, s)
            for o, d, count, s in zip(offset, window.dilation, positions, window.stride, strict=True)
        ]
        out[..., *places] += x[offset]
    inside: list[Any] = [slice(p, p + size) for size, p in zip(sizes, window.pad, strict=True)]
    return out[..., *inside]
