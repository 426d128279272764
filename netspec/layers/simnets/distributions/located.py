"""Distributions with a location and a scale: Gaussian and Student's t."""

from __future__ import annotations

from math import lgamma, log, pi
from typing import Any

import torch
from torch import Tensor

from netspec.layers.simnets.distributions.base import Blobs, Distribution, Shape, chosen, uniform


class Located(Distribution):
    """A location and the logarithm of a scale for each value."""

    statistics = 4

    def blobs(self, positions: int, components: int, values: int) -> list[tuple[Shape, str]]:
        shape = (positions, components, values)
        return [(shape, "location_filler"), (shape, "log_scale_filler")]

    def begin(self, blobs: Blobs, mean: Tensor, deviation: Tensor) -> None:
        blobs[0].copy_(mean.expand_as(blobs[0]))
        blobs[1].copy_(deviation.clamp_min(self.min_scale).log().expand_as(blobs[1]))

    def mode(self, blobs: Blobs) -> Tensor:
        return blobs[0]

    def mean(self, blobs: Blobs) -> Tensor:
        return blobs[0]

    def weight(self, blobs: Blobs, x: Tensor) -> Tensor:
        """How much each value counts for its component's location: 1, but for long tails."""
        return torch.ones_like(x)

    def evidence(self, blobs: Blobs) -> list[Tensor]:
        return [torch.zeros_like(blobs[0]) for _ in range(4)]

    def gathering(self, blobs: Blobs, evidence: list[Tensor], x_PBK: Tensor, seen_PBK: Tensor) -> Tensor:
        # Counts, then weighted counts, deviations and squares, each deviation from the component's own location.
        location, log_scale = (blob.detach().unsqueeze(1) for blob in blobs)
        apart = x_PBK.unsqueeze(2) - location
        u = self.weight([location, log_scale], apart + location)
        terms = self.element([location, log_scale], x_PBK.unsqueeze(2))
        for e, power in zip(
            evidence, (torch.ones_like(apart), u, u * apart, u * apart.square()), strict=True
        ):
            terms = terms + e.unsqueeze(1) * power
        return torch.where(seen_PBK.unsqueeze(2), terms, 0.0).sum(3)

    def maximise(self, blobs: Blobs, counts: list[Tensor], prior: float) -> None:
        n, weight, first, second = counts
        alive = (n > 0) & (weight > 0) if not prior else (n.sum(1, keepdim=True) > 0).expand_as(n)
        before = blobs[0].to(n.dtype)
        tiny = torch.finfo(n.dtype).tiny
        pull = torch.zeros_like(n)
        if prior:  # towards the mean of all components
            share = weight / weight.sum(1, keepdim=True).clamp_min(tiny)
            pull = (share * (before + first / weight.clamp_min(tiny))).sum(1, keepdim=True) - before
        shift = torch.where(alive, (first + prior * pull) / (weight + prior).clamp_min(tiny), 0.0)
        moved = (second - 2 * shift * first + shift.square() * weight).clamp_min(0)
        if prior:
            own, together = n, moved.sum(1, keepdim=True) / n.sum(1, keepdim=True).clamp_min(tiny)
            moved, n = moved + prior * together, own + prior
        new = (moved / n.clamp_min(tiny)).sqrt().clamp_min(self.min_scale).log()
        blobs[1].copy_(torch.where(alive, new, blobs[1].to(new.dtype)))
        blobs[0].copy_(before + shift)
        real = blobs[0].to(n.dtype) - before  # what rounding left of the shift
        counts[3].copy_((second - 2 * real * first + real.square() * weight).clamp_min(0))
        counts[2].copy_(first - real * weight)


class Gaussian(Located):
    """log N(x; location, exp(log_scale)^2)."""

    kind = "gaussian"

    def element(self, blobs: Blobs, x: Tensor) -> Tensor:
        location, log_scale = blobs
        return -0.5 * ((x - location) * torch.exp(-log_scale)).square() - log_scale - 0.5 * log(2 * pi)

    def variance(self, blobs: Blobs) -> Tensor:
        return (2 * blobs[1]).exp()

    def sample(self, blobs: Blobs, states_PB: Tensor, generator: torch.Generator | None) -> Tensor:
        location, log_scale = (chosen(blob, states_PB) for blob in blobs)
        normal = torch.randn(
            location.shape, generator=generator, device=location.device, dtype=location.dtype
        )
        return location + normal * log_scale.exp()


class StudentT(Located):
    """Student's t with a fixed number of degrees of freedom, a location and a scale."""

    kind = "student_t"
    exact = False

    def __init__(self, p: Any):
        super().__init__(p)
        self.df = float(p.degrees_of_freedom)

    def problem(self) -> tuple[str, str] | None:
        if not self.df > 2:
            text = (
                f"student_t: degrees_of_freedom must be above 2 (else it has no variance), found {self.df:g}"
            )
            return text, "degrees_of_freedom"
        return super().problem()

    def element(self, blobs: Blobs, x: Tensor) -> Tensor:
        location, log_scale = blobs
        constant = lgamma((self.df + 1) / 2) - lgamma(self.df / 2) - 0.5 * log(self.df * pi)
        z = (x - location) * torch.exp(-log_scale)
        return constant - log_scale - 0.5 * (self.df + 1) * torch.log1p(z.square() / self.df)

    def variance(self, blobs: Blobs) -> Tensor:
        return (2 * blobs[1]).exp() * self.df / (self.df - 2)

    def weight(self, blobs: Blobs, x: Tensor) -> Tensor:
        z = (x - blobs[0]) * torch.exp(-blobs[1])
        return (self.df + 1) / (self.df + z.square())

    def sample(self, blobs: Blobs, states_PB: Tensor, generator: torch.Generator | None) -> Tensor:
        # Bailey 1994: sqrt(df (u^(-2/df) - 1)) cos(2 pi v) has Student's distribution.
        location, log_scale = (chosen(blob, states_PB) for blob in blobs)
        radius = (self.df * torch.expm1(-2 / self.df * uniform(location, generator).log())).sqrt()
        t = radius * torch.cos(2 * pi * uniform(location, generator))
        return location + t.to(location.dtype) * log_scale.exp()
