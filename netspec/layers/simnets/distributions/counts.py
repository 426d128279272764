"""Distributions over counts without a largest one: Poisson."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from netspec.layers.simnets.distributions.base import Blobs, Distribution, Shape, chosen


class Poisson(Distribution):
    """Counts of rate exp(log_rate)."""

    kind = "poisson"
    discrete = True
    statistics = 2

    def blobs(self, positions: int, components: int, values: int) -> list[tuple[Shape, str]]:
        return [((positions, components, values), "logit_filler")]

    def element(self, blobs: Blobs, x: Tensor) -> Tensor:
        (log_rate,) = blobs
        fine = self.legal(x)
        n = torch.where(fine, self.count(x).round(), 0.0)
        return torch.where(fine, n * log_rate - log_rate.exp() - torch.lgamma(n + 1), -inf)

    def mode(self, blobs: Blobs) -> Tensor:
        return self.value(blobs[0].exp().floor())

    def mean(self, blobs: Blobs) -> Tensor:
        return self.value(blobs[0].exp())

    def variance(self, blobs: Blobs) -> Tensor:
        return blobs[0].exp() * self.step**2

    def sample(self, blobs: Blobs, states_PB: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.value(torch.poisson(chosen(blobs[0], states_PB).exp(), generator=generator))

    def evidence(self, blobs: Blobs) -> list[Tensor]:
        return [torch.zeros_like(blobs[0]) for _ in range(2)]

    def gathering(self, blobs: Blobs, evidence: list[Tensor], x_PBK: Tensor, seen_PBK: Tensor) -> Tensor:
        x = x_PBK.unsqueeze(2)
        terms = self.element([blob.detach().unsqueeze(1) for blob in blobs], x)
        n = torch.where(self.legal(x), self.count(x).round(), 0.0)
        terms = terms + evidence[0].unsqueeze(1) + evidence[1].unsqueeze(1) * n
        return torch.where(seen_PBK.unsqueeze(2), terms, 0.0).sum(3)

    def maximise(self, blobs: Blobs, counts: list[Tensor], prior: float) -> None:
        n, total = counts
        if prior:
            rate = total.sum(1, keepdim=True) / n.sum(1, keepdim=True).clamp_min(torch.finfo(n.dtype).tiny)
            n, total = n + prior, total + prior * rate
        # Bounded from below: a rate of 0 would make every other count impossible for ever.
        new = (total.clamp_min(0) / n.clamp_min(torch.finfo(n.dtype).tiny)).log().clamp_min(-30)
        blobs[0].copy_(torch.where(n > 0, new, blobs[0].to(new.dtype)))
