"""Distributions over finitely many levels: categorical, binomial, Bernoulli, discretised logistic."""

from __future__ import annotations

from math import inf, lgamma, log, pi
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from netspec.layers.simnets.distributions.base import Blobs, Distribution, Shape, chosen, uniform
from netspec.layers.simnets.logsumexp import may_look

EVEN = 0.05
"""Share of a prior over levels that is the same for all levels, so that none is impossible."""


class Levels(Distribution):
    """A kind with finitely many values; it learns from how often each is expected."""

    discrete, finite = True, True

    def evidence(self, blobs: Blobs) -> list[Tensor]:
        return [self.table(blobs).permute(0, 2, 3, 1).contiguous().detach()]

    def gathering(self, blobs: Blobs, evidence: list[Tensor], x_PBK: Tensor, seen_PBK: Tensor) -> Tensor:
        return self.pick(evidence[0], x_PBK, seen_PBK)

    def pick(self, table_PKLM: Tensor, x_PBK: Tensor, seen_PBK: Tensor) -> Tensor:
        """Sums over K of the table's rows for the levels of x: (P, B, M)."""
        p, k, levels, m = table_PKLM.shape
        level = self.count(x_PBK).round()
        fine = self.legal(x_PBK)
        level = torch.where(fine, level, 0.0).long().clamp(0, levels - 1)
        start = torch.arange(p * k, device=x_PBK.device).view(p, 1, k) * levels
        shape = (*level.shape, m)
        rows = table_PKLM.reshape(p * k * levels, m).index_select(0, (level + start).flatten()).view(shape)
        if may_look(x_PBK) and bool((fine & seen_PBK).all()):
            return rows.squeeze(2) if k == 1 else rows.sum(2)
        rows = torch.where(fine.unsqueeze(3), rows, -inf)
        rows = torch.where(seen_PBK.unsqueeze(3), rows, 0.0)
        return rows.squeeze(2) if k == 1 else rows.sum(2)

    def mode(self, blobs: Blobs) -> Tensor:
        return self.value(self.table(blobs).argmax(3).to(blobs[0].dtype))

    def peak(self, blobs: Blobs) -> Tensor:
        return self.table(blobs).amax(3)

    def mean(self, blobs: Blobs) -> Tensor:
        table = self.table(blobs)
        return self.value(table.exp() @ torch.arange(self.levels, device=table.device, dtype=table.dtype))

    def variance(self, blobs: Blobs) -> Tensor:
        table = self.table(blobs)
        levels = torch.arange(self.levels, device=table.device, dtype=table.dtype)
        apart = levels - (table.exp() @ levels).unsqueeze(3)
        return (table.exp() * apart.square()).sum(3) * self.step**2

    def sample(self, blobs: Blobs, states_PB: Tensor, generator: torch.Generator | None) -> Tensor:
        logits = chosen(self.table(blobs), states_PB)
        level = (logits - torch.log(-torch.log(uniform(logits, generator)))).argmax(3)
        return self.value(level.to(logits.dtype))

    def maximise(self, blobs: Blobs, counts: list[Tensor], prior: float) -> None:
        (counts_PKLM,) = counts
        if prior:
            counts_PKLM = counts_PKLM + prior * shared(counts_PKLM)
        self.fit(blobs, counts_PKLM.permute(0, 3, 1, 2))

    def fit(self, blobs: Blobs, counts_PMKL: Tensor) -> None:
        """The parameters of greatest likelihood, or of a greater one than now, for counts of levels."""
        raise NotImplementedError


def shared(counts_PKLM: Tensor) -> Tensor:
    """What all components together make of the levels (P, K, L, 1), a little of it evenly; sums to 1 over L."""
    together = counts_PKLM.sum(3, keepdim=True)
    total = together.sum(2, keepdim=True)
    known = torch.where(
        total > 0, together / total.clamp_min(torch.finfo(total.dtype).tiny), 1 / together.shape[2]
    )
    return (1 - EVEN) * known + EVEN / together.shape[2]


class Categorical(Levels):
    """Every level has its own probability: softmax of logits (P, K, L, M)."""

    kind = "categorical"

    def blobs(self, positions: int, components: int, values: int) -> list[tuple[Shape, str]]:
        return [((positions, values, self.levels, components), "logit_filler")]

    def log_prob(self, blobs: Blobs, x_PBK: Tensor, seen_PBK: Tensor) -> Tensor:
        return self.pick(torch.log_softmax(blobs[0], 2), x_PBK, seen_PBK)

    def table(self, blobs: Blobs) -> Tensor:
        return torch.log_softmax(blobs[0], 2).permute(0, 3, 1, 2)

    def evidence(self, blobs: Blobs) -> list[Tensor]:
        return [torch.log_softmax(blobs[0].detach(), 2)]

    def maximise(self, blobs: Blobs, counts: list[Tensor], prior: float) -> None:
        (counts_PKLM,) = counts
        total = counts_PKLM.sum(2, keepdim=True)
        if prior:
            counts_PKLM, total = counts_PKLM + prior * shared(counts_PKLM), total + prior
        new = counts_PKLM.log().sub_(total.log())
        blobs[0].copy_(torch.where(total > 0, new, blobs[0].to(new.dtype)))


class Binomial(Levels):
    """Successes among levels - 1 trials, of probability sigmoid(logit)."""

    kind = "binomial"

    def blobs(self, positions: int, components: int, values: int) -> list[tuple[Shape, str]]:
        return [((positions, components, values), "logit_filler")]

    def element(self, blobs: Blobs, x: Tensor) -> Tensor:
        (logit,), trials = blobs, self.levels - 1
        n = self.count(x).round()
        fine = self.legal(x)
        n = torch.where(fine, n, 0.0)
        choose = lgamma(trials + 1) - torch.lgamma(n + 1) - torch.lgamma(trials - n + 1)
        # No successes of probability 0 are certain: 0 times -inf is 0.
        yes = torch.where(n > 0, n * logsigmoid(logit), 0.0)
        no = torch.where(n < trials, (trials - n) * logsigmoid(-logit), 0.0)
        return torch.where(fine, choose + yes + no, -inf)

    def mean(self, blobs: Blobs) -> Tensor:
        return self.value((self.levels - 1) * blobs[0].sigmoid())

    def variance(self, blobs: Blobs) -> Tensor:
        return (self.levels - 1) * blobs[0].sigmoid() * (-blobs[0]).sigmoid() * self.step**2

    def fit(self, blobs: Blobs, counts_PMKL: Tensor) -> None:
        levels = torch.arange(self.levels, device=counts_PMKL.device, dtype=counts_PMKL.dtype)
        yes, total = counts_PMKL @ levels, counts_PMKL.sum(3) * (self.levels - 1)
        # Bounded: a sure success would make every failure impossible for ever.
        new = (yes.log() - (total - yes).clamp_min(0).log()).clamp(-30, 30)
        blobs[0].copy_(torch.where(total > 0, new, blobs[0].to(new.dtype)))


class Bernoulli(Binomial):
    """1 with probability sigmoid(logit), else 0."""

    kind = "bernoulli"

    def __init__(self, p: Any):
        super().__init__(p)
        self.levels = 2

    def problem(self) -> tuple[str, str] | None:
        if self.p.HasField("levels") and self.p.levels != 2:
            return f"bernoulli: has 2 levels, found {self.p.levels}; take categorical or binomial", "levels"
        return super().problem()


class DiscretisedLogistic(Levels):
    """p(level) = sigmoid((upper - location) / scale) - sigmoid((lower - location) / scale), in units of the data.

    The level's interval reaches half a step to each side, to infinity at both ends, so that all levels' sum is 1.
    """

    kind = "discretised_logistic"
    exact = False

    def blobs(self, positions: int, components: int, values: int) -> list[tuple[Shape, str]]:
        shape = (positions, components, values)
        return [(shape, "location_filler"), (shape, "log_scale_filler")]

    def element(self, blobs: Blobs, x: Tensor) -> Tensor:
        location, log_scale = blobs
        n, fine, rate = self.count(x).round(), self.legal(x), torch.exp(-log_scale)
        centre = (self.value(torch.where(fine, n, 0.0)) - location) * rate
        half = 0.5 * self.step * rate
        # log (s(b) - s(a)) = log s(b) + log s(-a) + log(1 - e^(a - b)); at the ends one side is certain.
        above = torch.where(n >= self.levels - 1, 0.0, logsigmoid(centre + half))
        below = torch.where(n <= 0, 0.0, logsigmoid(half - centre))
        ends = (n >= self.levels - 1) | (n <= 0)
        width = torch.where(ends, 0.0, log1mexp(torch.where(ends, 1.0, 2 * half)))
        return torch.where(fine, above + below + width, -inf)

    def begin(self, blobs: Blobs, mean: Tensor, deviation: Tensor) -> None:
        blobs[0].copy_(mean.expand_as(blobs[0]))
        scale = (deviation * 3**0.5 / pi).clamp_min(max(self.min_scale, 0.1 * self.step))
        blobs[1].copy_(scale.log().expand_as(blobs[1]))

    def fit(self, blobs: Blobs, counts_PMKL: Tensor) -> None:
        total = counts_PMKL.sum(3)
        levels = self.value(torch.arange(self.levels, device=total.device, dtype=torch.float64))
        weights = (counts_PMKL / total.unsqueeze(3).clamp_min(torch.finfo(total.dtype).tiny)).double()
        now = [blob.detach().double().clone() for blob in blobs]
        value = self.score(now, weights, levels)
        pace = torch.ones_like(value)
        for _ in range(12):
            leaves = [blob.requires_grad_() for blob in now]
            with torch.enable_grad():
                slopes = torch.autograd.grad(self.score(leaves, weights, levels).sum(), leaves)
            now = [blob.detach() for blob in now]
            # The logistic's Fisher information: 1 / (3 scale^2) of the location, (3 + pi^2) / 9 of log scale.
            square = (2 * now[1]).exp().clamp_min(self.step**2 / 12)
            moved = [now[0] + pace * 3 * square * slopes[0], now[1] + pace * slopes[1] * 9 / (3 + pi**2)]
            moved[1] = torch.maximum(torch.minimum(moved[1], now[1] + 1), now[1] - 1).clamp_min(
                log(self.min_scale)
            )
            new = self.score(moved, weights, levels)
            better = new > value
            now = [torch.where(better, a, b) for a, b in zip(moved, now, strict=True)]
            value, pace = torch.where(better, new, value), torch.where(better, pace * 1.2, pace * 0.3)
        for blob, new in zip(blobs, now, strict=True):
            blob.copy_(torch.where(total > 0, new.to(blob.dtype), blob))

    def score(self, blobs: Blobs, weights_PMKL: Tensor, levels: Tensor) -> Tensor:
        """Mean log probability of levels under weights (P, M, K)."""
        terms = self.element([blob.unsqueeze(-1) for blob in blobs], levels)
        return torch.where(weights_PMKL > 0, weights_PMKL * terms, 0.0).sum(3)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(-x)) for x > 0, to full precision at both ends."""
    small = x < log(2)
    near = torch.log(-torch.expm1(-torch.where(small, x, 1.0)))
    far = torch.log1p(-torch.exp(-torch.where(small, 1.0, x)))
    return torch.where(small, near, far)
