"""Ranks: the processes that train one net together, as a layer sees them.

A batch is dealt out in rows: rank r of `world` has rows r n .. (r + 1) n - 1 of the whole one. What a layer sums up
over a batch it sums up over all ranks (`total`), and what it draws for each row it draws for the whole batch and takes
its own rows of it (`drawn`), so that neither depends on how many ranks there are. Alone, and where each rank has a
batch of its own (Caffe's several GPUs), both do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int = 0
    world: int = 1
    whole: bool = True
    """The ranks have parts of one batch; False: each has a batch of its own, and statistics of its own."""

    @property
    def split(self) -> bool:
        """Whether this process has a part of a batch alone."""
        return self.whole and self.world > 1

    @property
    def parts(self) -> int:
        """How many parts a batch is dealt out in."""
        return self.world if self.whole else 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0


ALONE = Ranks()
_current = ALONE


def current() -> Ranks:
    """The ranks that this process computes among."""
    return _current


@contextmanager
def among(ranks: Ranks) -> Iterator[None]:
    """Compute among these ranks meanwhile."""
    global _current
    before, _current = _current, ranks
    try:
        yield
    finally:
        _current = before


class _Total(torch.autograd.Function):
    """The sum over all ranks; backward sums the gradients, as each rank's loss depends on every rank's value."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        summed = x.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed


def total(x: Tensor) -> Tensor:
    """The sum of a rank's `x` over the ranks that share its batch; x itself where it is alone.

    Every rank must come here, with one shape. Gradients: those of all ranks' losses, summed.
    """
    if not _current.split or x.is_meta:
        return x
    summed: Tensor = _Total.apply(x)  # type: ignore[no-untyped-call]
    return summed


def mean(x: Tensor) -> Tensor:
    """The mean of a rank's `x` over all ranks; x itself where it is alone. Without gradient; every rank must ask."""
    if _current.world == 1:
        return x
    summed = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(summed)
    return summed / _current.world


def drawn(draw: Callable[[tuple[int, ...]], Tensor], shape: Sequence[int], axis: int = 0) -> Tensor:
    """draw(shape), its rows along `axis` those that one process alone would draw for this rank's rows."""
    shape = tuple(shape)
    if not _current.split or not shape:
        return draw(shape)
    rows = shape[axis]
    whole = draw((*shape[:axis], rows * _current.world, *shape[axis + 1 :]))
    return whole.narrow(axis, _current.rank * rows, rows)


def rand_like(x: Tensor) -> Tensor:
    """`torch.rand_like`, by `drawn`."""
    if not _current.split:
        return torch.rand_like(x)
    return drawn(lambda shape: torch.rand(shape, dtype=x.dtype, device=x.device), x.shape)


def randn_like(x: Tensor) -> Tensor:
    """`torch.randn_like`, by `drawn`."""
    if not _current.split:
        return torch.randn_like(x)
    return drawn(lambda shape: torch.randn(shape, dtype=x.dtype, device=x.device), x.shape)


def gathered(x: Tensor) -> Tensor:
    """The rows (N, ...) of all ranks, in their order; x itself where it is alone. Without gradient."""
    if not _current.split:
        return x
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(_current.world)]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)
