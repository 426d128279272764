"""How well the pixels of two feature maps match at displacements (FlowNet, DispNet)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from netspec.layers.base import Layer, Shape, exactly, register
from netspec.layers.traits import Field


@register("Correlation")
class Correlation(Layer):
    """y[d, p] = mean over channels and a k x k window of a[p'] * b[p' + d]; SUBTRACT: of |a[p'] - b[p' + d]|.

    Shapes: a, b (N, C, H, W); top (N, D^2, H', W') with D = 2 (max_displacement / stride_2) + 1 displacements an
    axis, stride_2 pixels apart, channel = row * D + column of d; H' = ceil((H + 2 pad - 2 max_displacement - k
    + 1) / stride_1), W' alike; both maps have `pad` zeros around. SUBTRACT's gradient is the derivative. NaN
    spreads to the windows that see it. Raises SpecError for unequal bottoms, an even k, and when displacement
    and window do not fit. Source: Dosovitskiy et al. 2015 (FlowNet), correlation_layer.cu.
    """

    family, roles = "convolution, linear", ("image", "image")
    alike = True
    bottoms = exactly(2)
    param_field = "correlation_param"

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        if len(shape) != 4 or shapes[1][1:] != shape[1:] or shapes[1][0] != shape[0]:
            self.fail(f"needs two bottoms (N, C, H, W) alike, found {shape} and {shapes[1]}", "bottom", 1)
        for name in ("kernel_size", "max_displacement"):
            self.require(p.HasField(name), name, f"needs {name}")
        for name in ("stride_1", "stride_2"):
            self.require(getattr(p, name), name, f"needs {name} > 0")
        self.kernel, self.stride = int(p.kernel_size), int(p.stride_1)
        self.require(self.kernel % 2 != 0, "kernel_size", f"kernel_size must be odd, found {self.kernel}")
        radius = int(p.max_displacement) // int(p.stride_2)
        self.reach = (int(p.max_displacement),) * 2
        self.pad = (int(p.pad),) * 2
        self.steps = (range(-radius, radius + 1),) * 2
        self.along_rows(radius)
        sides = [
            size + 2 * pad - 2 * reach
            for size, pad, reach in zip(shape[2:], self.pad, self.reach, strict=True)
        ]
        if min(sides) < self.kernel:
            self.fail(f"max_displacement {self.reach[1]} and kernel_size {self.kernel} do not fit into {shape} with "
                      f"pad {p.pad}", "max_displacement")  # fmt: skip
        self.rows, self.columns = sides

    def along_rows(self, radius: int) -> None:
        """Restrict the displacements (Correlation1D)."""

    def forward(self, *bottoms: Tensor) -> Tensor:
        a, b = (F.pad(x, (self.pad[1], self.pad[1], self.pad[0], self.pad[0])) for x in bottoms)
        step, stride = int(self.param.stride_2), self.stride if self.kernel == 1 else 1
        (up, left), (rows, columns) = self.reach, self.steps
        # Leftward displacements of Correlation1D may begin one step outside of the map.
        b = F.pad(b, (outside := max(0, -(left + columns.start * step)), 0))
        a = a[:, :, up : up + self.rows : stride, left : left + self.columns : stride].unsqueeze(3)
        first = left + outside + columns.start * step
        span = self.columns + (len(columns) - 1) * step
        sums = []
        for row in rows:
            top = up + row * step
            strip = b[:, :, top : top + self.rows : stride, first : first + span]
            strip = strip.unfold(3, self.columns, step)[..., ::stride]  # N, C, rows, displacements, columns
            sums.append(self.compared(a, strip).mean(1).transpose(1, 2))
        y = torch.cat(sums, 1)
        return y if self.kernel == 1 else F.avg_pool2d(y, self.kernel, self.stride)

    def compared(self, a: Tensor, b: Tensor) -> Tensor:
        p = self.param
        return (a - b).abs() if p.correlation_type == p.SUBTRACT else a * b

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """A product for each value of the top, channel and cell of the window; SUBTRACT has none."""
        p = self.param
        return 0 if p.correlation_type == p.SUBTRACT else prod(tops[0]) * bottoms[0][1] * self.kernel**2

    def field(self, below: Field, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Field | None:
        """The window in the second map, which may lie as far as the largest displacement to either side."""
        extent = [2 * reach + self.kernel for reach in self.reach]
        return below.grown(extent, (self.stride,) * 2, self.pad)


@register("Correlation1D")
class Correlation1D(Correlation):
    """y[d, p] = mean over channels and a k x k window of a[p'] * b[p' + d] for displacements d along rows;
    SUBTRACT: of |a[p'] - b[p' + d]|.

    Shapes: a, b (N, C, H, W); top (N, D, H', W') with D = 2 (max_displacement / stride_2) + 1, H' = ceil((H - k +
    1) / stride_1), W' = ceil((W + 2 pad - 2 max_displacement - k + 1) / stride_1); `pad` zeros left and right.
    With r = max_displacement / stride_2, single_direction 1 has the D = r + 1 displacements 0 to r steps, -1 the
    displacements -r - 1 to -1 (as the original, which reads the first of them beyond its padding; here there
    are zeros). NaN and errors as for Correlation; single_direction must be -1, 0 or 1. Source: Mayer et al. 2016
    (DispNet), correlation_layer1d.cu.
    """

    def along_rows(self, radius: int) -> None:
        direction = int(self.param.single_direction)
        if abs(direction) > 1:
            self.fail(f"single_direction must be -1, 0 or 1, found {direction}", "single_direction")  # fmt: skip
        self.pad, self.reach = (0, self.pad[1]), (0, self.reach[1])
        columns = {0: self.steps[1], 1: range(radius + 1), -1: range(-radius - 1, 0)}[direction]
        self.steps = (range(1), columns)
