"""A MEX of mixtures and the SUM pooling above it as one operator, in tiles that a processor's cache holds.

y[i, j, m] = sum over the cells (r, c) of window (i, j) of log sum_k exp(x[r, c, k] + b[r, c, m, k]), less the same
without x where rows are normalised. What a chain of layers writes to memory and reads again (exponentials, products,
their logarithms, permutations) stays in the cache, and the logarithm is taken once of the product of up to four cells,
where that is far from underflow. As exact as `logsumexp.product`: where the range of a float does not do, the work is
done over by it.

Shape letters: H, W rows and columns of cells; p, q those of a window; h, w rows and columns of windows; R sets of
offsets; K states below; M states above; B batch, the innermost axis everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from netspec.layers.simnets.logsumexp import product

SPREAD = 60.0
"""Nats between the largest and the least offset up to which one shift keeps all exponentials in range: e^-60 leaves
room above the least float. Beyond, each row and column has a shift of its own.
"""
TILE = 1 << 19
"""Floats of a tile's inputs and products: 2 MB, as a core's own cache holds."""
GROUP = 4
"""Cells that are multiplied before the logarithm is taken."""
LEAST_BATCH = 16
"""Samples from which the batch is long enough to be the innermost axis."""
Saved = list[Tensor]
"""For the gradient: exponentials of inputs and of offsets, their products, sums of rows (R, M, 1), maxima of columns
(R, 1, K), and how it was done: one of ONE_SHIFT, SHIFTS, LONG.
"""
ONE_SHIFT, SHIFTS, LONG = range(3)


@dataclass(frozen=True)
class Windows:
    """Cells (H, W) in windows (p, q) that tile them. `corners`: offsets belong to a place in a window (R = p q), else
    to a cell (R = H W).
    """

    cells: tuple[int, int]
    window: tuple[int, int]
    corners: bool

    @property
    def count(self) -> tuple[int, int]:
        """(h, w)"""
        return self.cells[0] // self.window[0], self.cells[1] // self.window[1]

    def tiles(self, floats: int) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of cells that are worked on together: a row of windows, a row of cells, or a part of one.

        floats: of a cell's inputs and products.
        """
        (height, width), (p, q) = self.cells, self.window
        rows, columns = p, width
        if rows * columns * floats > TILE and not self.corners:
            rows = 1
            while columns * floats > TILE and columns % 2 == 0 and fits(columns // 2, q):
                columns //= 2
        for r in range(0, height, rows):
            for c in range(0, width, columns):
                yield slice(r, r + rows), slice(c, c + columns)


def fits(columns: int, q: int) -> bool:
    """Whether a tile of so many columns holds whole windows, or lies in one."""
    return columns % q == 0 or q % columns == 0


class Tile:
    """Views of one tile's part of every tensor."""

    def __init__(self, windows: Windows, rows: slice, columns: slice):
        self.windows, self.rows, self.columns = windows, rows, columns
        self.height, self.width = rows.stop - rows.start, columns.stop - columns.start
        p, q = windows.window
        self.grid = (self.height, max(self.width // q, 1), min(self.width, q))
        """Rows, windows in a row, columns of a window, in a tile that is no row of corners."""
        self.across = slice(columns.start // q, -(-columns.stop // q))
        self.down = rows.start // p

    def inputs(self, x_HWKB: Tensor) -> Tensor:
        """As (p, q, K, w, B) for corners, else (rows, columns, K, B)."""
        x = x_HWKB[self.rows, self.columns]
        return torch.unflatten(x, 1, self.grid[1:]).permute(0, 2, 3, 1, 4) if self.windows.corners else x

    def own(self, of_R: Tensor) -> Tensor:
        """The sets of offsets of its cells, of a tensor (R, ...)."""
        if self.windows.corners:
            return of_R
        return torch.unflatten(of_R, 0, self.windows.cells)[self.rows, self.columns].flatten(0, 1)

    def windows_of(self, y_hwMB: Tensor) -> Tensor:
        """The windows that it lies in, as they are added to and divided by `cells`."""
        y = y_hwMB[self.down, self.across]
        return y.transpose(0, 1)[None] if self.windows.corners else y[None, :, None]

    def cells(self, values: Tensor) -> Tensor:
        """Values (cells, M, ...) as (p q, M, w, B) for corners, else (rows, windows, columns of a window, M, B)."""
        if self.windows.corners:
            return torch.unflatten(values, 2, (self.grid[1], -1))
        return torch.unflatten(values, 0, self.grid)

    def by_place(self, values: Tensor) -> list[Tensor]:
        """One tensor for each place in a window, all of one shape."""
        if self.windows.corners:
            return list(values)
        cells = self.cells(values)
        return [cells[r, :, c] for r in range(self.height) for c in range(self.grid[2])]

    def add(self, y_hwMB: Tensor, value: Tensor) -> None:
        """Add one of `by_place` to the windows."""
        if self.windows.corners:
            value = torch.unflatten(value, 1, (self.grid[1], -1)).transpose(0, 1)
        y_hwMB[self.down, self.across].add_(value)


def tiles_of(windows: Windows, x_HWKB: Tensor, b_RMK: Tensor) -> list[Tile]:
    floats = (b_RMK.shape[1] + b_RMK.shape[2]) * x_HWKB.shape[3]
    return [Tile(windows, *place) for place in windows.tiles(floats)]


def saved_shapes(windows: Windows, x_HWKB: Tensor, b_RMK: Tensor, keep: bool) -> list[tuple[int, ...]]:
    """Shapes of `Saved` but the last; without `keep` those of one tile."""
    (regions, above, below), batch = b_RMK.shape, x_HWKB.shape[3]
    tiles = tiles_of(windows, x_HWKB, b_RMK)
    count = tiles[0].height * tiles[0].width
    if windows.corners:
        count, batch = regions, windows.count[1] * batch
    many = (len(tiles) if keep else 1, count)
    weights = (regions, above, below)
    return [(*many, below, batch), weights, (*many, above, batch), (regions, above, 1), (regions, 1, below)]


def sums(
    x_HWKB: Tensor, b_RMK: Tensor, windows: Windows, normalise: bool, log_k: float, keep: bool
) -> tuple[Tensor, Saved]:
    """y (h, w, M, B), and what its gradient needs."""
    shapes = saved_shapes(windows, x_HWKB, b_RMK, keep)
    saved = [*(x_HWKB.new_empty(shape) for shape in shapes), torch.tensor(LONG)]
    e, w_RMK, products, sums_RM1, peaks_R1K, way = saved
    y_hwMB = x_HWKB.new_zeros(*windows.count, b_RMK.shape[1], x_HWKB.shape[3])
    low, high = (float(one) for one in torch.aminmax(b_RMK.detach()))
    if not high - low < torch.inf:
        return long_way(x_HWKB, b_RMK, windows, normalise, log_k), saved
    shifted = high - low > SPREAD
    if shifted:
        torch.sub(b_RMK, b_RMK.amax(2, keepdim=True) if normalise else 0.0, out=w_RMK)
        torch.amax(w_RMK, 1, keepdim=True, out=peaks_R1K)
        w_RMK.sub_(peaks_R1K).exp_()
    else:
        torch.sub(b_RMK, high, out=w_RMK).exp_()
    least = 100 * torch.finfo(x_HWKB.dtype).tiny
    for i, tile in enumerate(tiles_of(windows, x_HWKB, b_RMK)):
        at = i if keep else 0
        x = tile.inputs(x_HWKB)
        if shifted:
            peaks = tile.own(peaks_R1K).transpose(1, 2)
            x = x + peaks.view(*x.shape[:3], *(1,) * (x.dim() - 3))
        shift = x.amax(2, keepdim=True)
        torch.sub(x, shift, out=e[at].view(x.shape)).exp_()
        torch.bmm(tile.own(w_RMK), e[at], out=products[at])
        logs = log_product(tile.by_place(products[at]), least, b_RMK.shape[2])
        if logs is None:
            return long_way(x_HWKB, b_RMK, windows, normalise, log_k), saved
        tile.add(y_hwMB, logs)
        tile.add(y_hwMB, sum_of(tile.by_place(shift.flatten(0, 1).flatten(2))))
    if normalise:
        if shifted:
            torch.matmul(w_RMK, peaks_R1K.exp().transpose(1, 2), out=sums_RM1)
        else:
            torch.sum(w_RMK, 2, keepdim=True, out=sums_RM1)
        y_hwMB -= over_windows(sums_RM1.log(), windows)
    else:
        y_hwMB += windows.window[0] * windows.window[1] * ((0.0 if shifted else high) - log_k)
    way.fill_(SHIFTS if shifted else ONE_SHIFT)
    return y_hwMB, saved


def over_windows(of_RM1: Tensor, windows: Windows) -> Tensor:
    """Sums over the cells of each window: (h, w, M, 1), or (M, 1) where all windows are alike."""
    if windows.corners:
        return of_RM1.sum(0)
    (p, q), (h, w) = windows.window, windows.count
    return of_RM1.view(h, p, w, q, -1, 1).sum((1, 3))


def over_cells(of_hwM: Tensor, windows: Windows) -> Tensor:
    """What the windows have, for each set of offsets: (R, M, 1), or (1, M, 1) where all have the same."""
    if windows.corners:
        return of_hwM.sum((0, 1)).view(1, -1, 1)
    (p, q), (h, w) = windows.window, windows.count
    return of_hwM[:, None, :, None].expand(h, p, w, q, -1).reshape(h * p * w * q, -1, 1)


def gradients(
    g_hwMB: Tensor, x_HWKB: Tensor, b_RMK: Tensor, saved: Saved, windows: Windows, normalise: bool, of_x: bool
) -> tuple[Tensor, Tensor]:
    """Gradients by x, empty unless `of_x`, and by the offsets."""
    e, w_RMK, products, sums_RM1, peaks_R1K, way = saved
    how = int(way)
    if how == LONG:
        with torch.enable_grad():
            x, b = x_HWKB.detach().requires_grad_(of_x), b_RMK.detach().requires_grad_()
            y = long_way(x, b, windows, normalise, 0.0)
            both = torch.autograd.grad(y, [x, b] if of_x else [b], g_hwMB)
        return (both[0].contiguous() if of_x else x_HWKB.new_empty(0)), both[-1].contiguous()
    dx = torch.empty(x_HWKB.shape, dtype=x_HWKB.dtype) if of_x else x_HWKB.new_empty(0)
    db = torch.zeros_like(w_RMK) if windows.corners else torch.empty_like(w_RMK)
    d, below = torch.empty_like(products[0]), torch.empty_like(e[0])
    for i, tile in enumerate(tiles_of(windows, x_HWKB, b_RMK)):
        torch.div(tile.windows_of(g_hwMB), tile.cells(products[i]), out=tile.cells(d))
        if of_x:
            torch.bmm(tile.own(w_RMK).transpose(1, 2), d, out=below)
            into = tile.inputs(dx)
            torch.mul(below.view(into.shape), e[i].view(into.shape), out=into)
        if windows.corners:
            db.baddbmm_(d, e[i].transpose(1, 2))
        else:
            torch.bmm(d, e[i].transpose(1, 2), out=tile.own(db))
    if normalise:
        rest = over_cells(g_hwMB.sum(3), windows) / sums_RM1
        db.sub_(rest * peaks_R1K.exp() if how == SHIFTS else rest)
    return dx, db.mul_(w_RMK)


def long_way(x_HWKB: Tensor, b_RMK: Tensor, windows: Windows, normalise: bool, log_k: float) -> Tensor:
    """y (h, w, M, B) by `logsumexp.product`, cell by cell."""
    (p, q), (h, w) = windows.window, windows.count
    grid = torch.unflatten(torch.unflatten(x_HWKB, 1, (w, q)), 0, (h, p))
    order = (1, 3, 0, 2, 5, 4) if windows.corners else (0, 1, 2, 3, 5, 4)
    grid = grid.permute(order)
    x_RLK = grid.flatten(0, 1).flatten(1, 3) if windows.corners else grid.flatten(0, 3)
    y_RLM = product(x_RLK, b_RMK, normalise, log_k)
    if windows.corners:
        return y_RLM.sum(0).view(h, w, -1, b_RMK.shape[1]).transpose(2, 3)
    return y_RLM.view(h, p, w, q, -1, b_RMK.shape[1]).sum((1, 3)).transpose(2, 3)


def sum_of(values: Sequence[Tensor]) -> Tensor:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def log_product(cells: Sequence[Tensor], least: float, states: int) -> Tensor | None:
    """The sum of the logarithms of tensors; None where a value is below `least`, or NaN.

    states: no value is above it. Groups of GROUP are multiplied first, smaller ones where their product would be below
    what a float holds well.
    """
    size = GROUP
    while size:
        room = least * states ** (size - 1)  # then no factor, and no product of some, is below `least`
        total: Tensor | None = None
        for i in range(0, len(cells), size):
            value = product_of(cells[i : i + size])
            if not bool(value.amin() >= room):
                break
            total = value.log_() if total is None else total.add_(value.log_())
        else:
            return total
        size //= 2
    return None


def product_of(cells: Sequence[Tensor]) -> Tensor:
    """A new tensor."""
    if len(cells) == 1:
        return cells[0].clone()
    value = cells[0] * cells[1]
    for other in cells[2:]:
        value.mul_(other)
    return value


class Mixtures(torch.autograd.Function):
    """`sums` with its gradient."""

    @staticmethod
    def forward(
        ctx: Any, x_HWKB: Tensor, b_RMK: Tensor, windows: Windows, normalise: bool, log_k: float
    ) -> Tensor:
        ctx.settings = windows, normalise
        y_hwMB, saved = sums(x_HWKB, b_RMK, windows, normalise, log_k, keep=True)
        ctx.save_for_backward(x_HWKB, b_RMK, *saved)
        return y_hwMB

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g_hwMB: Tensor) -> tuple[Tensor | None, ...]:
        x_HWKB, b_RMK, *saved = ctx.saved_tensors
        windows, normalise = ctx.settings
        of_x = bool(ctx.needs_input_grad[0])
        dx, db = gradients(g_hwMB, x_HWKB, b_RMK, saved, windows, normalise, of_x)
        return dx if of_x else None, db, None, None, None


def mixtures(x_BKHW: Tensor, b_RMK: Tensor, windows: Windows, normalise: bool, log_k: float) -> Tensor:
    """y (B, M, h, w), in memory with the batch innermost."""
    x_HWKB = x_BKHW.permute(2, 3, 1, 0)
    if torch.is_grad_enabled() and (x_BKHW.requires_grad or b_RMK.requires_grad):
        apply: Any = Mixtures.apply
        y_hwMB: Tensor = apply(x_HWKB, b_RMK, windows, normalise, log_k)
    else:
        y_hwMB, _ = sums(x_HWKB, b_RMK, windows, normalise, log_k, keep=False)
    return y_hwMB.permute(3, 2, 0, 1)


def tiles_pay(*bottoms: Tensor) -> bool:
    """Whether the batch may be the innermost axis: on a processor, layer by layer (compiled code fuses on its own, and
    exported programs know no such operator), and for a batch that is long enough.
    """
    if torch.compiler.is_compiling():
        return False
    return all(x.device.type == "cpu" and len(x) >= LEAST_BATCH for x in bottoms)
