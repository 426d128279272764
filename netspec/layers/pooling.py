"""Pooling and spatial pyramid pooling, with Caffe's rule for output sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from netspec.errors import Problem
from netspec.layers.base import Layer, Shape, as_tuple, between, register
from netspec.layers.tree import Choose, Inner
from netspec.layers.windows import unroll

MAX, AVE, STOCHASTIC, SUM, PROD = range(5)
"""PoolingParameter.PoolMethod."""


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
        return top, places.to(x.dtype)
    wide = frame.padded(x, -torch.inf)
    top, places = largest_places(wide, frame.kernel, frame.stride, (0, 0), False)
    empty = top == -torch.inf
    top = top.masked_fill(empty, torch.finfo(x.dtype).min)
    if not mask:
        return (top,)
    rows = torch.div(places, wide.shape[-1], rounding_mode="floor") - frame.pad[0]
    flat = rows * x.shape[-1] + places % wide.shape[-1] - frame.pad[1]
    return top, flat.masked_fill(empty, -1).to(x.dtype)


def largest(x: Tensor, kernel: Pair, stride: Pair, pad: Pair, ceil: bool) -> Tensor:
    """torch's max_pool2d, on CPU through its channels-last kernel.

    That one is vectorised, the other is not: with both conversions 3 to 10 times faster (torch 2.13).
    """
    if x.device.type != "cpu" or x.shape[1] < 16 or not x.is_contiguous() or torch.compiler.is_compiling():
        return functional.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil)
    turned = x.contiguous(memory_format=torch.channels_last)
    return functional.max_pool2d(turned, kernel, stride, pad, ceil_mode=ceil).contiguous()


def largest_places(x: Tensor, kernel: Pair, stride: Pair, pad: Pair, ceil: bool) -> tuple[Tensor, Tensor]:
    """torch's max_pool2d with indices."""
    return functional.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil, return_indices=True)


def sum_pool(x: Tensor, frame: Frame) -> Tensor:
    """The sum of each window's cells inside x."""
    if frame.native(x.shape[-2:]):
        return functional.avg_pool2d(x, frame.kernel, frame.stride, frame.pad, frame.ceil, divisor_override=1)
    return functional.avg_pool2d(frame.padded(x, 0.0), frame.kernel, frame.stride, divisor_override=1)


def average_pool(x: Tensor, frame: Frame) -> Tensor:
    """Each window's sum over the number of its cells, padding counted, but none beyond one pad from x."""
    if frame.native(x.shape[-2:]):
        return functional.avg_pool2d(x, frame.kernel, frame.stride, frame.pad, frame.ceil)
    counts = []
    for size, n, k, s, p in zip(
        x.shape[-2:], frame.positions(x.shape[-2:]), frame.kernel, frame.stride, frame.pad, strict=True
    ):
        start = torch.arange(n, device=x.device) * s - p
        counts.append(((start + k).clamp(max=size + p) - start).clamp(min=1).to(x.dtype))
    return sum_pool(x, frame) / (counts[0][:, None] * counts[1])


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
    that draw.
    """
    cells = unroll(frame.padded(x, 0.0), frame.kernel, frame.stride).flatten(-2)
    total = cells.sum(-1)
    if not random:
        return cells.square().sum(-1) / total.clamp(min=torch.finfo(x.dtype).tiny)
    threshold = torch.rand_like(total) * total
    place = (cells.detach().cumsum(-1) < threshold[..., None]).sum(-1).clamp(max=cells.shape[-1] - 1)
    return cells.gather(-1, place[..., None])[..., 0]


@register("Pooling")
class Pooling(Inner):
    """y = max, average, sum or product of each window of a channel plane (STOCHASTIC: a cell drawn ~ its
    value).

    Shapes: bottom (N, C, H, W); top (N, C, H', W'), H' = ceil((H + 2 pad - kernel) / stride) + 1, less one
    where padding is used and the last window would start beyond H + pad; `round_mode: FLOOR` (or `ceil_mode:
    false`) rounds down. A second top of MAX is the mask: flat index h W + w of each maximum, the first of
    ties. AVE divides by the window's cells with the padding, but not by those beyond H + pad. PROD's gradient
    is the product of the other cells, with `strict` the fork's top * diff / bottom. `global_pooling` takes
    the plane. NaN in a window makes its top NaN. An empty window (stride > kernel) gives the lowest float for
    MAX, 0 for AVE and SUM, 1 for PROD. Raises SpecError for a bottom without 4 axes, pad >= kernel, or
    contradicting fields. Source: Caffe, pooling_layer.cpp and .cu (STOCHASTIC); SUM and PROD: SimNets fork,
    pooling_layer.cpp.
    """

    tops = between(1, 2)
    param_field = "pooling_param"

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        if len(shape) != 4:
            self.fail(f"needs a bottom (N, C, H, W), found shape {shape}", "bottom", 0)
        self.method = int(p.pool)
        self.whole = bool(p.global_pooling)
        self.masked = len(self.spec.tops) == 2
        if self.masked and self.method != MAX:
            self.fail("a second top (the mask) comes only with pool: MAX", "top", 1)
        self.frame = self.read_global(shape) if self.whole else self.read_frame()
        if self.method == STOCHASTIC and any(self.frame.pad):
            self.fail("STOCHASTIC pooling takes no pad", "pooling_param", "pad")
        if any(n < 1 for n in self.frame.positions(shape[2:])):
            self.fail(f"kernel {self.frame.kernel} does not fit into bottom shape {shape}", "bottom", 0)

    def read_global(self, shape: Shape) -> Frame:
        p = self.param
        for name in ("kernel_size", "kernel_h", "kernel_w"):
            if p.HasField(name):
                self.fail(f"global_pooling takes the whole plane; leave out {name}", "pooling_param", name)
        for name, only in (
            ("stride", 1),
            ("stride_h", 1),
            ("stride_w", 1),
            ("pad", 0),
            ("pad_h", 0),
            ("pad_w", 0),
        ):
            if p.HasField(name) and getattr(p, name) != only:
                self.fail(
                    f"global_pooling needs {name} {only}, found {getattr(p, name)}", "pooling_param", name
                )
        return Frame((shape[2], shape[3]), (1, 1), (0, 0))

    def read_frame(self) -> Frame:
        kernel, stride, pad = self.pair("kernel_size", "kernel"), self.pair("stride"), self.pair("pad")
        for name, pair in (("kernel_size", kernel), ("stride", stride)):
            if min(pair) < 1:
                self.fail(f"needs {name} > 0, found {pair}", "pooling_param", name)
        if any(p >= k for p, k in zip(pad, kernel, strict=True)):
            self.fail(f"pad {pad} must be smaller than kernel {kernel}", "pooling_param", "pad")
        down = self.param.round_mode == self.param.FLOOR or not self.param.ceil_mode
        return Frame(kernel, stride, pad, not down)

    def pair(self, name: str, stem: str = "") -> Pair:
        """A field given once, or as two fields _h and _w."""
        p, stem = self.param, stem or name
        parts = (f"{stem}_h", f"{stem}_w")
        written = [part for part in parts if p.HasField(part)]
        if not written:
            return getattr(p, name), getattr(p, name)
        if p.HasField(name):
            self.fail(f"gives both {name} and {written[0]}; use one form", "pooling_param", written[0])
        if len(written) == 1 and stem != "pad":
            self.fail(
                f"gives {written[0]} alone; {parts[0]} and {parts[1]} go together",
                "pooling_param",
                written[0],
            )
        return getattr(p, parts[0]), getattr(p, parts[1])

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        x, frame = bottoms[0], self.frame
        if self.whole and self.method == AVE:
            return x.mean((2, 3), keepdim=True)
        if self.whole and self.method == SUM:
            return x.sum((2, 3), keepdim=True)
        if self.method == MAX:
            return max_pool(x, frame, self.masked)
        if self.method == AVE:
            return average_pool(x, frame)
        if self.method == SUM:
            return sum_pool(x, frame)
        if self.method == PROD:
            # The fork divides, but for windows of two cells, where it multiplies by the other one.
            divided = self.strict and sorted(frame.kernel) != [1, 2]
            product = DividedProduct.apply if divided else product_pool
            return product(x, frame)
        return stochastic_pool(x, frame, self.phase == "TRAIN")

    # In a latent tree: all cells of a window have the window's state as their parent

    def tree_problem(self) -> Problem | None:
        name = self.param.PoolMethod.Name(self.method)
        if self.method != SUM:
            return self.spec.problem(
                f"pools by {name}; log densities of independent parts add up: use pool: SUM", "pooling_param", "pool"
            )
        if any(self.frame.pad) or (self.frame.kernel != self.frame.stride and not self.whole):
            return self.spec.problem(
                f"has windows of {self.frame.kernel} with stride {self.frame.stride} and pad {self.frame.pad}; a part "
                "has one parent: use a stride equal to the kernel and no pad", "pooling_param", "stride",
            )  # fmt: skip
        return None

    def upward_max(self, below: Tensor) -> Tensor:
        return as_tuple(self(below))[0]

    def downward(self, states: Tensor, below: Tensor, choose: Choose) -> Tensor:
        spread = states.repeat_interleave(self.frame.kernel[0], 1).repeat_interleave(self.frame.kernel[1], 2)
        return spread[:, : below.shape[2], : below.shape[3]]



@register("SPP")
class SPP(Layer):
    """y = the poolings of a pyramid side by side: level i pools each plane with a grid of 2^i x 2^i windows.

    Shapes: bottom (N, C, H, W), top (N, C (1 + 4 + ... + 4^(pyramid_height - 1))). At level i the kernel and
    the stride are ceil(H / 2^i), and half of what is missing is padded on each side. NaN in a window makes it
    NaN. Raises SpecError when pyramid_height is missing or a level has more windows than the plane has cells.
    Source: Caffe, spp_layer.cpp; He et al. 2014, Spatial Pyramid Pooling.
    """

    param_field = "spp_param"

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        if len(shape) != 4:
            self.fail(f"needs a bottom (N, C, H, W), found shape {shape}", "bottom", 0)
        if p.pyramid_height < 1:
            self.fail("needs pyramid_height > 0", "spp_param")
        self.method = int(p.pool)
        self.frames = [self.level(2**i, shape) for i in range(p.pyramid_height)]

    def level(self, bins: int, shape: Shape) -> Frame:
        kernel = [-(-size // bins) for size in shape[2:]]
        pad = [(k * bins - size + 1) // 2 for k, size in zip(kernel, shape[2:], strict=True)]
        if any(p >= k for p, k in zip(pad, kernel, strict=True)):
            self.fail(
                f"{bins} x {bins} windows do not fit into bottom shape {shape}", "spp_param", "pyramid_height"
            )
        return Frame((kernel[0], kernel[1]), (kernel[0], kernel[1]), (pad[0], pad[1]))

    def forward(self, *bottoms: Tensor) -> Tensor:
        return torch.cat([self.pooled(bottoms[0], frame).flatten(1) for frame in self.frames], 1)

    def pooled(self, x: Tensor, frame: Frame) -> Tensor:
        if self.method == MAX:
            return max_pool(x, frame)[0]
        if self.method == AVE:
            return average_pool(x, frame)
        return stochastic_pool(x, frame, self.phase == "TRAIN")
