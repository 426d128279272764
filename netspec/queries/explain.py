"""Why this class: what each patch contributes; and which missing pixel to look at next."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from netspec.queries.likelihood import log_posterior
from netspec.queries.sampling import complete
from netspec.queries.tree import Tree


def patches(height: int, width: int, size: int) -> Iterator[tuple[slice, slice]]:
    """The windows of a grid of size x size patches, row by row."""
    for top in range(0, height, size):
        for left in range(0, width, size):
            yield slice(top, top + size), slice(left, left + size)


def contributions(tree: Tree, x: Tensor, y: Tensor, size: int = 1) -> Tensor:
    """log p(y | x) - log p(y | x without the patch), for each size x size patch: (B, ceil(H/size), ceil(W/size)), nats.

    Positive: the patch speaks for class y (B,). The patch is integrated out exactly, not replaced. 0 where it was
    missing already.
    """
    height, width = x.shape[2:]
    whole = log_posterior(tree, x).gather(1, y.view(-1, 1)).squeeze(1)
    falls = []
    for rows, columns in patches(height, width, size):
        without = x.clone()
        without[:, :, rows, columns] = torch.nan
        falls.append(whole - log_posterior(tree, without).gather(1, y.view(-1, 1)).squeeze(1))
    return torch.stack(falls, 1).view(len(x), -(-height // size), -(-width // size))


def information_gain(
    tree: Tree, x: Tensor, draws: int = 8, size: int = 1, generator: torch.Generator | None = None
) -> Tensor:
    """Expected fall of the class entropy from observing a missing patch: (B, ceil(H/size), ceil(W/size)), nats.

    H(y | observed) - E[H(y | observed, patch)] = E[KL(p(y | observed, patch) | p(y | observed))], the expectation over
    `draws` exact conditional samples of the patch (Monte Carlo, standard error falls with sqrt(draws)). The divergence
    is what is averaged: it is never negative, and varies less than the entropy. NaN where no pixel of the patch is
    missing.
    """
    height, width = x.shape[2:]
    before = log_posterior(tree, x)
    filled = torch.cat([complete(tree, x, None, generator) for _ in range(draws)])
    gains = []
    for rows, columns in patches(height, width, size):
        seen = x.repeat(draws, 1, 1, 1)
        seen[:, :, rows, columns] = filled[:, :, rows, columns]
        after = log_posterior(tree, seen)
        gain = (after.exp() * (after - before.repeat(draws, 1))).sum(1).view(draws, -1).mean(0)
        open_ = x[:, :, rows, columns].isnan().flatten(1).any(1)
        gains.append(torch.where(open_, gain.clamp_min(0), torch.nan))
    return torch.stack(gains, 1).view(len(x), -(-height // size), -(-width // size))
