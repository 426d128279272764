"""Clusters and mixtures of Gaussians, fitted to a stream of mini-batches of patches, missing values among them.

Formulas: k-means and hard-EM mixtures of the SimNets fork. `strict` repeats its accidents. Missing values (NaN) are
left out: distances, densities and means are over what is observed, which is exact for a mixture of diagonal Gaussians.
Squared deviations are taken from the newest means, so that they stay precise far from 0.
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
"""Mini-batches of the k-means that a mixture starts from; fixed, as in the fork, whatever the message says."""
FIRST_CENTRE = 1e-5
"""Probability with which that k-means takes a patch as its first centre, in the fork."""


def observed(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """(x with 0 where it is NaN, 1 where observed and 0 where not); None in place of a mask of ones."""
    missing = x.isnan()
    if not bool(missing.any()):
        return x, None
    return torch.where(missing, 0.0, x), (~missing).to(x.dtype)


def nearest(x: Tensor, centres: Tensor) -> Tensor:
    """Index of the nearest centre for each patch, over what is observed of it."""
    x, seen = observed(x)
    squares = centres.square()
    if seen is None:
        return torch.addmm(-0.5 * squares.sum(1), x, centres.t()).argmax(1)
    return (x @ centres.t() - 0.5 * (seen @ squares.t())).argmax(1)


def totals(x: Tensor, assigned: Tensor, clusters: int) -> tuple[Tensor, Tensor, Tensor]:
    """(number of patches (M,), of observed values (M, K), sum of the observed (M, K)) in each cluster."""
    counts = torch.bincount(assigned, minlength=clusters).to(x.dtype)
    x, seen = observed(x)
    sums = torch.stack(
        [torch.bincount(assigned, column, clusters) for column in x.t()], 1
    )  # not slow index_add_
    if seen is None:
        return counts, counts.unsqueeze(1).expand_as(sums), sums
    own = torch.stack([torch.bincount(assigned, column, clusters) for column in seen.t()], 1)
    return counts, own, sums


def kmeans(
    stream: Patches,
    clusters: int,
    iterations: int,
    generator: torch.Generator,
    plus_plus: bool,
    probability: float,
    strict: bool,
) -> Tensor:
    """Centres (M, K) by mini-batch k-means: each centre is the mean of all patches it was ever given, its seed
    included.

    Seeds: under `strict` the fork's walk over the patches, which takes each with `probability`; else random draws from
    the first batches, with `plus_plus` in proportion to the squared distance from the centres so far.
    """
    if strict:
        centres, x = _seeds_of_fork(stream, clusters, generator, plus_plus, probability)
    else:
        centres, x = _seeds(stream, clusters, generator, plus_plus)
    counts = (~centres.isnan()).to(x.dtype)
    centres = centres.nan_to_num(nan=0.0)
    for i in range(iterations):
        if i:
            x = stream()
        _, new, sums = totals(x, nearest(x, centres), clusters)
        centres = (counts * centres + sums) / (counts + new).clamp_min(1)
        counts = counts + new
    return centres


def _seeds(
    stream: Patches, clusters: int, generator: torch.Generator, plus_plus: bool
) -> tuple[Tensor, Tensor]:
    """(centres, all different; the batch in which the last of them was drawn)."""
    chosen: list[Tensor] = []
    for _ in range(clusters + 1):
        x = stream()
        closest = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        for centre in chosen:
            closest = torch.minimum(closest, distance(x, centre))
        while len(chosen) < clusters and bool((closest > 0).any()):
            odds = closest if plus_plus and chosen else (closest > 0).to(x.dtype)
            pick = x[int(torch.multinomial(odds.cpu(), 1, generator=generator))]
            closest = torch.minimum(closest, distance(x, pick))
            chosen.append(pick)
        if len(chosen) == clusters:
            return torch.stack(chosen), x
    raise DataError(f"unsupervised initialisation: the data holds fewer than {clusters} distinct patches")


def distance(x: Tensor, centre: Tensor) -> Tensor:
    """Squared distance of each patch from a centre: over the values that both have, scaled up to all values.

    0 where they share none, so that such a patch is no seed.
    """
    apart = x - centre
    known = ~apart.isnan()
    return apart.square().nan_to_num(nan=0.0).sum(1) * (x.shape[1] / known.sum(1).clamp_min(1))


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
    squares, counts = torch.zeros_like(centres), torch.zeros_like(centres)
    for _ in range(batches):
        x = stream()
        assigned = nearest(x, centres)
        _, new, sums = totals((x - centres[assigned]).square(), assigned, len(centres))
        squares, counts = squares + sums, counts + new
    if strict:
        return squares / (counts.sum(0) - 1)
    overall = squares.sum(0) / counts.sum(0).clamp(min=1)
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
        """log N(observed x; mean, variance) of every component (n, M), nats; mixture weights not counted."""
        precision = 1 / self.variances
        x, seen = observed(x)
        if seen is not None:
            each = -0.5 * (log(2 * pi) + self.variances.log() + self.means.square() * precision)
            factors = torch.cat([-0.5 * precision, self.means * precision, each], 1)
            return torch.cat([x.square(), x, seen], 1) @ factors.t()
        own = self.constants() - 0.5 * (self.means.square() * precision).sum(1)
        # One product and no other array of this size: to make such arrays takes longer than to fill them.
        factors = torch.cat([-0.5 * precision, self.means * precision], 1)
        return torch.addmm(own, torch.cat([x.square(), x], 1), factors.t())


def mixture(stream: Patches, clusters: int, p: Any, generator: torch.Generator, strict: bool) -> Mixture:
    """A Gaussian mixture by hard expectation maximisation, from k-means++ centres and unit variances.

    An epoch is `num_batches` mini-batches; there are `max_iterations` of them (the fork, by an accident of its stopping
    rule, runs one more and at least three). A patch goes to the component of highest density; mixture weights do not
    count. A component with one patch or none stays as it is. `soft_kmeans` keeps variances 1 and weights equal.
    """
    means = kmeans(stream, clusters, KMEANS_BATCHES, generator, True, FIRST_CENTRE, strict)
    now = Mixture(means, torch.ones_like(means), torch.full_like(means[:, 0], 1 / clusters))
    for _ in range(max(2, p.max_iterations) + 1 if strict else max(1, p.max_iterations)):
        patches, counts, sums, squares = (torch.zeros_like(t) for t in (means[:, 0], means, means, means))
        for _ in range(p.num_batches):
            x = stream()
            assigned = now.log_densities(x).argmax(1)
            apart = x - now.means[assigned]
            new, own, first = totals(apart, assigned, clusters)
            second = totals(apart.square(), assigned, clusters)[2]
            patches, counts, sums, squares = patches + new, counts + own, sums + first, squares + second
        alive = counts > 1
        shift = sums / counts.clamp(min=1)
        now.means = torch.where(alive, now.means + shift, now.means)
        if not p.soft_kmeans:
            var = (squares / counts.clamp(min=1) - shift.square()).clamp(min=0) + p.fudge_factor
            now.variances = torch.where(alive, var, now.variances)
            now.weights = torch.where(patches > 1, patches / patches.sum(), now.weights)
    return now
