"""Log-likelihoods and the posterior over classes, with any pixels missing."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from netspec.queries.precision import refuse_impossible
from netspec.queries.tree import Tree


def class_log_likelihood(tree: Tree, x: Tensor) -> Tensor:
    """log p(observed pixels of x | y) for every class y: (B, Y), nats. x (B, C, H, W), NaN = missing.

    Exact: missing pixels are integrated out in the one upward pass (Sharir et al. 2018, eq. 5). 0 where all pixels are
    missing. Discrete leaves give log probabilities, others log densities. Computed in double precision where single
    would be too coarse. DataError for impossible evidence: a value outside the leaf's range, or one of probability 0
    under every class.
    """
    return scores(tree, x, exact=False, given=True).to(tree.dtype)


def scores(tree: Tree, x: Tensor, exact: bool = True, given: bool = False) -> Tensor:
    """log p(observed | y): (B, Y), in the precision of the computation; log p(observed, y) for a `joint` tree, unless
    the class is `given`.
    """
    tree, x = tree.ready(x, exact)
    values = tree.up(x)
    refuse_impossible(values[-1].flatten(1), None)
    return values[-2 if tree.joint and given else -1].flatten(1)


def log_likelihood(tree: Tree, x: Tensor) -> Tensor:
    """log p(observed pixels of x), y integrated out under its prior (uniform, or ClassPrior's): (B,), nats."""
    uniform = 0.0 if tree.joint else log(tree.classes)
    return (torch.logsumexp(scores(tree, x, exact=False), 1) - uniform).to(tree.dtype)


def posterior(tree: Tree, x: Tensor) -> Tensor:
    """p(y | observed pixels of x): (B, Y), rows sum to 1; the classes' prior where all pixels are missing."""
    return torch.softmax(scores(tree, x), 1).to(tree.dtype)


def log_posterior(tree: Tree, x: Tensor) -> Tensor:
    """log p(y | observed pixels of x): (B, Y), nats; finite where `posterior` rounds to 0."""
    return torch.log_softmax(scores(tree, x), 1).to(tree.dtype)


def bits_per_dimension(tree: Tree, x: Tensor, unit: float = 1.0) -> Tensor:
    """-log2 p(observed pixels) for each observed value: (B,), bits. NaN where nothing is observed.

    With discrete leaves it is a code length: the bits that an ideal coder spends on each value. With other leaves p is
    a density, and this is no code length (it falls without end as densities narrow around values that repeat): a
    density times `unit`, the size of one grey level in the units of x (1/255 where x is pixels / 255), stands for the
    probability of a level.
    """
    observed = (~x.isnan()).flatten(1).sum(1)
    more = 0.0 if tree.leaf.discrete else log(unit)
    bits = -(log_likelihood(tree, x) / observed + more) / log(2)
    return torch.where(observed > 0, bits, torch.nan)
