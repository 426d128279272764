"""Log-likelihoods and the posterior over classes, with any pixels missing."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from netspec.queries.tree import Tree


def class_log_likelihood(tree: Tree, x: Tensor) -> Tensor:
    """log p(observed pixels of x | y) for every class y: (B, Y), nats. x (B, C, H, W), NaN = missing.

    Exact: missing pixels are integrated out in the one upward pass (Sharir et al. 2018, eq. 5). 0 where all are.
    """
    return tree.up(x)[-1].flatten(1)


def log_likelihood(tree: Tree, x: Tensor) -> Tensor:
    """log p(observed pixels of x), y integrated out under its uniform prior: (B,), nats."""
    return torch.logsumexp(class_log_likelihood(tree, x), 1) - log(tree.classes)


def posterior(tree: Tree, x: Tensor) -> Tensor:
    """p(y | observed pixels of x): (B, Y), rows sum to 1; the uniform distribution where all pixels are missing."""
    return torch.softmax(class_log_likelihood(tree, x), 1)


def log_posterior(tree: Tree, x: Tensor) -> Tensor:
    """log p(y | observed pixels of x): (B, Y), nats; finite where `posterior` rounds to 0."""
    return torch.log_softmax(class_log_likelihood(tree, x), 1)


def bits_per_dimension(tree: Tree, x: Tensor, unit: float = 1.0) -> Tensor:
    """-log2 p(observed pixels) for each observed value: (B,), bits. NaN where nothing is observed.

    unit: size of one grey level in the units of x (1/255 where x is pixels / 255), to count bits of the discretised
    image: the density times `unit` stands for the probability of a level.
    """
    observed = (~x.isnan()).flatten(1).sum(1)
    bits = -(log_likelihood(tree, x) / observed + log(unit)) / log(2)
    return torch.where(observed > 0, bits, torch.nan)
