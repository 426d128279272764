"""Windows of a blob in channels, rows and columns, unrolled into patches; shared by Similarity and MEX.

Shape letters: B batch; C, H, W channels, rows, columns; c, h, w the grid of windows along them; K values of a
patch.
Source: BlockParameter of the SimNets fork (caffe.proto, im2col with channel stride).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from netspec.layers.base import Layer, Shape

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Block:
    """Geometry of the windows over a (C, H, W) blob."""

    shape: Triple
    """Channels, rows and columns of the blob."""
    size: Triple
    stride: Triple
    pad: Triple
    """Cells added before and after each axis."""
    grid: Triple
    """How many windows there are along each axis."""
    outside: float
    """What a cell outside the blob holds; may be NaN (missing) or infinite."""

    @property
    def values(self) -> int:
        """K, the number of values in a patch."""
        return prod(self.size)

    def patches(self, x_BCHW: Tensor) -> Tensor:
        """Patches (B, c, h, w, K), the K values ordered by channel, row, column of the window."""
        x = self._cover(x_BCHW)
        if self.stride == self.size:  # windows side by side: a view, whose gradient is a view too
            for axis in (3, 2, 1):
                x = torch.unflatten(x, axis, (-1, self.size[axis - 1]))
            x = x.permute(0, 1, 3, 5, 2, 4, 6)
        else:
            for axis in range(3):
                x = x.unfold(axis + 1, self.size[axis], self.stride[axis])
        return x.flatten(4)

    @property
    def tiles(self) -> bool:
        """Whether every cell of the blob lies in exactly one window, over all channels."""
        covered = all(
            size == stride and before <= size * count and count * size - before >= n
            for n, size, stride, before, count in zip(
                self.shape, self.size, self.stride, self.pad, self.grid, strict=True
            )
        )
        return covered and self.grid[0] == 1 and self.pad[0] == 0

    @property
    def margins(self) -> tuple[int, int, int, int]:
        """Cells that the windows add above, below, left and right of the blob."""
        after = [self.grid[axis] * self.size[axis] - self.pad[axis] - self.shape[axis] for axis in (1, 2)]
        return self.pad[1], after[0], self.pad[2], after[1]

    def image(self, patches_BhwK: Tensor) -> Tensor:
        """The inverse of `patches` for windows that tile the blob: (B, C, H, W), padding cut off."""
        x = torch.unflatten(patches_BhwK, 3, self.size).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        top, left = self.pad[1:]
        return x[:, :, top : top + self.shape[1], left : left + self.shape[2]]

    def _cover(self, x_BCHW: Tensor) -> Tensor:
        """The blob padded, and cut or extended to where the last window ends."""
        amounts: list[int] = []
        for n, size, stride, before, count in zip(
            self.shape, self.size, self.stride, self.pad, self.grid, strict=True
        ):
            amounts = [before, (count - 1) * stride + size - n - before, *amounts]
        if not any(amounts):
            return x_BCHW
        x = pad(x_BCHW, [max(amount, 0) for amount in amounts], value=self.outside)
        cut = [slice(None, min(amount, 0) or None) for amount in reversed(amounts[1::2])]
        return x[:, cut[0], cut[1], cut[2]]


def read_block(layer: Layer, p: Any, shape: Shape, *, can_round_up: bool) -> Block:
    """The Block that a layer's `block_param` p describes over bottoms of `shape`; SpecError where it does not
    fit.

    can_round_up: whether `round_down: false` counts; Similarity ignores it and always rounds down.
    """
    where = (str(layer.param_field), "block_param")
    if len(shape) != 4:
        layer.fail(f"needs a bottom of 4 axes (N, C, H, W), found {shape}")
    if p.HasField("block_size") == (p.HasField("block_h") or p.HasField("block_w")):
        layer.fail("needs block_size, or block_h and block_w", *where)
    if not p.HasField("block_size") and not (p.HasField("block_h") and p.HasField("block_w")):
        layer.fail("block_h and block_w go together", *where)
    channels = shape[1]
    block_c = p.block_c if p.block_c > 0 else channels
    size = (block_c, *_pair(p, "block_h", "block_w", p.block_size))
    stride = (p.stride_c if p.stride_c > 0 else block_c, *_pair(p, "stride_h", "stride_w", p.stride))
    padding = (p.pad_c, *_pair(p, "pad_h", "pad_w", p.pad))
    if min(size) < 1 or min(stride) < 1:
        layer.fail(f"block {size} and stride {stride} (channels, rows, columns) must be at least 1", *where)
    if block_c > channels:
        layer.fail(f"block_c {block_c} exceeds the bottom's {channels} channels", *where, "block_c")
    grid = []
    for axis, n, k, step, more in zip(
        ("channels", "rows", "columns"), shape[1:], size, stride, padding, strict=True
    ):
        room = n + 2 * more - k
        if room < 0:
            layer.fail(f"a block of {k} {axis} does not fit into {n} with padding {more}", *where)
        down = p.round_down or not can_round_up
        grid.append((room // step if down else -(-room // step)) + 1)
    return Block(
        (shape[1], shape[2], shape[3]),
        size,
        stride,
        padding,
        (grid[0], grid[1], grid[2]),
        p.out_of_bounds_value,
    )


def _pair(p: Any, first: str, second: str, both: int) -> tuple[int, int]:
    """(rows, columns): the separate fields where either is written, else `both` for the two."""
    if p.HasField(first) or p.HasField(second):
        return getattr(p, first), getattr(p, second)
    return both, both


def normalise(patches: Tensor, variance: bool, fudge: float) -> Tensor:
    """Each patch (last axis) less its mean; with `variance` over sqrt(var + fudge), var with divisor K-1."""
    centred = patches - patches.mean(-1, keepdim=True)
    if not variance:
        return centred
    var = centred.square().sum(-1, keepdim=True) / max(patches.shape[-1] - 1, 1)
    return centred / torch.sqrt(var + fudge)


def same_shapes(layer: Layer, shapes: tuple[Shape, ...]) -> Shape:
    """The one shape of all bottoms; SpecError when they differ."""
    for i, shape in enumerate(shapes):
        if shape[1:] != shapes[0][1:]:
            layer.fail(f"all bottoms need one shape, found {shapes[0]} and {shape}", "bottom", i)
    return shapes[0]
