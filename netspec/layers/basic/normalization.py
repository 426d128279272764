"""LRN, MVN and Normalize: each sample scaled by statistics of its own. (Statistics of the batch:
batch_norm.py.)

LRN's gradient is written out: half the passes over memory that differentiation of the single steps would
take.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, register
from netspec.layers.basic.pools import Frame, sum_pool
from netspec.layers.traits import Field

ACROSS_CHANNELS, WITHIN_CHANNEL = range(2)
"""LRNParameter.NormRegion."""


def channel_sums(x: Tensor, size: int) -> Tensor:
    """At each channel the sum over `size` neighbouring channels (an odd number), as far as there are any."""
    return line_sums(x, size, 1)


def line_sums(x: Tensor, size: int, axis: int) -> Tensor:
    """At each place the sum over `size` places along an axis with it in the middle, zeros outside."""
    total, length = x.clone(), x.shape[axis]
    for shift in range(1, min(size // 2, length - 1) + 1):
        rest = length - shift
        total.narrow(axis, shift, rest).add_(x.narrow(axis, 0, rest))
        total.narrow(axis, 0, rest).add_(x.narrow(axis, shift, rest))
    return total


def plane_sums(x: Tensor, size: int) -> Tensor:
    """At each cell the sum over the size x size square around it (an odd number), zeros outside."""
    compiling = torch.compiler.is_compiling() or torch.compiler.is_exporting()
    if x.device.type == "cpu" and not compiling:  # torch's pooling takes eight times as long
        return line_sums(line_sums(x, size, 2), size, 3)
    return sum_pool(x, Frame((size, size), (1, 1), (size // 2, size // 2)))


def local_response(
    x: Tensor, size: int, scale: float, beta: float, k: float, across: bool
) -> tuple[Tensor, Tensor]:
    """(y, s): y = x s^-beta, s = k + scale * (sum of x^2 over the neighbours)."""
    s = (channel_sums if across else plane_sums)(x.square(), size) * scale + k
    return x * power(s, -beta), s


def power(x: Tensor, exponent: float) -> Tensor:
    """x ** exponent for x > 0; the usual exponents of LRN by way of roots, which are much faster than pow."""
    if exponent == -0.75:
        root = x.rsqrt()
        return root * root.sqrt()
    if exponent == -0.5:
        return x.rsqrt()
    return x.reciprocal() if exponent == -1 else x.pow(exponent)


class LocalResponse(torch.autograd.Function):
    """local_response with its gradient in two passes. (A compiler makes its own from the plain form.)"""

    forward = staticmethod(local_response)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, ctx.size, ctx.scale, ctx.beta, _, ctx.across = inputs
        y, s = output
        ctx.mark_non_differentiable(s)
        ctx.save_for_backward(x, y, s)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, y, s = ctx.saved_tensors
        sums = channel_sums if ctx.across else plane_sums
        others = sums(grad * y / s, ctx.size)
        mine = grad * power(s, -ctx.beta)
        return torch.addcmul(mine, x, others, value=-2 * ctx.scale * ctx.beta), None, None, None, None, None


@register("LRN")
class LRN(Layer):
    """y = x / (k + alpha / n * sum over neighbours of x^2)^beta; the neighbours are n channels, or n x n
    cells.

    Shapes: bottom and top alike, (N, C, ...) for ACROSS_CHANNELS (n = local_size), (N, C, H, W) for
    WITHIN_CHANNEL (local_size x local_size cells, always divided by local_size^2, and k is 1 whatever is
    written). Missing neighbours count as 0. NaN spreads to its neighbours. Raises SpecError for an even
    local_size or a bottom of fewer axes. Source: Caffe, lrn_layer.cpp; Krizhevsky et al. 2012, section 3.3.
    """

    family, roles = "normalisation", ("image",)
    param_field = "lrn_param"

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        self.require(p.local_size % 2 != 0, "local_size", f"local_size must be odd, found {p.local_size}")
        self.size, self.beta = int(p.local_size), float(p.beta)
        self.across = p.norm_region == ACROSS_CHANNELS
        if len(shape) < 2 or (not self.across and len(shape) != 4):
            needed = "(N, C, ...)" if self.across else "(N, C, H, W)"
            self.fail(f"needs a bottom {needed}, found shape {shape}", "bottom", 0)
        self.k = float(p.k) if self.across else 1.0
        self.scale = p.alpha / (self.size if self.across else self.size**2)

    def forward(self, *bottoms: Tensor) -> Tensor:
        apply = local_response if torch.compiler.is_compiling() else LocalResponse.apply
        return apply(bottoms[0], self.size, self.scale, self.beta, self.k, self.across)[0]

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """A sum of squares over neighbours for each value."""
        return prod(tops[0]) * (self.size if self.across else self.size**2)

    def field(self, below: Field, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Field | None:
        return below if self.across else below.grown((self.size,) * 2, (1, 1), (self.size // 2,) * 2)


@register("MVN")
class MVN(Layer):
    """y = (x - mean) / (std + eps), over each plane of each sample, or over the sample with
    `across_channels`.

    Shapes: bottom and top (N, C, ...). std is the root of the mean squared deviation; without
    `normalize_variance` only the mean is taken off. The gradient is Caffe's: it neglects eps beside std. NaN
    spreads over its plane. Raises SpecError for a bottom of one axis. Source: Caffe, mvn_layer.cpp.
    """

    family, roles = "normalisation", ("image",)
    mixes = True
    param_field = "mvn_param"

    def setup(self, *shapes: Shape) -> None:
        if len(shapes[0]) < 2:
            self.fail(f"needs a bottom (N, C, ...), found shape {shapes[0]}", "bottom", 0)
        self.start = 1 if self.param.across_channels else 2
        self.by_variance, self.eps = bool(self.param.normalize_variance), float(self.param.eps)

    def forward(self, *bottoms: Tensor) -> Tensor:
        x = bottoms[0]
        axes = tuple(range(self.start, x.dim()))
        if not axes:  # planes of one cell
            return x - x
        centred = x - x.mean(axes, keepdim=True)
        if not self.by_variance:
            return centred
        width = centred.detach().square().mean(axes, keepdim=True).sqrt() + self.eps
        # The width's value, with Caffe's derivative y / n: the exact one would be infinite for std 0.
        slope = (centred * (centred.detach() / width)).mean(axes, keepdim=True)
        return centred / (width + (slope - slope.detach()))


@register("Normalize")
class Normalize(Layer):
    """y = scale * x / sqrt(sum x^2 + eps), the sum over channels at each position, or over a sample.

    Shapes: bottom and top (N, C, ...); blob scale (), or (C,) with `channel_shared: false`; it starts at 1
    unless `scale_filler` says otherwise. `across_spatial` (the default) takes the sum over the whole sample.
    NaN spreads through its sum. Raises SpecError for a bottom of one axis. Source: SSD, normalize_layer.cpp;
    Liu et al. 2015, ParseNet.
    """

    family, roles = "normalisation", ("image",)
    products = 1
    param_field = "norm_param"

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        self.require(len(shape) >= 2, ("bottom", 0), f"needs a bottom (N, C, ...), found shape {shape}")
        filler = p.scale_filler
        if not p.HasField("scale_filler"):
            filler = type(filler)(type="constant", value=1.0)
        self.axes = tuple(range(1, len(shape))) if p.across_spatial else (1,)
        self.eps, self.tail = float(p.eps), (1,) * (len(shape) - 2)
        self.add_blob(() if p.channel_shared else (shape[1],), filler)

    def forward(self, *bottoms: Tensor) -> Tensor:
        x, scale = bottoms[0], self.blob(0)
        norm = (x.square().sum(self.axes, keepdim=True) + self.eps).rsqrt()
        return x * norm * (scale.reshape(-1, *self.tail) if scale.dim() else scale)
