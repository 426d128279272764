"""The place of the largest value in each cell of a grid over each region, by search or by tables of windows.

Shape legend: N images, C channels, H x W map, R regions.
"""

from __future__ import annotations

from functools import reduce
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

TABLE_BYTES = 12
"""Of a place in the tables of maxima: a value of 4 bytes, its place of 4, and as much again while they are joined."""
MOST_BYTES = 1 << 28
"""How large the tables may be, where one channel does not need more."""


class Span(NamedTuple):
    """[start, end) along one axis for every region and grid line, (R, lines), clipped to the map."""

    start: Tensor
    end: Tensor

    def empty(self) -> Tensor:
        """Where it holds no line of the map."""
        return self.end <= self.start


def largest_places(x: Tensor, image: Tensor, down: Span, right: Span) -> Tensor:
    """Flat place h W + w of the first maximum of every cell, (R, rows, columns, C); any where the cell is empty."""
    cells = (image, *down, *right)
    if torch.compiler.is_exporting():  # a program that is written for others lacks the operator
        return places_by_tables(x, *cells)
    places: Tensor = searched_places(x, *cells)
    return places


@torch.library.custom_op("netspec::roi_places", mutates_args=())
def searched_places(
    x: Tensor, image: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor
) -> Tensor:
    """`largest_places`, cell by cell in main memory, by tables elsewhere."""
    search = places_by_search if x.device.type == "cpu" else in_parts
    return search(x, image, top, bottom, left, right)


@searched_places.register_fake
def _(x: Tensor, image: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor) -> Tensor:
    return image.new_empty((*top.shape, left.shape[1], x.shape[1]))


def in_parts(x: Tensor, image: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """`places_by_tables` for so many channels at a time as MOST_BYTES hold."""
    per_channel = TABLE_BYTES * prod(table_levels(x)) * x[:, 0].numel()
    parts = torch.split(x, max(1, MOST_BYTES // max(per_channel, 1)), 1)
    return torch.cat([places_by_tables(part, image, top, bottom, left, right) for part in parts], -1)


def places_by_search(
    x: Tensor, image: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor
) -> Tensor:
    """`largest_places` by looking at every pixel of every cell: no more memory than the largest cell has."""
    channels, width = x.shape[1], x.shape[3]
    places = image.new_zeros((*top.shape, left.shape[1], channels))
    rows = torch.stack((top, bottom), 2).tolist()
    columns = torch.stack((left, right), 2).tolist()
    for r, n in enumerate(image.tolist()):
        for i, (h, below) in enumerate(rows[r]):
            for j, (w, beyond) in enumerate(columns[r]):
                if h < below and w < beyond:
                    first = x[n, :, h:below, w:beyond].reshape(channels, -1).max(1).indices
                    side = beyond - w
                    places[r, i, j] = (h + first // side) * width + w + first % side
    return places


def places_by_tables(
    x: Tensor, image: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor
) -> Tensor:
    """`largest_places` without a branch on the regions.

    Tables hold the maxima of all windows of 2^i x 2^j pixels; four of them cover a cell of any size, so that
    the work does not depend on the sizes of the regions.
    """
    height, width = x.shape[2:]
    levels = table_levels(x)
    values, places = window_tables(x, levels)
    i, j = power_below(bottom - top, levels[0]), power_below(right - left, levels[1])
    table = i[:, :, None] * levels[1] + j[:, None, :]
    corners = []
    for h in (top, (bottom - 2**i).clamp(min=0)):
        for w in (left, (right - 2**j).clamp(min=0)):
            cell = h.clamp(max=height - 1)[:, :, None] * width + w.clamp(max=width - 1)[:, None, :]
            row = (table * x.shape[0] + image[:, None, None]) * height * width + cell
            corners.append((values[row], places[row]))
    return reduce(better, corners)[1].long()


def table_levels(x: Tensor) -> tuple[int, int]:
    """How many powers of 2 are at most as large as the sides of a map."""
    return x.shape[2].bit_length(), x.shape[3].bit_length()


def power_below(length: Tensor, levels: int) -> Tensor:
    """The largest i with 2^i <= length (0 for an empty span)."""
    steps = 2 ** torch.arange(1, levels, device=length.device)
    return (length[..., None] >= steps).sum(-1)


def window_tables(x: Tensor, levels: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Maxima, and their first flat places, of the windows of 2^i x 2^j pixels that start at each pixel.

    Both (levels N H W, C), the level of i and j being i * levels[1] + j; windows are cut off at the border.
    """
    height, width = x.shape[2:]
    start = torch.arange(height * width, dtype=torch.int32, device=x.device).view(1, height, width, 1)
    column = (x.permute(0, 2, 3, 1).contiguous(), start.expand(x.shape[0], -1, -1, x.shape[1]))
    tables = []
    for i in range(levels[0]):
        if i:
            column = doubled(column, 1, 2 ** (i - 1))
        row = column
        for j in range(levels[1]):
            if j:
                row = doubled(row, 2, 2 ** (j - 1))
            tables.append(row)
    return tuple(torch.stack(parts).flatten(0, 3) for parts in zip(*tables, strict=True))  # type: ignore[return-value]


def doubled(table: tuple[Tensor, Tensor], axis: int, shift: int) -> tuple[Tensor, Tensor]:
    """Windows twice as long along `axis`, from those of length `shift`."""
    size = table[0].shape[axis]
    if shift >= size:
        return table
    ahead = tuple(
        torch.cat((part.narrow(axis, shift, size - shift), part.narrow(axis, size - shift, shift)), axis)
        for part in table
    )
    return better(table, (ahead[0], ahead[1]))


def better(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Of two (value, place) the one with the larger value; of equal ones the one with the smaller place."""
    second = (b[0] > a[0]) | ((b[0] == a[0]) & (b[1] < a[1]))
    return torch.where(second, b[0], a[0]), torch.where(second, b[1], a[1])
