"""SaltPepper, BernoulliSample, OrderlessMask: noise and masks drawn while a net runs."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from netspec.layers import ranks
from netspec.layers.base import Layer, Shape, between, register
from netspec.schema.spec import TRAIN


@register("SaltPepper")
class SaltPepper(Layer):
    """TRAIN: y = 0 or 1 with `probability`, x otherwise; TEST: y = x unless `in_test`.

    Shapes: top as bottom. A replaced value is 1 with probability `salt`; it gets no gradient, and where it
    was NaN it is 0 or 1. Random numbers: torch's generator of the device. Raises SpecError for a share
    outside [0, 1]. Source: Bengio et al. 2014 (generative stochastic networks).
    """

    family, roles = "pointwise", ("values",)
    param_field = "salt_and_pepper_param"

    def setup(self, *shapes: Shape) -> None:
        for name in ("probability", "salt"):
            self.require(0 <= getattr(self.param, name) <= 1, name, f"{name} is outside [0, 1]")

    @property
    def passes(self) -> bool:
        return self.phase != TRAIN and not self.param.in_test

    def forward(self, *bottoms: Tensor) -> Tensor:
        x = bottoms[0]
        if self.passes:
            return x
        hit = ranks.rand_like(x) < self.param.probability
        return torch.where(hit, (ranks.rand_like(x) < self.param.salt).to(x.dtype), x)


@register("BernoulliSample")
class BernoulliSample(Layer):
    """y = 1 with probability x, else 0, drawn anew in every forward, in TEST too.

    Shapes: top as bottom, which holds probabilities, or logits with `logits`. The gradient stops here, or
    with `straight_through` is that of the probability. NaN gives 0. Random numbers: torch's generator of the
    device. Source: Bengio et al. 2014.
    """

    family, roles = "pointwise", ("values",)
    param_field = "bernoulli_sample_param"

    def forward(self, *bottoms: Tensor) -> Tensor:
        p = bottoms[0].sigmoid() if self.param.logits else bottoms[0]
        drawn = (ranks.rand_like(p) < p).to(p.dtype)
        return drawn + (p - p.detach()) if self.param.straight_through else drawn


@register("OrderlessMask")
class OrderlessMask(Layer):
    """mask = 1 at k values of each row, chosen evenly, with k ~ U{least .. most}; weight = D / (D - k) at the
    others.

    Shapes: bottom x (N, ...), of which only the shape and NaN count; tops mask and weight as x, without
    gradient. D = the values of a row that are not NaN; `most` is D - 1 by default and at most. Where x is
    NaN both are 0. The weighted log density of the unknown values, averaged over masks, is that of a random
    order. Random numbers: torch's generator of the device, in TEST too. Raises SpecError for least > most or
    beyond the values of a row. Source: Uria, Murray and Larochelle 2014; Raiko et al. 2014 (NADE-k).
    """

    tops = between(1, 2)
    family, roles = "latent", ("like",)
    differentiable = False
    param_field = "orderless_mask_param"

    def setup(self, *shapes: Shape) -> None:
        size = prod(shapes[0][1:])
        self.least = int(self.param.least)
        self.most = int(self.param.most) if self.param.HasField("most") else size - 1
        if not 0 <= self.least <= self.most < size:
            text = f"least {self.least} and most {self.most} must rise within 0 .. {size - 1}"
            self.fail(text, "orderless_mask_param")

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        x = bottoms[0].detach()
        there = ~x.flatten(1).isnan()
        number = there.sum(1, keepdim=True).to(x.dtype)
        most = (number - 1).clamp(0, self.most)
        least = most.clamp(max=self.least)
        known = least + (ranks.rand_like(number) * (most - least + 1)).floor()
        draws = torch.where(there, ranks.rand_like(x.flatten(1)), 2.0)
        places = draws.argsort(1).argsort(1)
        mask = there & (places < known)
        weight = torch.where(there & ~mask, number / (number - known).clamp_min(1), 0.0)
        return (mask.to(x.dtype).reshape(x.shape), weight.reshape(x.shape))[: len(self.spec.tops)]
