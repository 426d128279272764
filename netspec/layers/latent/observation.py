"""ObservationLogProb: log density of what was observed under a decoder's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, between, register
from netspec.layers.latent.density import bernoulli, deviation_of, normal, student, variance_of

BERNOULLI, GAUSSIAN, STUDENT_T = range(3)
"""ObservationLogProbParameter.Family."""
PARAMETERS = {BERNOULLI: 1, GAUSSIAN: 2, STUDENT_T: 3}
"""Bottoms that hold parameters, by family."""


@register("ObservationLogProb")
class ObservationLogProb(Layer):
    """y = sum over the observed values of a row of log p(x | parameters), in nats.

    Shapes: the family's parameters (K n, ...), K-major, then data (n, ...) with as many values a row, then
    optionally a mask of the data's shape or with one channel for all; top (K, n). BERNOULLI: logits; data in
    [0, 1]. GAUSSIAN: mean, spread (log variance, deviation or variance as `spread` says); `floor` is added to
    each variance, so that the likelihood has an upper bound. STUDENT_T: location, scale > 0, degrees > 0;
    `floor` is added to each scale. A value is missing where the data is NaN or the mask 0 or NaN, and gets
    and gives no gradient; other values of the mask are factors of the log density. Raises SpecError for a
    wrong number of bottoms or rows that do not fit. Source: Mattei and Frellsen 2018 (floor) and 2019.
    """

    bottoms = between(2, 5)
    family, roles = "latent", ("values",)
    param_field = "observation_log_prob_param"

    def setup(self, *shapes: Shape) -> None:
        self.law = int(self.param.family)
        self.given = PARAMETERS[self.law]
        if not self.given < len(shapes) <= self.given + 2:
            name = self.param.Family.Name(self.law)
            text = f"{name} takes {self.given} bottoms of parameters, then data and perhaps a mask"
            self.fail(f"{text}; found {len(shapes)} bottoms", "bottom", 0)
        data = shapes[self.given]
        for i, shape in enumerate(shapes[: self.given]):
            if shape[0] % max(data[0], 1) or prod(shape[1:]) != prod(data[1:]):
                self.fail(f"parameters {shape} do not fit data {data}: rows (K N), equal values", "bottom", i)
        if len(shapes) > self.given + 1:
            mask = shapes[-1]
            single = (data[0], 1, *data[2:])
            if mask not in (data, single) and (mask[0] != data[0] or prod(mask) != prod(data)):
                self.fail(f"mask {mask} does not fit data {data}", "bottom", len(shapes) - 1)
        self.require(self.param.floor >= 0, "floor", "floor must not be negative")

    def forward(self, *bottoms: Tensor) -> Tensor:
        data = bottoms[self.given]
        weight = None
        if len(bottoms) > self.given + 1:
            mask = bottoms[-1].detach()
            weight = mask.expand(data.shape) if mask.dim() == data.dim() else mask
            weight = weight.reshape(data.shape[0], -1)
        return self.log_prob(bottoms[: self.given], data, weight)

    def log_prob(self, parameters: Sequence[Tensor], data: Tensor, weight: Tensor | None = None) -> Tensor:
        """(K, n): the log density; weight (n, values) is 0 or NaN where missing."""
        x = data.flatten(1)
        n = x.shape[0]
        seen = ~x.isnan()
        if weight is not None:
            seen = seen & ~weight.isnan() & (weight != 0)
        safe = torch.where(seen, x, 0.0)
        held = [p.reshape(p.shape[0] // n, n, -1) for p in parameters]
        neutral = (0.0, self.one(), 1.0)
        held = [torch.where(seen, p, value) for p, value in zip(held, neutral, strict=False)]
        logp_KND = self.density(safe, held)
        if weight is not None:
            logp_KND = logp_KND * torch.where(seen, weight, 0.0)
        return torch.where(seen, logp_KND, 0.0).sum(2)

    def one(self) -> float:
        """A spread that stands at missing values, where anything finite will do."""
        return 0.0 if self.law == GAUSSIAN and self.param.spread == 0 else 1.0

    def density(self, x: Tensor, held: Sequence[Tensor]) -> Tensor:
        """Log density value by value."""
        floor = float(self.param.floor)
        if self.law == BERNOULLI:
            return bernoulli(x, held[0])
        if self.law == GAUSSIAN:
            return normal(x, held[0], variance_of(held[1], self.param.spread) + floor)
        return student(x, held[0], held[1] + floor, held[2])

    def mean(self, parameters: Sequence[Tensor]) -> Tensor:
        """The expected value of an observation, in the shape of the parameters."""
        return parameters[0].sigmoid() if self.law == BERNOULLI else parameters[0]

    def draw(self, parameters: Sequence[Tensor]) -> Tensor:
        """One draw of an observation, in the shape of the parameters."""
        first, floor = parameters[0], float(self.param.floor)
        if self.law == BERNOULLI:
            return (torch.rand_like(first) < first.sigmoid()).to(first.dtype)
        noise = torch.randn_like(first)
        if self.law == GAUSSIAN:
            if floor:
                return first + (variance_of(parameters[1], self.param.spread) + floor).sqrt() * noise
            return first + deviation_of(parameters[1], self.param.spread) * noise
        half = parameters[2] / 2
        chi = torch._standard_gamma(half).clamp_min(torch.finfo(first.dtype).tiny) / half
        return first + (parameters[1] + floor) * noise * torch.rsqrt(chi)
