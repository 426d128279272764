"""Pooling and spatial pyramid pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netspec.errors import Problem
from netspec.layers.base import Layer, Shape, as_tuple, between, register
from netspec.layers.basic.pools import (
    DividedProduct,
    Frame,
    Pair,
    average_pool,
    max_pool,
    product_pool,
    stochastic_pool,
    sum_pool,
)
from netspec.layers.traits import Field
from netspec.layers.tree import Choose, Inner

MAX, AVE, STOCHASTIC, SUM, PROD = range(5)
"""PoolingParameter.PoolMethod."""


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

    family, roles = "pooling", ("image",)
    carries = resizes = True
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
        self.plane = (shape[2], shape[3])
        if self.method == STOCHASTIC and any(self.frame.pad):
            self.fail("STOCHASTIC pooling takes no pad", "pad")
        if any(n < 1 for n in self.frame.positions(shape[2:])):
            self.fail(f"kernel {self.frame.kernel} does not fit into bottom shape {shape}", "bottom", 0)

    def read_global(self, shape: Shape) -> Frame:
        p = self.param
        for name in ("kernel_size", "kernel_h", "kernel_w"):
            if p.HasField(name):
                self.fail(f"global_pooling takes the whole plane; leave out {name}", name)
        for name, only in (
            ("stride", 1),
            ("stride_h", 1),
            ("stride_w", 1),
            ("pad", 0),
            ("pad_h", 0),
            ("pad_w", 0),
        ):
            if p.HasField(name) and getattr(p, name) != only:
                self.fail(f"global_pooling needs {name} {only}, found {getattr(p, name)}", name)
        return Frame((shape[2], shape[3]), (1, 1), (0, 0))

    def read_frame(self) -> Frame:
        kernel, stride, pad = self.pair("kernel_size", "kernel"), self.pair("stride"), self.pair("pad")
        for name, pair in (("kernel_size", kernel), ("stride", stride)):
            if min(pair) < 1:
                self.fail(f"needs {name} > 0, found {pair}", name)
        if any(p >= k for p, k in zip(pad, kernel, strict=True)):
            self.fail(f"pad {pad} must be smaller than kernel {kernel}", "pad")
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
            self.fail(f"gives both {name} and {written[0]}; use one form", written[0])
        if len(written) == 1 and stem != "pad":
            self.fail(
                f"gives {written[0]} alone; {parts[0]} and {parts[1]} go together",
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

    @property
    def adds_tiles(self) -> Pair | None:
        kernel = self.frame.kernel
        whole = all(n % k == 0 for n, k in zip(self.plane, kernel, strict=True))
        side_by_side = self.whole or (kernel == self.frame.stride and not any(self.frame.pad))
        return kernel if self.method == SUM and whole and side_by_side else None

    # In a latent tree: all cells of a window have the window's state as their parent

    def tree_problem(self) -> Problem | None:
        name = self.param.PoolMethod.Name(self.method)
        if self.method != SUM:
            return self.spec.problem(
                f"pools by {name}; log densities of independent parts add up: use pool: SUM",
                "pooling_param",
                "pool",
            )
        if any(self.frame.pad) or (self.frame.kernel != self.frame.stride and not self.whole):
            return self.spec.problem(
                f"has windows of {self.frame.kernel}, stride {self.frame.stride}, pad {self.frame.pad}; a "
                "part has one parent: use a stride equal to the kernel and no pad",
                "pooling_param",
                "stride",
            )
        counts = self.frame.positions(self.plane)
        for word, n, count, size in zip(
            ("rows", "columns"), self.plane, counts, self.frame.kernel, strict=True
        ):
            if n > count * size:
                return self.spec.problem(
                    f"leaves out {n - count * size} of {n} {word}, whose parts of the image have no parent; "
                    "set round_mode: CEIL, or a kernel that divides",
                    "pooling_param",
                    "round_mode",
                )
        return None

    def cells(self) -> tuple[int, int]:
        return self.frame.kernel

    def upward_max(self, below: Tensor) -> Tensor:
        return as_tuple(self(below))[0]

    def downward(self, states: Tensor, below: Tensor, choose: Choose, best: bool = False) -> Tensor:
        spread = states.repeat_interleave(self.frame.kernel[0], 1).repeat_interleave(self.frame.kernel[1], 2)
        return spread[:, : below.shape[2], : below.shape[3]]

    def field(self, below: Field, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Field | None:
        return below.grown(self.frame.kernel, self.frame.stride, self.frame.pad)


@register("SPP")
class SPP(Layer):
    """y = the poolings of a pyramid side by side: level i pools each plane with a grid of 2^i x 2^i windows.

    Shapes: bottom (N, C, H, W), top (N, C (1 + 4 + ... + 4^(pyramid_height - 1))). At level i the kernel and
    the stride are ceil(H / 2^i), and half of what is missing is padded on each side. NaN in a window makes it
    NaN. Raises SpecError when pyramid_height is missing or a level has more windows than the plane has cells.
    Source: Caffe, spp_layer.cpp; He et al. 2014, Spatial Pyramid Pooling.
    """

    family, roles = "pooling", ("image",)
    mixes = True
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
            self.fail(f"{bins} x {bins} windows do not fit into bottom shape {shape}", "pyramid_height")
        return Frame((kernel[0], kernel[1]), (kernel[0], kernel[1]), (pad[0], pad[1]))

    def forward(self, *bottoms: Tensor) -> Tensor:
        return torch.cat([self.pooled(bottoms[0], frame).flatten(1) for frame in self.frames], 1)

    def pooled(self, x: Tensor, frame: Frame) -> Tensor:
        if self.method == MAX:
            return max_pool(x, frame)[0]
        if self.method == AVE:
            return average_pool(x, frame)
        return stochastic_pool(x, frame, self.phase == "TRAIN")
