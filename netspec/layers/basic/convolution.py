"""Convolution, its transpose, its depthwise forms, and the window unrolling (Im2col) behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from netspec.layers.base import Layer, Shape, at_least, register
from netspec.layers.basic.windows import Window, columns, convolution_window, spread
from netspec.layers.traits import Field

CONVOLVE: dict[int, Callable[..., Tensor]] = {
    1: functional.conv1d,
    2: functional.conv2d,
    3: functional.conv3d,
}
TRANSPOSE: dict[int, Callable[..., Tensor]] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}
"""torch's own operators by number of spatial axes."""


class Windowed(Layer):
    """What layers with a convolution_param share: the channel axis, the window, folding of leading axes."""

    family, roles = "convolution, linear", ("image",)
    bottoms = at_least(1)
    tops = at_least(1)
    paired = True
    param_field = "convolution_param"

    window: Window
    channels: int
    channel_axis: int

    def read_window(self, shapes: tuple[Shape, ...]) -> None:
        """Set channel_axis, channels and window from the first bottom; refuse bottoms that differ from it."""
        shape = shapes[0]
        self.require(shape, ("bottom", 0), "needs a bottom with a channel axis, found a scalar")
        self.channel_axis = self.axis(self.param.axis, len(shape), "axis")
        for i, other in enumerate(shapes[1:], 1):
            self.require(
                len(other) == len(shape) and other[self.channel_axis] == shape[self.channel_axis],
                ("bottom", i),
                f"bottom {i} has shape {other}, bottom 0 {shape}; to share one set of weights, ranks and "
                f"axis {self.channel_axis} must agree",
            )
        self.channels = shape[self.channel_axis]
        self.window = convolution_window(self, len(shape) - self.channel_axis - 1)

    def check_fits(self, shapes: tuple[Shape, ...]) -> None:
        """Refuse a window that is larger than a padded bottom."""
        for i, shape in enumerate(shapes):
            sizes = shape[self.channel_axis + 1 :]
            self.require(
                all(n >= 1 for n in self.window.positions(sizes)),
                ("bottom", i),
                f"window of {self.window.extent} does not fit into bottom {i} of shape {shape} "
                f"with pad {self.window.pad}",
            )

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.folded(x) for x in bottoms)

    def folded(self, x: Tensor) -> Tensor:
        """`one` applied with every axis before the channels folded into a single batch axis."""
        if self.channel_axis == 1:
            return self.one(x)
        lead = x.shape[: self.channel_axis]
        y = self.one(x.reshape(prod(lead), *x.shape[self.channel_axis :]))
        return y.reshape(*lead, *y.shape[1:])

    def one(self, x: Tensor) -> Tensor:
        """The top of one bottom (B, C, *sizes)."""
        raise NotImplementedError

    def field(self, below: Field, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Field | None:
        return below.grown(self.window.extent, self.window.stride, self.window.pad)


class Filtering(Windowed):
    """A Windowed layer with filters: the checks and blobs of Convolution and Deconvolution."""

    group: int
    num_output: int
    bias_term: bool

    def read_filters(self, filter_shape: Callable[[], Shape]) -> None:
        """Check num_output and group, then add the filter blob and the bias blob."""
        p = self.param
        self.require(self.num_output >= 1, "num_output", "needs num_output > 0")
        self.require(self.group >= 1, "group", f"group must be at least 1, found {self.group}")
        if self.channels % self.group or self.num_output % self.group:
            self.fail(
                f"group {self.group} must divide the bottom's {self.channels} channels and num_output "
                f"{self.num_output}",
                "group",
            )
        self.bias_term = bool(p.bias_term)
        self.add_blob((*filter_shape(), *self.window.kernel), p.weight_filler)
        if self.bias_term:
            self.add_blob((self.num_output,), p.bias_filler)

    def bias(self) -> Tensor | None:
        return self.blob(1) if self.bias_term else None


@register("Convolution")
class Convolution(Filtering):
    """y[o] = b[o] + sum over i, k of W[o, i, k] x[i, stride p + dilation k - pad], zeros outside, one sum a
    group.

    Shapes: each bottom (..., C, *sizes) with C at `axis`; top (..., num_output, *positions), positions =
    floor((size + 2 pad - dilation (kernel - 1) - 1) / stride) + 1. Any number of spatial axes. Blobs W
    (num_output, C / group, *kernel), b (num_output,) unless `bias_term` is false; all bottoms share them.
    `normalize_patches` (SimNets): each unrolled window has its mean taken off and, with `normalize_variance`,
    is divided by sqrt(var + normalization_fudge_factor), var over max(K - 1, 1); padded zeros take part. NaN
    spreads to every window that holds it. Raises SpecError for fields that contradict the bottom's shape.
    Source: Caffe, base_conv_layer.cpp and conv_layer.cpp; normalize_patches: SimNets fork, conv_layer.cpp.
    """

    def setup(self, *shapes: Shape) -> None:
        self.read_window(shapes)
        self.check_fits(shapes)
        p = self.param
        self.num_output, self.group = p.num_output, p.group
        self.read_filters(lambda: (self.num_output, self.channels // self.group))
        self.normalized = bool(p.normalize_patches)
        self.by_variance, self.fudge = bool(p.normalize_variance), float(p.normalization_fudge_factor)
        if self.normalized and self.group > 1:
            self.fail("normalize_patches is not defined for group > 1", "normalize_patches")

    def one(self, x: Tensor) -> Tensor:
        w, n = self.window, len(self.window.kernel)
        if self.normalized or n > 3:
            return self.by_columns(x)
        if n == 0:  # no spatial axes: one window of one cell
            return functional.conv1d(x[..., None], self.blob(0)[..., None], self.bias(), groups=self.group)[
                ..., 0
            ]
        return CONVOLVE[n](x, self.blob(0), self.bias(), w.stride, w.pad, w.dilation, self.group)

    def by_columns(self, x: Tensor) -> Tensor:
        """The same through explicit unrolling: for ranks torch lacks, and for what works on whole windows."""
        x_BKP = columns(x, self.window)
        if self.normalized:
            x_BKP = normalize(x_BKP, self.by_variance, self.fudge)
        x_BGKP = x_BKP.reshape(x.shape[0], self.group, -1, x_BKP.shape[2])
        weight = self.blob(0).reshape(self.group, self.num_output // self.group, -1)
        y_BOP = torch.matmul(weight, x_BGKP).flatten(1, 2)
        if self.bias_term:
            y_BOP = y_BOP + self.blob(1)[:, None]
        return y_BOP.reshape(*y_BOP.shape[:2], *self.window.positions(x.shape[2:]))


def normalize(x_BKP: Tensor, by_variance: bool, fudge: float) -> Tensor:
    """Windows with mean 0, and with variance near 1: (x - mean) / sqrt(sum (x - mean)^2 / max(K - 1, 1) +
    fudge).
    """
    x = x_BKP - x_BKP.mean(1, keepdim=True)
    if not by_variance:
        return x
    return x * (x.square().sum(1, keepdim=True) / max(x.shape[1] - 1, 1) + fudge).rsqrt()


@register("ConvolutionDepthwise", "DepthwiseConvolution")
class DepthwiseConvolution(Convolution):
    """Convolution with one group a channel: each channel has filters of its own; num_output defaults to C.

    Shapes: as Convolution with group = C; blobs W (num_output, 1, *kernel), b (num_output,). NaN spreads to
    every window that holds it. Raises SpecError when `group` is written and is not C, or when num_output is
    no multiple of C. Source: the forks farmingyard/ShuffleNet and yonghenglh6/DepthwiseConvolution.
    """

    def setup(self, *shapes: Shape) -> None:
        self.read_window(shapes)
        self.check_fits(shapes)
        p = self.param
        if p.HasField("group") and p.group not in (1, self.channels):
            self.fail(
                f"has one group a channel: group must be {self.channels} or left out, found {p.group}",
                "group",
            )
        self.num_output, self.group = p.num_output or self.channels, self.channels
        self.normalized = False
        self.read_filters(lambda: (self.num_output, 1))


@register("Deconvolution")
class Deconvolution(Filtering):
    """y = b + the transpose of Convolution: each x[i, p] adds x W[i, :, k] at stride p + dilation k - pad.

    Shapes: each bottom (..., C, *sizes), top (..., num_output, *sizes'), size' = stride (size - 1) + dilation
    (kernel - 1) + 1 - 2 pad, plus 1 with `round_up_output_dims` (SimNets). Blobs W (C, num_output / group,
    *kernel), b (num_output,) unless `bias_term` is false. NaN spreads to every cell that its window covers.
    Raises SpecError for fields that contradict the bottom's shape. Source: Caffe, deconv_layer.cpp;
    round_up_output_dims: SimNets fork, deconv_layer.cpp.
    """

    def setup(self, *shapes: Shape) -> None:
        self.read_window(shapes)
        p, w = self.param, self.window
        self.num_output, self.group = p.num_output, p.group
        self.extra = int(p.round_up_output_dims)
        if self.extra and any(s < 2 for s in w.stride):
            self.fail(
                f"round_up_output_dims needs stride > 1 on every axis, found {w.stride}",
                "round_up_output_dims",
            )
        for i, shape in enumerate(shapes):
            spatial = shape[self.channel_axis + 1 :]
            self.require(
                all(size >= 1 for size in (*self.sizes(spatial), *spatial)),
                ("bottom", i),
                f"pad {w.pad} leaves nothing of bottom {i} of shape {shape} with window {w.extent}",
            )
        self.read_filters(lambda: (self.channels, self.num_output // self.group))

    def sizes(self, sizes: Shape) -> Shape:
        """Output sizes along the spatial axes."""
        w = self.window
        return tuple(
            s * (size - 1) + e - 2 * p + self.extra
            for size, s, e, p in zip(sizes, w.stride, w.extent, w.pad, strict=True)
        )

    def one(self, x: Tensor) -> Tensor:
        w, n, weight, bias = self.window, len(self.window.kernel), self.blob(0), self.bias()
        if n == 0:
            return functional.conv_transpose1d(x[..., None], weight[..., None], bias, groups=self.group)[
                ..., 0
            ]
        # On a CPU torch spends 4 times as long on one or three outputs as a matrix product and a fold.
        thin = n == 2 and self.group == 1 and self.num_output <= 3
        if thin and x.device.type == "cpu" and not torch.compiler.is_compiling():
            cells, sizes = weight.flatten(1).t() @ x.flatten(2), self.sizes(tuple(x.shape[2:]))
            y = functional.fold(cells, sizes, w.kernel, w.dilation, w.pad, w.stride)
            return y if bias is None else y + bias.reshape(-1, 1, 1)
        if n <= 3:
            return TRANSPOSE[n](x, weight, bias, w.stride, w.pad, (self.extra,) * n, self.group, w.dilation)
        x_BGCP = x.reshape(x.shape[0], self.group, self.channels // self.group, -1)
        weight_GCK = weight.reshape(self.group, self.channels // self.group, -1)
        y = spread(
            torch.matmul(weight_GCK.transpose(1, 2), x_BGCP).flatten(1, 2),
            w,
            self.num_output,
            self.sizes(tuple(x.shape[2:])),
        )
        return y if bias is None else y + bias.reshape(-1, *(1,) * n)

    def field(self, below: Field, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Field | None:
        return below.enlarged(self.window.extent, self.window.stride, self.window.pad)


@register("Im2col")
class Im2col(Windowed):
    """y = every window of x unrolled into channels, zeros outside: channel c kernel + k holds x[c, window,
    k].

    Shapes: each bottom (..., C, *sizes), top (..., C * kernel cells, *positions). NaN moves along.
    Raises SpecError when the window does not fit. Source: Caffe, im2col_layer.cpp.
    """

    def setup(self, *shapes: Shape) -> None:
        self.read_window(shapes)
        self.check_fits(shapes)

    def one(self, x: Tensor) -> Tensor:
        y_BKP = columns(x, self.window)
        return y_BKP.reshape(*y_BKP.shape[:2], *self.window.positions(x.shape[2:]))
