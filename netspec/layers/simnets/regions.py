"""Which cells of a MEX's output grid share a row of offsets.

Shape letters: B batch; c, h, w the output grid; R regions; L cells of one region, over the whole batch; K
last axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from netspec.layers.base import Layer
from netspec.layers.simnets.block import Triple


@dataclass(frozen=True)
class Regions:
    """A grid cut into regions, either contiguous tiles (shared) or a repeated pattern (unshared)."""

    grid: Triple
    count: Triple
    """Regions along each axis; their product is R, the first axis slowest."""
    cells: Triple
    """Cells of a region along each axis; the last may stick out of the grid."""
    unshared: bool
    """Region of cell i is i mod count (a pattern), instead of i div cells (a tile)."""

    @property
    def number(self) -> int:
        """R."""
        return prod(self.count)

    def split(self, x_BchwK: Tensor) -> Tensor:
        """Group the grid by region: (R, L, K), L = B * cells of a region. Cells beyond the grid are 0."""
        missing = [
            count * cells - n for n, count, cells in zip(self.grid, self.count, self.cells, strict=True)
        ]
        x = x_BchwK
        if any(missing):
            x = pad(x, [0, 0, 0, missing[2], 0, missing[1], 0, missing[0]])
        for axis in (3, 2, 1):
            x = torch.unflatten(x, axis, self._parts(axis - 1))
        # Contiguous, so that what is made of it is ready for the batched product, and is kept so for its gradient.
        return x.permute(*self._order()).flatten(3, 6).flatten(0, 2).contiguous()

    def join(self, y_RLM: Tensor) -> Tensor:
        """The inverse of `split`: (R, L, M) back to (B, c, h, w, M)."""
        y = torch.unflatten(torch.unflatten(y_RLM, 1, (-1, *self.cells)), 0, self.count)
        order = self._order()
        y = y.permute(*(order.index(i) for i in range(8)))
        y = y.flatten(5, 6).flatten(3, 4).flatten(1, 2)
        return y[:, : self.grid[0], : self.grid[1], : self.grid[2]]

    def map(self, device: torch.device) -> Tensor:
        """Region of every cell (h, w) of the first channel block."""
        index = []
        for axis in (1, 2):
            place = torch.arange(self.grid[axis], device=device)
            index.append(place % self.count[axis] if self.unshared else place // self.cells[axis])
        return index[0][:, None] * self.count[2] + index[1]

    def _parts(self, axis: int) -> tuple[int, int]:
        count, cells = self.count[axis], self.cells[axis]
        return (cells, count) if self.unshared else (count, cells)

    def _order(self) -> tuple[int, ...]:
        """Axes of (B, c1, c2, h1, h2, w1, w2, K) with the regions first, then batch, cells and K."""
        return (2, 4, 6, 0, 1, 3, 5, 7) if self.unshared else (1, 3, 5, 0, 2, 4, 6, 7)


def read_regions(layer: Layer, p: Any, grid: Triple) -> Regions:
    """The Regions of a MEXParameter p over an output grid.

    Sizes are clipped to the grid, negative ones mean the whole axis; SpecError for a size of 0 or for both
    forms.
    """
    kind = "unshared_offsets_region" if p.use_unshared_regions else "shared_offsets_region"
    sizes = [getattr(p, f"{kind}_c"), *_spatial(layer, p, kind)]
    for size in sizes:
        if size == 0:
            layer.fail(f"{kind} sizes must not be 0", "mex_param")
    clipped = [n if size < 0 else min(size, n) for size, n in zip(sizes, grid, strict=True)]
    others = [-(-n // size) for n, size in zip(grid, clipped, strict=True)]
    if not p.use_unshared_regions:
        return Regions(grid, _triple(others), _triple(clipped), False)
    if layer.strict:
        for n, count, cells in zip(grid, clipped, others, strict=True):
            if not _fork_covers(n, count, cells):
                layer.fail(
                    f"the fork misplaces {count} unshared regions over {n} cells; leave `strict` out",
                    "mex_param",
                )
    return Regions(grid, _triple(clipped), _triple(others), True)


def _spatial(layer: Layer, p: Any, kind: str) -> tuple[int, int]:
    both, one, two = (p.HasField(f"{kind}_{end}") for end in ("size", "h", "w"))
    if one != two or (both and one):
        layer.fail(f"give {kind}_size, or {kind}_h and {kind}_w", "mex_param")
    if one:
        return getattr(p, f"{kind}_h"), getattr(p, f"{kind}_w")
    size = getattr(p, f"{kind}_size")
    return size, size


def _fork_covers(n: int, count: int, cells: int) -> bool:
    """Whether the fork's bounds test (r * cells + i < n) visits exactly the cells r + i * count below n."""
    visited = [r + i * count for r in range(count) for i in range(cells) if r * cells + i < n]
    return sorted(visited) == list(range(n))


def _triple(values: Sequence[int]) -> Triple:
    c, h, w = values
    return c, h, w
