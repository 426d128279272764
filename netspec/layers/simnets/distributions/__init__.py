"""Distributions of the values under a leaf, by the name written in `kind`; this package registers all of them."""

from __future__ import annotations

from netspec.layers.simnets.distributions.base import Distribution, chosen, kinds
from netspec.layers.simnets.distributions.counts import Poisson
from netspec.layers.simnets.distributions.levels import Bernoulli, Binomial, Categorical, DiscretisedLogistic
from netspec.layers.simnets.distributions.located import Gaussian, StudentT

__all__ = [
    "Bernoulli",
    "Binomial",
    "Categorical",
    "DiscretisedLogistic",
    "Distribution",
    "Gaussian",
    "Poisson",
    "StudentT",
    "chosen",
    "kinds",
]
