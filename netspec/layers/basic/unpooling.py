"""UnPooling: the way back up from a pooling."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from netspec.layers.base import Layer, Shape, between, register
from netspec.layers.basic.pools import Frame, window_sizes
from netspec.layers.basic.windows import Window, spread
from netspec.layers.traits import Field

MAX, AVE, TILE = range(3)
"""UnPoolingParameter.UnPoolMethod."""


@register("UnPooling")
class UnPooling(Layer):
    """y = each x at the place its maximum came from (MAX), or over its window: x / cells (AVE), x (TILE).

    Shapes: bottom x (N, C, H, W); top (N, C, H', W') with H' = unpool_h or unpool_size, and by default (H -
    1) stride + kernel - 2 pad. MAX takes a second bottom like x, the mask of a MAX pooling: positions h W' +
    w; without it the first cell of each window is the place. Overlapping windows add up, but for MAX, where
    the last one counts. Cells of no window are 0; the mask has no gradient. NaN moves along. Raises SpecError
    for a mask of another shape, a mask without MAX, and contradicting fields; IndexError or RuntimeError in
    forward for a mask that points outside. Source: DeconvNet (Noh et al. 2015), unpooling_layer.cpp.
    """

    family, roles = "pooling", ("image", "switches")
    products = 0
    bottoms = between(1, 2)
    param_field = "unpooling_param"

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        self.require(len(shape) == 4, ("bottom", 0), f"needs a bottom (N, C, H, W), found shape {shape}")
        self.method = int(p.unpool)
        if len(shapes) == 2 and self.method != MAX:
            self.fail("a mask goes with unpool: MAX only", "bottom", 1)
        if len(shapes) == 2 and shapes[1] != shape:
            self.fail(f"needs a mask of the shape {shape} of the values, found {shapes[1]}", "bottom", 1)
        kernel, stride, pad = self.pair("kernel_size", "kernel"), self.pair("stride"), self.pair("pad")
        if min(stride) < 1 or (min(kernel) < 1 and len(shapes) == 1):
            self.fail(f"needs kernel_size > 0 and stride > 0, found {kernel} and {stride}", "kernel_size")
        self.frame = Frame(kernel, stride, pad)
        self.whole = tuple((n - 1) * s + k for n, s, k in zip(shape[2:], stride, kernel, strict=True))
        size = self.pair("unpool_size", "unpool")
        self.size = size if min(size) > 0 else tuple(n - 2 * q for n, q in zip(self.whole, pad, strict=True))
        self.places = prod(self.size)
        self.require(min(self.size) >= 1, "pad", f"pad {pad} leaves nothing of bottom shape {shape}")

    def pair(self, name: str, stem: str = "") -> tuple[int, int]:
        """A field given once, or as two fields _h and _w."""
        p, stem = self.param, stem or name
        if p.HasField(f"{stem}_h") != p.HasField(f"{stem}_w"):
            self.fail(f"{stem}_h and {stem}_w go together", f"{stem}_h")
        if not p.HasField(f"{stem}_h"):
            return getattr(p, name), getattr(p, name)
        self.require(not p.HasField(name), name, f"gives both {name} and {stem}_h; use one form")
        return getattr(p, f"{stem}_h"), getattr(p, f"{stem}_w")

    def forward(self, *bottoms: Tensor) -> Tensor:
        x = bottoms[0]
        if self.method != MAX:
            return self.over_windows(x)
        places = bottoms[1].long() if len(bottoms) == 2 else self.corners(x).expand(x.shape)
        flat = x.new_zeros(*x.shape[:2], prod(self.size))
        return flat.scatter(2, places.flatten(2), x.flatten(2)).reshape(*x.shape[:2], *self.size)

    def corners(self, x: Tensor) -> Tensor:
        """Flat position of each window's first cell, (H, W)."""
        rows, columns = (
            (torch.arange(n, device=x.device) * s - p).clamp(0, size - 1)
            for n, s, p, size in zip(x.shape[2:], self.frame.stride, self.frame.pad, self.size, strict=True)
        )
        return rows[:, None] * self.size[1] + columns

    def over_windows(self, x: Tensor) -> Tensor:
        if self.method == AVE:
            down, right = (
                window_sizes(x, *geometry)
                for geometry in zip(
                    self.size, x.shape[2:], self.frame.kernel, self.frame.stride, self.frame.pad, strict=True
                )
            )
            x = x / (down[:, None] * right)
        window = Window(self.frame.kernel, self.frame.stride, (0, 0), (1, 1))
        cells = x.flatten(2)[:, :, None].expand(-1, -1, prod(window.kernel), -1)
        whole = spread(cells.reshape(x.shape[0], -1, cells.shape[3]), window, x.shape[1], self.whole)
        (top, left), (height, width) = self.frame.pad, self.size
        return functional.pad(
            whole, (-left, width - self.whole[1] + left, -top, height - self.whole[0] + top)
        )

    def field(self, below: Field, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Field | None:
        return below.enlarged(self.frame.kernel, self.frame.stride, self.frame.pad)
