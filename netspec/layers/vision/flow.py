"""Layers of FlowNet's Caffe: images moved by flow fields, means, lengths of vectors, files that it wrote."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from netspec.data.files.protos import read_blob
from netspec.errors import DataError
from netspec.layers.base import Layer, Shape, at_least, exactly, register

NAN = float("nan")


@register("FlowWarp")
class FlowWarp(Layer):
    """y[h, w] = x[h + v, w + u], bilinear: each pixel fetched from where the flow (u, v) points.

    Shapes: x (N, C, H, W), flow (N, 2, H, W) in pixels, u to the right and v down; top as x. Places outside of
    [0, W) x [0, H), and those of a NaN flow, give `fill_value`, 0 or NaN; beyond the last pixel's centre its value
    goes on. Both bottoms get a gradient. A NaN in x spreads to the pixels fetched from its neighbourhood, up to
    one pixel away. Raises SpecError when the flow does not fit. Source: Ilg et al. 2017 (FlowNet 2),
    flow_warp_layer.cpp.
    """

    family, roles = "shape", ("image", "flow")
    products = 4
    mixes = True
    bottoms = exactly(2)
    param_field = "flow_warp_param"

    def setup(self, *shapes: Shape) -> None:
        shape, flow = shapes
        self.require(len(shape) == 4, ("bottom", 0), f"needs a bottom (N, C, H, W), found {shape}")
        if flow != (shape[0], 2, *shape[2:]):
            self.fail(f"needs a flow of shape {(shape[0], 2, *shape[2:])}, found {flow}", "bottom", 1)
        self.fill_value = NAN if self.param.fill_value == self.param.NOT_A_NUMBER else 0.0

    def forward(self, *bottoms: Tensor) -> Tensor:
        x, flow = bottoms
        height, width = x.shape[2:]
        across = torch.arange(width, device=x.device, dtype=x.dtype) + flow[:, 0]
        down = torch.arange(height, device=x.device, dtype=x.dtype)[:, None] + flow[:, 1]
        inside = (across >= 0) & (down >= 0) & (across < width) & (down < height)
        across, down = torch.where(inside, across, 0.0), torch.where(inside, down, 0.0)
        left, top = across.detach().long(), down.detach().long()
        right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
        alpha, beta = (across - left).unsqueeze(1), (down - top).unsqueeze(1)

        def pixels(row: Tensor, column: Tensor) -> Tensor:
            place = (row * width + column).flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1)
            return x.flatten(2).gather(2, place).view(x.shape)

        upper = (1 - alpha) * pixels(top, left) + alpha * pixels(top, right)
        lower = (1 - alpha) * pixels(bottom, left) + alpha * pixels(bottom, right)
        return torch.where(inside.unsqueeze(1), (1 - beta) * upper + beta * lower, self.fill_value)


@register("ChannelNorm")
class ChannelNorm(Layer):
    """y = sqrt(sum over channels of x^2); the gradient at 0 is 0.

    Shapes: (N, C, H, W) to (N, 1, H, W). NaN in any channel makes the pixel NaN. Raises SpecError for a bottom
    without channels. Source: Ilg et al. 2017 (FlowNet 2), channel_norm_layer.cu.
    """

    family, roles = "pointwise", ("image",)

    def setup(self, *shapes: Shape) -> None:
        if len(shapes[0]) < 2:
            self.fail(f"needs a bottom (N, C, ...), found {shapes[0]}", "bottom", 0)

    def forward(self, *bottoms: Tensor) -> Tensor:
        square = bottoms[0].square().sum(1, keepdim=True)
        return torch.where(square == 0, 0.0, torch.where(square == 0, 1.0, square).sqrt())


@register("NegReLU")
class NegReLU(Layer):
    """y = min(x, 0) + negative_slope * max(x, 0); the gradient at 0 is the slope.

    NaN stays NaN. Source: FlowNet's Caffe, neg_relu_layer.cu.
    """

    family, roles = "pointwise", ("values",)
    carries = True
    param_field = "relu_param"

    def forward(self, *bottoms: Tensor) -> Tensor:
        (x,) = bottoms
        return torch.where(x < 0, x, x * self.param.negative_slope)


@register("Mean")
class Mean(Layer):
    """y = output_scale * (input_scale * x + mean_scale * m) for operation ADD, with - m for SUBTRACT.

    Shapes: one top a bottom, (N, C, H, W). m is the mean image of `file` (c, H, W), or a `value` for each of c
    channels; channel i takes mean i modulo c. NaN stays NaN. Raises SpecError without operation, or without
    file and value, where C is no multiple of c, and where the image has another size or cannot be read. Source:
    FlowNet's Caffe, mean_layer.cpp.
    """

    family, roles = "pointwise", ("image",)
    bottoms = tops = at_least(1)
    paired = True
    param_field = "mean_param"
    mean: Tensor

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        self.require(p.HasField("operation"), "operation", "needs operation: ADD or SUBTRACT")
        mean = self.read() if p.file else torch.tensor(list(p.value)).view(-1, 1, 1)
        self.require(len(mean), "file", "needs a file or values")
        for i, shape in enumerate(shapes):
            if len(shape) != 4 or shape[1] % len(mean) or (p.file and shape[2:] != mean.shape[1:]):
                self.fail(f"the mean of shape {tuple(mean.shape)} does not fit {shape}", "bottom", i)
        sign = -1 if p.operation == p.SUBTRACT else 1
        self.register_buffer("mean", sign * p.mean_scale * mean, persistent=False)

    def read(self) -> Tensor:
        try:
            return torch.from_numpy(read_blob(Path(self.param.file))).flatten(0, -3)
        except (DataError, IndexError) as error:
            self.fail(f"the mean cannot be read: {error}", "file")

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.shifted(x) for x in bottoms)

    def shifted(self, x: Tensor) -> Tensor:
        mean = self.mean.repeat(x.shape[1] // len(self.mean), 1, 1).to(x.dtype)
        return float(self.param.output_scale) * (float(self.param.input_scale) * x + mean)


@register("FLOWriter", "PFMWriter", "FloatWriter", "ImgWriter")
class Writer(Layer):
    """Reads its bottom so that it is no output of the net; no file is written.

    The original wrote each forward's bottom to a file (flow, disparity, numbers, picture); here the blob is got
    by its name (`netspec features`). NaN is legal. Source: FlowNet's Caffe, flowriter_layer.cpp and its like.
    """

    family, roles = "data", ("image",)
    bottoms = at_least(1)
    tops = exactly(0)
    param_field = "writer_param"

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return ()
