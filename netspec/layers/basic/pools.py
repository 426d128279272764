"""Pooling of windows as functions: maxima, sums, averages, products, with Caffe's rule for output sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from netspec.layers.base import Shape
from netspec.layers.basic.windows import unroll

Pair = tuple[int, int]
"""A value along the height and one along the width."""


@dataclass(frozen=True)
class Frame:
    """Geometry of a pooling: (height, width) pairs, and whether output sizes round up."""

    kernel: Pair
    stride: Pair
    pad: Pair
    ceil: bool = True

    def positions(self, sizes: Shape) -> Pair:
        """Number of windows as Caffe counts: rounded up or down; with padding, the last one starts inside x +
        pad.
        """
        counts = [
            (size + 2 * p - k + (s - 1 if self.ceil else 0)) // s + 1
            for size, k, s, p in zip(sizes, self.kernel, self.stride, self.pad, strict=True)
        ]
        if any(self.pad):
            counts = [
                n - 1 if (n - 1) * s >= size + p else n
                for n, size, s, p in zip(counts, sizes, self.stride, self.pad, strict=True)
            ]
        return counts[0], counts[1]

    def native(self, sizes: Shape) -> bool:
        """Whether torch's pooling operators see exactly these windows.

        They refuse pads above half a window, and drop a last window that starts outside even without padding.
        """
        inside = all(
            (n - 1) * s < size + p
            for n, size, s, p in zip(self.positions(sizes), sizes, self.stride, self.pad, strict=True)
        )
        return inside and all(2 * p <= k for p, k in zip(self.pad, self.kernel, strict=True))

    def padded(self, x: Tensor, value: float) -> Tensor:
        """x with `value` around it, cut or filled so that the windows end exactly at its end."""
        height, width = x.shape[-2:]
        rows, columns = self.positions((height, width))
        below = (rows - 1) * self.stride[0] + self.kernel[0] - height - self.pad[0]
        right = (columns - 1) * self.stride[1] + self.kernel[1] - width - self.pad[1]
        if not (any(self.pad) or below or right):
            return x
        return functional.pad(x, (self.pad[1], right, self.pad[0], below), value=value)


def max_pool(x: Tensor, frame: Frame, mask: bool = False) -> tuple[Tensor, ...]:
    """The largest value of each window, and with `mask` its flat index h W + w (the first one of ties)."""
    if frame.native(x.shape[-2:]):
        if not mask:
            return (largest(x, frame.kernel, frame.stride, frame.pad, frame.ceil),)
        top, places = largest_places(x, frame.kernel, frame.stride, frame.pad, frame.ceil)
        return top, places.to(exact(x.dtype))
    wide = frame.padded(x, -torch.inf)
    top, places = largest_places(wide, frame.kernel, frame.stride, (0, 0), False)
    empty = top == -torch.inf
    top = top.masked_fill(empty, torch.finfo(x.dtype).min)
    if not mask:
        return (top,)
    rows = torch.div(places, wide.shape[-1], rounding_mode="floor") - frame.pad[0]
    flat = rows * x.shape[-1] + places % wide.shape[-1] - frame.pad[1]
    return top, flat.masked_fill(empty, -1).to(exact(x.dtype))


def exact(kind: torch.dtype) -> torch.dtype:
    """A type of numbers that holds places in a map: shorter floats do not."""
    return torch.float64 if kind == torch.float64 else torch.float32


def largest(x: Tensor, kernel: Pair, stride: Pair, pad: Pair, ceil: bool) -> Tensor:
    """torch's max_pool2d, on CPU through its channels-last kernel, which is vectorised."""
    if not turns(x):
        return functional.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil)
    turned: Any = ChannelsLastMax
    top: Tensor = turned.apply(x, kernel, stride, pad, ceil, torch.is_grad_enabled() and x.requires_grad)[0]
    return top


def turns(x: Tensor) -> bool:
    """Whether the channels-last kernel is the faster one for x."""
    on_cpu = x.device.type == "cpu" and not torch.compiler.is_compiling()
    return on_cpu and x.shape[1] >= 16 and x.is_contiguous()


class ChannelsLastMax(torch.autograd.Function):
    """max_pool2d with the forward kernel for channels last and the backward kernel for channels first.

    With the conversions around them 3 to 5 times as fast as channels first alone (torch 2.13, 2 cores).
    """

    @staticmethod
    def forward(
        x: Tensor, kernel: Pair, stride: Pair, pad: Pair, ceil: bool, places: bool
    ) -> tuple[Tensor, Tensor]:
        turned = x.contiguous(memory_format=torch.channels_last)
        top, where = torch.ops.aten.max_pool2d_with_indices(turned, kernel, stride, pad, (1, 1), ceil)
        return top.contiguous(), where.contiguous() if places else where

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, *ctx.frame, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (x, where), (kernel, stride, pad, ceil) = ctx.saved_tensors, ctx.frame
        down = torch.ops.aten.max_pool2d_with_indices_backward(
            grad.contiguous(), x, kernel, stride, pad, (1, 1), ceil, where
        )
        return down, None, None, None, None, None


def largest_places(x: Tensor, kernel: Pair, stride: Pair, pad: Pair, ceil: bool) -> tuple[Tensor, Tensor]:
    """torch's max_pool2d with indices; both kernels take the first of ties."""
    if turns(x):
        turned: Any = ChannelsLastMax
        pooled: tuple[Tensor, Tensor] = turned.apply(x, kernel, stride, pad, ceil, True)
        return pooled
    return functional.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil, return_indices=True)


def sum_pool(x: Tensor, frame: Frame) -> Tensor:
    """The sum of each window's cells inside x."""
    if torch.compiler.is_exporting():  # ONNX knows averages only, and torch's exporter drops divisor_override
        whole = functional.avg_pool2d(frame.padded(x, 0.0), frame.kernel, frame.stride)
        return whole * (frame.kernel[0] * frame.kernel[1])
    if frame.native(x.shape[-2:]):
        return functional.avg_pool2d(x, frame.kernel, frame.stride, frame.pad, frame.ceil, divisor_override=1)
    return functional.avg_pool2d(frame.padded(x, 0.0), frame.kernel, frame.stride, divisor_override=1)


def average_pool(x: Tensor, frame: Frame) -> Tensor:
    """The mean of each window. Cells of the padding count, and cells beyond the padding do not."""
    if frame.native(x.shape[-2:]):
        return functional.avg_pool2d(x, frame.kernel, frame.stride, frame.pad, frame.ceil)
    down, right = (
        window_sizes(x, *geometry)
        for geometry in zip(
            x.shape[-2:], frame.positions(x.shape[-2:]), frame.kernel, frame.stride, frame.pad, strict=True
        )
    )
    return sum_pool(x, frame) / (down[:, None] * right)


def window_sizes(like: Tensor, size: int, count: int, kernel: int, stride: int, pad: int) -> Tensor:
    """Number of cells of `count` windows along an axis. Cells of the padding count, and cells beyond it do not."""
    start = torch.arange(count, device=like.device) * stride - pad
    return ((start + kernel).clamp(max=size + pad) - start).clamp(min=1).to(like.dtype)


def product_pool(x: Tensor, frame: Frame) -> Tensor:
    """The product of each window's cells inside x, multiplied in pairs.

    Its derivative is then a product of the other cells, without a division: exact where cells are 0.
    """
    y = unroll(frame.padded(x, 1.0), frame.kernel, frame.stride).flatten(-2)
    while y.shape[-1] > 1:
        half = y.shape[-1] // 2
        rest = y[..., 2 * half :]
        y = y[..., :half] * y[..., half : 2 * half]
        if rest.shape[-1]:
            y = torch.cat((y, rest), -1)
    return y[..., 0]


class DividedProduct(torch.autograd.Function):
    """product_pool with the SimNets fork's gradient: top * diff / bottom, NaN where a cell is 0."""

    @staticmethod
    def forward(x: Tensor, frame: Frame) -> Tensor:
        return product_pool(x, frame)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Frame], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.frame = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, y = ctx.saved_tensors
        back = torch.func.vjp(lambda x: sum_pool(x, ctx.frame), torch.zeros_like(x))[1]
        return back(grad * y)[0] / x, None


def stochastic_pool(x: Tensor, frame: Frame, random: bool) -> Tensor:
    """One cell of each window, drawn with probability x / sum x; not `random`: the mean sum x^2 / sum x of
    that draw, 0 where the sum is not positive, as in Caffe's StoPoolForwardTest. NaN in a window gives NaN.
    """
    cells = unroll(frame.padded(x, 0.0), frame.kernel, frame.stride).flatten(-2)
    total = cells.sum(-1)
    if not random:
        empty = total <= 0
        return torch.where(empty, 0.0, cells.square().sum(-1) / torch.where(empty, 1.0, total))
    threshold = torch.rand_like(total) * total
    place = (cells.detach().cumsum(-1) < threshold[..., None]).sum(-1).clamp(max=cells.shape[-1] - 1)
    return torch.where(total.isnan(), torch.nan, cells.gather(-1, place[..., None])[..., 0])
