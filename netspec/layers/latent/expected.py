"""MisConv and PartialConvolution: convolutions of images with missing pixels."""

from __future__ import annotations

from math import pi, prod

import torch
from torch import Tensor
from torch.nn import functional

from netspec.layers.base import Shape, between, exactly, register
from netspec.layers.basic.convolution import Filtering
from netspec.layers.latent.fill import check_mask, observed

LEAST_VARIANCE = 1e-12
"""Below it a response counts as certain: its deviation would be under 1e-6."""


def expected_relu(mean: Tensor, variance: Tensor) -> Tensor:
    """E[max(0, x)] for x ~ N(mean, variance), value by value; max(0, mean) where the variance is under 1e-12."""
    certain = variance < LEAST_VARIANCE
    s = torch.where(certain, 1.0, variance).sqrt()
    ratio = torch.where(certain, 0.0, mean) / s
    density = (-0.5 * ratio.square()).exp() / (2 * pi) ** 0.5
    uncertain = mean * torch.special.ndtr(ratio) + s * density
    return torch.where(certain, mean.relu(), uncertain)


class OfImages(Filtering):
    """What both have: filters over the two last axes of (N, C, H, W), and a mask as second bottom."""

    paired = False

    @classmethod
    def role(cls, i: int, count: int) -> str:
        return "mask" if i == 1 else "image"

    def read_images(self, shapes: tuple[Shape, ...]) -> None:
        if len(shapes[0]) != 4 or self.param.axis != 1:
            self.fail(f"needs a bottom (N, C, H, W) and axis 1, found shape {shapes[0]}", "bottom", 0)
        self.read_window(shapes[:1])
        self.check_fits(shapes[:1])
        check_mask(self, shapes[0], shapes[1], 1)
        self.num_output, self.group = self.param.num_output, self.param.group
        self.read_filters(lambda: (self.num_output, self.channels // self.group))

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None, group: int = 0) -> Tensor:
        w = self.window
        return functional.conv2d(x, weight, bias, w.stride, w.pad, w.dilation, group or self.group)


@register("MisConv")
class MisConv(OfImages):
    """y = E[max(0, W x + b)] over missing pixels that are normal with mean mu and covariance sum_k a_k a_k^T + diag(d).

    Shapes: bottoms data (N, C, H, W), mask (N, 1, H, W) or as data, mu (N, m C, H, W), A (N, m l C, H, W), d
    >= 0 (N, m C, H, W) and, for m > 1 components, their shares (N, m); l = factors; channels are ordered
    component, factor, colour. Top (N, num_output, H', W'), already rectified; blobs as of Convolution. A
    pixel is missing where data is NaN or the mask 0 or NaN; at observed pixels mu, A and d have no effect.
    misconv_param legacy: as the released program: mu is not merged with the data, A and d count everywhere,
    the bias enters both of their convolutions, and where the centre of a window is observed the top is the
    rectified response to the data with zeros at missing pixels. Raises SpecError for shapes that do not fit.
    Source: Przewiezlikowski et al. 2021.
    """

    bottoms, tops = between(5, 6), exactly(1)

    def setup(self, *shapes: Shape) -> None:
        self.read_images(shapes)
        p = self.spec.message.low_rank_gaussian_param
        self.factors, self.components = int(p.factors), int(p.components)
        self.legacy = bool(self.spec.message.misconv_param.legacy)
        check_density(self, shapes[0], shapes[2:], self.factors, self.components)
        if self.legacy and shapes[1][1] != 1:
            self.fail(f"legacy needs a mask (N, 1, H, W), found {shapes[1]}", "bottom", 1)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        data, mask, mu, a, d = bottoms[:5]
        n, m = data.shape[0], self.components
        seen = observed(data, mask)
        zeroed = torch.where(seen, data, 0.0)
        planes = data.shape[2:]
        means = mu.reshape(n, m, -1, *planes)
        factors = a.reshape(n, m, self.factors, -1, *planes)
        noise = d.reshape(n, m, -1, *planes)
        if not self.legacy:
            means = torch.where(seen[:, None], zeroed[:, None], means)
            factors = torch.where(seen[:, None, None], 0.0, factors)
            noise = torch.where(seen[:, None], 0.0, noise)
        y = self.expected(means, factors, noise)
        y = y[:, 0] if m == 1 else (bottoms[5][:, :, None, None, None] * y).sum(1)
        if not self.legacy:
            return (y,)
        known = self.convolve(zeroed, self.blob(0), self.bias()).relu()
        return (torch.where(self.centres(seen[:, :1].to(data.dtype)) > 0, known, y),)

    def expected(self, means: Tensor, factors: Tensor, noise: Tensor) -> Tensor:
        """(N, m, num_output, H', W'): the expected rectified response under each component."""
        n, m = means.shape[:2]
        w, bias = self.blob(0), self.bias()
        extra = bias if self.legacy else None
        mean = self.convolve(means.flatten(0, 1), w, bias)
        square = extra.square() if extra is not None else None
        variance = self.convolve(noise.flatten(0, 1), w.square(), square)
        responses = self.convolve(factors.flatten(0, 2), w, extra).square()
        variance = variance + responses.reshape(n * m, self.factors, *mean.shape[1:]).sum(1)
        return expected_relu(mean, variance).reshape(n, m, *mean.shape[1:])

    def centres(self, mask: Tensor) -> Tensor:
        """(N, 1, H', W'): the mask at the centre of each window."""
        pick = mask.new_zeros(1, 1, *self.window.kernel)
        pick[0, 0, self.window.kernel[0] // 2, self.window.kernel[1] // 2] = 1
        return self.convolve(mask, pick, group=1)


def check_density(layer: Filtering, data: Shape, shapes: tuple[Shape, ...], factors: int, parts: int) -> None:
    """Refuse mu, A, d and shares whose shapes do not belong to data (N, C, H, W)."""
    for name, value in (("factors", factors), ("components", parts)):
        if value < 1:
            layer.fail(f"{name} must be at least 1", "low_rank_gaussian_param", name)
    n, c = data[:2]
    wanted = [(n, k * c, *data[2:]) for k in (parts, parts * factors, parts)]
    names = ["mu", "A", "d"]
    if parts > 1 and len(shapes) < 4:
        layer.fail(f"{parts} components need their shares (N, {parts}) as last bottom", "bottom", 0)
    if parts == 1 and len(shapes) > 3:
        layer.fail("one component takes no shares", "bottom", len(shapes) + 1)
    if parts > 1:
        wanted.append((n, parts))
        names.append("the shares")
    for i, (name, shape, right) in enumerate(zip(names, shapes, wanted, strict=True)):
        if shape != right:
            layer.fail(f"{name} must have shape {right}, found {shape}", "bottom", i + 2)


@register("PartialConvolution")
class PartialConvolution(OfImages):
    """y = b + (k^2 C / observed values in the window) W (x m), 0 where nothing is observed; and the new mask.

    Shapes: bottoms data (N, C, H, W), mask (N, 1, H, W) or as data; tops y (N, num_output, H', W') and
    optionally the new mask (N, 1, H', W'), 1 where the window saw anything; blobs as of Convolution. A value
    is missing where data is NaN or the mask 0 or NaN. Padding counts as missing, so at the border y is larger
    than a convolution's even where all pixels are there. Raises SpecError for a mask that does not fit and
    for group > 1. Source: Liu et al. 2018.
    """

    bottoms, tops = exactly(2), between(1, 2)

    def setup(self, *shapes: Shape) -> None:
        self.read_images(shapes)
        self.require(self.group <= 1, "group", "group must be 1")

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        data, mask = bottoms
        seen = observed(data, mask)
        window = data.new_ones(1, self.channels, *self.window.kernel)
        count = self.convolve(seen.to(data.dtype), window).round()
        raw = self.convolve(torch.where(seen, data, 0.0), self.blob(0))
        y = raw * (prod(window.shape) / count.clamp_min(1))
        bias = self.bias()
        if bias is not None:
            y = y + bias[:, None, None]
        return (torch.where(count > 0, y, 0.0), (count > 0).to(data.dtype))[: len(self.spec.tops)]
