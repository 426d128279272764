"""DiffusionForward, DiffusionReverse, TemporalReadout: a diffusion probabilistic model's ends."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from netspec.layers import ranks
from netspec.layers.base import Layer, Shape, between, exactly, register


def betas(steps: int, least: float, first: float) -> Tensor:
    """(T,) float64: the variance that each step adds; each step destroys an equal share of the signal."""
    base = 1 / torch.linspace(steps, 2, steps, dtype=torch.float64)
    floor = torch.full((steps,), least, dtype=torch.float64)
    floor[0] += first
    return floor + base * (1 - floor - 1e-5)


def at(table: Tensor, t: Tensor, rank: int) -> Tensor:
    """(N, 1, ...): the entries of a table at steps t (N,), to go with a blob of so many axes."""
    return table[t.long()].reshape(-1, *(1 for _ in range(rank - 1)))


class OfDiffusion(Layer):
    """What both ends share: the steps' variances beta and the shares of the signal that are left."""

    family, roles = "latent", ("values",)
    param_field = "diffusion_forward_param"
    beta: Tensor
    left: Tensor

    def read_steps(self) -> None:
        p = self.param
        self.require(p.steps >= 2, "steps", "steps must be at least 2")
        self.positive("steps", most=self.MOST_ENTRIES)
        beta = betas(int(p.steps), float(p.min_beta), float(p.first_beta))
        self.register_buffer("beta", beta.float(), persistent=False)
        self.register_buffer("left", (1 - beta).cumprod(0).float(), persistent=False)


@register("DiffusionForward")
class DiffusionForward(OfDiffusion):
    """x_t = sqrt(s_t) x + sqrt(1 - s_t) e, and the normal density of x_(t-1) given x_t and x.

    Shapes: bottom x (N, ...) of mean 0 and variance 1; tops x_t, the posterior's mean (N, ...) and variance
    (N, 1, ...), and t (N,) counted from 0. s_t is the product of 1 - beta up to t; beta_t = f_t + (1 - f_t -
    1e-5) / linspace(T, 2, T)_t with f_t = min_beta, in the first step plus first_beta. t ~ U{1 .. T - 1}, one
    for the batch, or with each_row one a row. Random numbers: torch's generator of the device, in TEST too.
    NaN stays NaN. Raises SpecError for less than 2 steps. Source: Sohl-Dickstein et al. 2015.
    """

    tops = between(1, 4)

    def setup(self, *shapes: Shape) -> None:
        if len(shapes[0]) < 2:
            self.fail(f"needs a bottom (N, D, ...), found {shapes[0]}", "bottom", 0)
        self.read_steps()

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        x, steps = bottoms[0], int(self.param.steps)
        if self.param.each_row:
            t = ranks.drawn(lambda rows: torch.randint(1, steps, rows, device=x.device), x.shape[:1])
        else:
            t = torch.randint(1, steps, (1,), device=x.device).expand(x.shape[0])
        return (*self.corrupted(x, t), t.to(x.dtype).clone())[: len(self.spec.tops)]

    def corrupted(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x_t, and mean and variance of x_(t-1) given x_t and x, at steps t (N,)."""
        left, beta = at(self.left, t, x.dim()), at(self.beta, t, x.dim())
        before = at(self.left, t - 1, x.dim())
        noisy = left.sqrt() * x + (1 - left).sqrt() * ranks.randn_like(x)
        # Two normal densities of x_(t-1), from x and from x_t, multiplied.
        v1, v2 = 1 - before, beta / (1 - beta)
        variance = 1 / (1 / v1 + 1 / v2)
        mean = variance * (x * before.sqrt() / v1 + noisy / (1 - beta).sqrt() / v2)
        return noisy, mean, variance


@register("DiffusionReverse")
class DiffusionReverse(OfDiffusion):
    """mean = x_t sqrt(1 - beta_t) + m sqrt(beta_t); variance = sigmoid(b / sqrt(T) + logit beta_t): the model's
    density of x_(t-1) given x_t.

    Shapes: bottoms x_t, m and b (N, ...) alike, t (N,) counted from 0; tops mean and variance as x_t. steps,
    min_beta and first_beta as of DiffusionForward. NaN spreads. Raises SpecError for shapes that differ.
    Source: Sohl-Dickstein et al. 2015.
    """

    bottoms, tops = exactly(4), exactly(2)

    def setup(self, *shapes: Shape) -> None:
        for i, shape in enumerate(shapes[1:3], 1):
            if shape != shapes[0]:
                self.fail(f"needs a bottom of shape {shapes[0]}, found {shape}", "bottom", i)
        if shapes[3] != shapes[0][:1]:
            self.fail(f"needs steps {shapes[0][:1]}, found {shapes[3]}", "bottom", 3)
        self.read_steps()

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        x, m, b, t = bottoms
        beta = at(self.beta, t.detach(), x.dim())
        mean = x * (1 - beta).sqrt() + m * beta.sqrt()
        return mean, (b / sqrt(self.param.steps) + torch.logit(beta)).sigmoid()


@register("TemporalReadout")
class TemporalReadout(Layer):
    """y_g = sum_j f_j(t) x_(g, j): `bumps` coefficients of each output, weighted by normal bumps over the time t.

    Shapes: bottoms x (N, G bumps, ...), ordered output, bump, and t (N,), a step 0 .. T - 1; top (N, G, ...).
    Centres lie evenly from the first to the last step; a bump's deviation is half the distance of two
    centres; at each step the bumps sum to 1. NaN spreads. Raises SpecError where bumps does not divide the
    channels and for less than 2 bumps. Source: Sohl-Dickstein et al. 2015, appendix.
    """

    bottoms = exactly(2)
    family, roles = "latent", ("values",)
    param_field = "temporal_readout_param"
    basis: Tensor

    def setup(self, *shapes: Shape) -> None:
        p, x = self.param, shapes[0]
        if p.bumps < 2 or p.steps < 2:
            self.fail("bumps and steps must be at least 2", "bumps")
        self.positive("bumps", "steps", most=self.MOST_ENTRIES)
        if len(x) < 2 or x[1] % p.bumps:
            self.fail(f"bumps {p.bumps} does not divide the channels of {x}", "bumps")
        if shapes[1] != x[:1]:
            self.fail(f"needs steps {x[:1]}, found {shapes[1]}", "bottom", 1)
        times = torch.linspace(-1, 1, int(p.steps), dtype=torch.float64)
        centres = torch.linspace(-1, 1, int(p.bumps), dtype=torch.float64)
        width = 1 / (int(p.bumps) - 1)
        bumps = (-0.5 * ((times[:, None] - centres) / width).square()).exp()
        self.register_buffer("basis", (bumps / bumps.sum(1, keepdim=True)).float(), persistent=False)

    def forward(self, *bottoms: Tensor) -> Tensor:
        x, t = bottoms
        shaped = x.reshape(x.shape[0], -1, int(self.param.bumps), *x.shape[2:])
        weights = self.basis[t.detach().long()]
        return (shaped * weights.reshape(x.shape[0], 1, -1, *(1 for _ in x.shape[2:]))).sum(2)
