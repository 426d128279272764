"""Posterior marginals of every latent variable, and what they say of the missing pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from netspec.layers.base import Layer
from netspec.queries.tree import Tree, _forward


def marginals(tree: Tree, x: Tensor, y: Tensor | None = None) -> list[Tensor]:
    """p(state = m at a position | observed pixels), one blob (B, M, h, w) a level from the leaf up to the class.

    y (B,): condition on these classes as well. Exact, in one upward and one backward pass: the gradient of log p with
    respect to the activation of a state is that state's posterior probability (Darwiche 2003; facts of a sum-product
    network with log inputs). Blobs that a SUM pooling only spreads are given once, under the level below.
    """
    zeros = tuple(torch.zeros_like(value) for value in tree.up(x))

    def score(bumps: tuple[Tensor, ...]) -> Tensor:
        waiting = iter(bumps)

        def call(layer: Layer, value: Tensor) -> Tensor:
            return _forward(layer, value) + next(waiting)

        top = tree.up(x, call)[-1].flatten(1)
        if y is None:
            return torch.logsumexp(top, 1).sum()
        return top.gather(1, y.view(-1, 1)).sum()

    found: tuple[Tensor, ...] = torch.func.grad(score)(zeros)
    return list(found)


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats of distributions along axis 1: (B, M, h, w) -> (B, h, w)."""
    found: Tensor = torch.special.entr(probabilities).sum(1)
    return found


def expected_completion(tree: Tree, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(E[pixel | observed], its standard deviation), both (B, C, H, W); observed pixels as they are, with deviation 0.

    Units of x. From the leaf's posterior: mean = sum_d q_d t_d, variance = sum_d q_d (t_d^2 + 1/w_d) - mean^2.
    """
    q = marginals(tree, x, y)[0]
    missing = x.isnan()
    mean, square = tree.leaf.mean_image(q), tree.leaf.square_image(q)
    deviation = (square - mean.square()).clamp_min(0).sqrt()
    return torch.where(missing, mean, x), torch.where(missing, deviation, 0.0)
