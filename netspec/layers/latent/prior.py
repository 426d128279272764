"""PriorLogProb: log density of latent variables under their prior."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from netspec import schema
from netspec.layers.base import Layer, Shape, between, register
from netspec.layers.latent.density import LOG_2PI, logistic, normal

NORMAL, MIXTURE, LOGISTIC = range(3)
"""PriorLogProbParameter.Family."""


@register("PriorLogProb")
class PriorLogProb(Layer):
    """y = log p(z) in nats, summed over a row: standard normal, a learned mixture of normals, or logistic.

    Shapes: bottoms z (K n, D, ...), K-major, and optionally a blob (K, n), such as log q, whose shape the top
    takes; without it K is num_samples; top (K, n). MIXTURE has `components` parts with diagonal covariances:
    blobs: logits of the parts' shares (C,), means (C, D), log variances (C, D), at first equal shares,
    mean_filler (default gaussian of deviation 1) and 0. NaN in z is NaN in its top. Raises SpecError where K
    does not divide the rows. Source: Mattei and Frellsen 2019; Harchaoui et al. 2018 for the mixture.
    """

    bottoms = between(1, 2)
    family, roles = "latent", ("features", "like")
    param_field = "prior_log_prob_param"

    def setup(self, *shapes: Shape) -> None:
        p, rows = self.param, shapes[0][0]
        if len(shapes[0]) < 2:
            self.fail(f"needs a bottom (K N, D, ...), found {shapes[0]}", "bottom", 0)
        if len(shapes) == 2 and (len(shapes[1]) != 2 or prod(shapes[1]) != rows):
            self.fail(f"needs a second bottom (K, N) with {rows} values, found {shapes[1]}", "bottom", 1)
        if len(shapes) == 1 and (p.num_samples < 1 or rows % p.num_samples):
            field = ("prior_log_prob_param", "num_samples")
            self.fail(f"num_samples {p.num_samples} does not divide the {rows} rows", *field)
        if p.family == MIXTURE:
            self.require(p.components >= 1, "components", "components must be at least 1")
            size, parts = prod(shapes[0][1:]), int(p.components)
            spread = schema.FillerParameter(type="gaussian", std=1)
            self.add_blob((parts,))
            self.add_blob((parts, size), p.mean_filler if p.HasField("mean_filler") else spread)
            self.add_blob((parts, size))

    def forward(self, *bottoms: Tensor) -> Tensor:
        z = bottoms[0].flatten(1)
        shape = bottoms[1].shape if len(bottoms) == 2 else (self.param.num_samples, -1)
        return self.log_prob(z).reshape(shape)

    def log_prob(self, z: Tensor) -> Tensor:
        """(rows,): log density of z (rows, D)."""
        if self.param.family == MIXTURE:
            shares, means, spreads = (self.blob(i) for i in range(3))
            parts = normal(z[:, None], means, spreads.exp()).sum(2)
            return (parts + shares.log_softmax(0)).logsumexp(1)
        if self.param.family == LOGISTIC:
            return logistic(z).sum(1)
        return -0.5 * (LOG_2PI + z.square()).sum(1)

    def draw(self, rows: int, size: int, like: Tensor) -> Tensor:
        """(rows, size): draws of the prior, with the device and dtype of `like`."""
        noise = torch.randn((rows, size), dtype=like.dtype, device=like.device)
        if self.param.family == MIXTURE:
            part = torch.multinomial(self.blob(0).softmax(0), rows, replacement=True)
            return self.blob(1)[part] + (0.5 * self.blob(2)[part]).exp() * noise
        if self.param.family == LOGISTIC:
            return torch.logit(torch.rand_like(noise), eps=1e-7)
        return noise

    def shares(self, z: Tensor) -> Tensor:
        """(rows, C): the posterior share of each part of a MIXTURE, which makes clusters."""
        shares, means, spreads = (self.blob(i) for i in range(3))
        parts = normal(z.flatten(1)[:, None], means, spreads.exp()).sum(2)
        return (parts + shares.log_softmax(0)).softmax(1)
