"""The sum over paths: a rendered pixel is the sum, over all active paths to it, of the products of weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from netspec.rendering.levels import Level, RenderingModel, Switches

Place = tuple[int, int, int]
"""(channel, row, column) of a unit."""


@dataclass(frozen=True)
class Path:
    """One active path: units from the top level down to the pixel, and the product along it.

    `weight` holds the top unit's template value and each level's filter weight.
    """

    units: tuple[Place, ...]
    weight: float


def paths(model: RenderingModel, z: Tensor, switches: Sequence[Switches], pixel: Place) -> Iterator[Path]:
    """Every active path from z (1, C, h, w) at the top to `pixel` (of image 0): for small nets, there are many.

    A path is active when every unit on it renders (a = 1) at the place of its switch t.
    """

    def climb(level: int, place: Place, below: tuple[Place, ...], weight: float) -> Iterator[Path]:
        units = (place, *below)
        if level == len(model.levels):
            value = float(z[(0, *place)])
            if value != 0:
                yield Path(units, value * weight)
            return
        for cell, factor in parents(model.levels[level], switches[level], place):
            yield from climb(level + 1, cell, units, weight * factor)

    yield from climb(0, pixel, (), 1.0)


def parents(level: Level, switches: Switches, place: Place) -> Iterator[tuple[Place, float]]:
    """(unit of the level above, weight) for each active edge into `place`."""
    a, t = switches
    weight, (channel, row, column), pad = level.weight.detach(), place, level.pad
    height, width = a.shape[2:]
    for k in range(weight.shape[0]):
        for i in range(weight.shape[2]):
            for j in range(weight.shape[3]):
                y, x = row + pad - i, column + pad - j
                if not (0 <= y < height and 0 <= x < width) or a[0, k, y, x] == 0:
                    continue
                cell = cell_of(level, t, k, y, x, width)
                if cell is not None:
                    yield cell, float(weight[k, channel, i, j])


def cell_of(level: Level, t: Tensor | None, k: int, y: int, x: int, width: int) -> Place | None:
    """The pooled unit that renders at (y, x), None when its switch points elsewhere."""
    if level.pool is None:
        return (k, y, x)
    if t is None:  # an average over the plane
        return (k, 0, 0)
    stride = level.pool.frame.stride
    cell = (k, y // stride[0], x // stride[1])
    return cell if int(t[(0, *cell)]) == y * width + x else None
