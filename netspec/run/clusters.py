"""Clusters and mixtures of Gaussians, fitted to a stream of mini-batches of patches.

Formulas: k-means and hard-EM mixtures of the SimNets fork. `strict` takes its accidents along.
Shape letters: n patches of a mini-batch, M clusters, K values of a patch. All sums are kept in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log, pi
from typing import Any

import torch
from torch import Tensor

from netspec.errors import DataError

Patches = Callable[[], Tensor]
"""Gives the patches (n, K) of the next mini-batch, in float64."""

KMEANS_BATCHES = 1000
"""Mini-batches of k-means that a mixture starts from, whatever the message says (as in the fork)."""
FIRST_CENTRE = 1e-5
"""Probability with which that k-means takes a patch as its first centre, in the fork."""


def nearest(x: Tensor, centres: Tensor) -> Tensor:
    """Index of the nearest centre for each patch."""
    return torch.addmm(-0.5 * centres.square().sum(1), x, centres.t()).argmax(1)


def totals(x: Tensor, assigned: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """(number of patches, their sum) in each cluster."""
    counts = torch.bincount(assigned, minlength=clusters).to(x.dtype)
    sums = [torch.bincount(assigned, column, clusters) for column in x.t()]  # far faster than index_add_
    return counts, torch.stack(sums, 1)


def kmeans(
    stream: Patches,
    clusters: int,
    iterations: int,
    generator: torch.Generator,
    plus_plus: bool,
    probability: float,
    strict: bool,
) -> Tensor:
    """Centres (M, K) by mini-batch k-means: each moves to the mean of all it was ever given, its seed
    included.

    Seeds: the fork's walk over the patches (`strict`; `probability` is that of taking one), or drawn from the
    first batches at random, with `plus_plus` in proportion to the squared distance from the centres there
    are.
    """
    if strict:
        centres, x = _seeds_of_fork(stream, clusters, generator, plus_plus, probability)
    else:
        centres, x = _seeds(stream, clusters, generator, plus_plus)
    counts = torch.ones(clusters, 1, dtype=x.dtype, device=x.device)
    for i in range(iterations):
        if i:
            x = stream()
        new, sums = totals(x, nearest(x, centres), clusters)
        centres = (counts * centres + sums) / (counts + new.unsqueeze(1))
        counts = counts + new.unsqueeze(1)
    return centres


def _seeds(
    stream: Patches, clusters: int, generator: torch.Generator, plus_plus: bool
) -> tuple[Tensor, Tensor]:
    """(centres, the batch they were completed on), all different; a batch holds as many as it can give."""
    chosen: list[Tensor] = []
    for _ in range(clusters + 1):
        x = stream()
        closest = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        for centre in chosen:
            closest = torch.minimum(closest, (x - centre).square().sum(1))
        while len(chosen) < clusters and bool((closest > 0).any()):
            odds = closest if plus_plus and chosen else (closest > 0).to(x.dtype)
            pick = x[int(torch.multinomial(odds.cpu(), 1, generator=generator))]
            closest = torch.minimum(closest, (x - pick).square().sum(1))
            chosen.append(pick)
        if len(chosen) == clusters:
            return torch.stack(chosen), x
    raise DataError(f"unsupervised initialisation: the data holds fewer than {clusters} distinct patches")


def _seeds_of_fork(
    stream: Patches, clusters: int, generator: torch.Generator, plus_plus: bool, probability: float
) -> tuple[Tensor, Tensor]:
    """The fork's walk: patches in order, each taken with `probability`, or (k-means++, from the second centre
    on) with the share of its squared distance in the batch, at most one a batch."""
    chosen: list[Tensor] = []
    while True:
        x = stream()
        odds = torch.full((len(x),), probability, dtype=x.dtype)
        if plus_plus and chosen:
            distance = torch.cdist(x, torch.stack(chosen)).square().amin(1)
            odds = (distance / distance.sum()).cpu()
        hits = (torch.rand(len(x), generator=generator, dtype=x.dtype) < odds).nonzero().flatten()
        chosen += list(x[hits[: 1 if plus_plus else clusters - len(chosen)].to(x.device)])
        if len(chosen) == clusters:
            return torch.stack(chosen), x


def spread(stream: Patches, centres: Tensor, batches: int, strict: bool) -> Tensor:
    """Mean squared distance (M, K) of each cluster's patches from its centre.

    strict: over all patches seen, as the fork divides, and not over the cluster's own.
    """
    squares, counts = torch.zeros_like(centres), torch.zeros_like(centres[:, :1])
    for _ in range(batches):
        x = stream()
        assigned = nearest(x, centres)
        new, sums = totals((x - centres[assigned]).square(), assigned, len(centres))
        squares, counts = squares + sums, counts + new.unsqueeze(1)
    if strict:
        return squares / (counts.sum() - 1)
    overall = squares.sum(0) / counts.sum().clamp(min=1)
    return torch.where(counts > 1, squares / counts.clamp(min=1), overall)


@dataclass
class Mixture:
    """A mixture of M diagonal Gaussians."""

    means: Tensor
    variances: Tensor
    weights: Tensor

    def constants(self) -> Tensor:
        """log of each component's normaliser (M,)."""
        return -0.5 * (self.variances.shape[1] * log(2 * pi) + self.variances.log().sum(1))

    def log_densities(self, x: Tensor) -> Tensor:
        """log N(x; mean, variance) of every component (n, M), in nats; mixture weights not counted."""
        precision = 1 / self.variances
        own = self.constants() - 0.5 * (self.means.square() * precision).sum(1)
        # One product and no other array of this size: to make such arrays takes longer than to fill them.
        factors = torch.cat([-0.5 * precision, self.means * precision], 1)
        return torch.addmm(own, torch.cat([x.square(), x], 1), factors.t())


def mixture(stream: Patches, clusters: int, p: Any, generator: torch.Generator, strict: bool) -> Mixture:
    """A Gaussian mixture by hard expectation maximisation, from k-means++ centres and unit variances.

    An epoch is `num_batches` mini-batches; there are `max_iterations` of them (the fork, by an accident of
    its stopping rule, runs one more and at least three). Patches go to the component of highest density,
    weights apart. A component with one patch or none stays as it is. `soft_kmeans` keeps variances 1 and
    weights equal.
    """
    means = kmeans(stream, clusters, KMEANS_BATCHES, generator, True, FIRST_CENTRE, strict)
    now = Mixture(means, torch.ones_like(means), torch.full_like(means[:, 0], 1 / clusters))
    for _ in range(max(2, p.max_iterations) + 1 if strict else max(1, p.max_iterations)):
        counts, sums, squares = (torch.zeros_like(t) for t in (means[:, :1], means, means))
        for _ in range(p.num_batches):
            x = stream()
            assigned = now.log_densities(x).argmax(1)
            new, more = totals(torch.cat([x, x.square()], 1), assigned, clusters)
            counts, sums, squares = (
                counts + new.unsqueeze(1),
                sums + more[:, : x.shape[1]],
                squares + more[:, x.shape[1] :],
            )
        alive = counts > 1
        mean = sums / counts.clamp(min=1)
        now.means = torch.where(alive, mean, now.means)
        if not p.soft_kmeans:
            var = (squares / counts.clamp(min=1) - mean.square()).clamp(min=0) + p.fudge_factor
            now.variances = torch.where(alive, var, now.variances)
            now.weights = torch.where(alive[:, 0], (counts / counts.sum())[:, 0], now.weights)
    return now
