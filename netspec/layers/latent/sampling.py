"""GaussianSample, StudentTSample: draws of a latent variable with their log density."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from netspec.layers import ranks
from netspec.layers.base import Layer, Shape, between, exactly, register
from netspec.layers.latent.density import DEVIATION, deviation_of, normal, student
from netspec.schema.spec import TRAIN

SAMPLE, MEAN = range(2)
"""LatentSampleParameter.Mode."""


class Sampler(Layer):
    """What both have: K draws for each row, K-major, and their log density; `draw` and `log_prob` for queries."""

    tops = between(1, 2)
    family, roles, alike = "latent", ("values",), True
    param_field = "latent_sample_param"

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        self.require(p.num_samples >= 1, "num_samples", "num_samples must be at least 1")
        for i, shape in enumerate(shapes):
            if shape != shapes[0] or len(shape) < 2:
                self.fail(
                    f"needs bottoms (N, D, ...) of one shape, found {shapes[0]} and {shape}", "bottom", i
                )
        tested = self.phase != TRAIN and p.HasField("test_mode")
        self.samples, self.mode = int(p.num_samples), int(p.test_mode if tested else p.mode)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        z = self.draw(self.samples, *bottoms) if self.mode == SAMPLE else repeat(bottoms[0], self.samples)
        return (z, self.log_prob(z, *bottoms))[: len(self.spec.tops)]

    @abstractmethod
    def draw(self, count: int, *bottoms: Tensor) -> Tensor:
        """(count n, ...): draws given the parameters, with gradients to them."""

    @abstractmethod
    def density(self, z_KND: Tensor, *bottoms: Tensor) -> Tensor:
        """Log density of z (K, n, ...) value by value, given parameters (n, ...)."""

    def log_prob(self, z: Tensor, *bottoms: Tensor) -> Tensor:
        """(K, n): log density of z (K n, ...) in nats, summed over all axes but the rows."""
        n = bottoms[0].shape[0]
        z_KND = z.reshape(z.shape[0] // n, *bottoms[0].shape)
        return self.density(z_KND, *bottoms).flatten(2).sum(2)


def repeat(x: Tensor, count: int) -> Tensor:
    """(count n, ...): `x` (n, ...) again and again."""
    return x if count == 1 else x.repeat(count, *(1 for _ in x.shape[1:]))


def noise_of(count: int, x: Tensor) -> Tensor:
    """(count, *x.shape): draws of N(0, 1), those of each row its own."""
    shape = (count, *x.shape)
    return ranks.drawn(lambda rows: torch.randn(rows, dtype=x.dtype, device=x.device), shape, 1)


@register("GaussianSample")
class GaussianSample(Sampler):
    """z = mu + sigma * e with e ~ N(0, 1): `num_samples` draws for each row, and their log density.

    Shapes: bottoms mu and spread (n, D, ...), which holds log sigma^2, sigma or sigma^2 as `spread` says;
    tops z (K n, D, ...), K-major, and log q (K, n) in nats, summed over a row. `mode` MEAN gives z = mu, K
    times; `test_mode` is the mode in phase TEST. Gradients go to mu and sigma through the draw and through
    log q. Random numbers: torch's generator of the device. NaN in a bottom is NaN in its row. Raises
    SpecError for bottoms of different shapes and for num_samples 0. Source: Kingma and Welling 2014; Burda,
    Grosse and Salakhutdinov 2016 for K draws.
    """

    bottoms = exactly(2)

    def draw(self, count: int, *bottoms: Tensor) -> Tensor:
        mu, spread = bottoms
        noise = noise_of(count, mu)
        return (mu + deviation_of(spread, self.param.spread) * noise).flatten(0, 1)

    def density(self, z_KND: Tensor, *bottoms: Tensor) -> Tensor:
        mu, spread = bottoms
        return normal(z_KND, mu, deviation_of(spread, self.param.spread).square())


@register("StudentTSample")
class StudentTSample(Sampler):
    """z = location + scale * t with t ~ Student's t of `df` degrees: `num_samples` draws for each row, and
    their log density.

    Shapes: bottoms location, scale > 0 and df > 0 (n, D, ...); tops z (K n, D, ...), K-major, and log q (K,
    n) in nats, summed over a row. `mode` MEAN gives the location. Gradients go to all three, to df by
    implicit reparametrisation of the gamma distribution. Random numbers: torch's generator of the device.
    Raises SpecError for bottoms of different shapes, num_samples 0, and a `spread` other than the default.
    Source: Mattei and Frellsen 2019; Figurnov, Mohamed and Mnih 2018.
    """

    bottoms = exactly(3)

    def setup(self, *shapes: Shape) -> None:
        super().setup(*shapes)
        if self.param.HasField("spread") and self.param.spread != DEVIATION:
            self.fail("the second bottom is the scale; leave spread out", "spread")

    def draw(self, count: int, *bottoms: Tensor) -> Tensor:
        location, scale, df = bottoms
        half = (df / 2).expand(count, *df.shape)
        tiny = torch.finfo(df.dtype).tiny
        gamma = torch._standard_gamma(half).clamp_min(tiny)
        noise = noise_of(count, df)
        return (location + scale * noise * torch.rsqrt(gamma / half)).flatten(0, 1)

    def density(self, z_KND: Tensor, *bottoms: Tensor) -> Tensor:
        return student(z_KND, *bottoms)
