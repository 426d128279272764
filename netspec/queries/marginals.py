"""Posterior marginals of every latent variable, and what they say of the missing pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from netspec.errors import NetspecError
from netspec.layers.base import Layer
from netspec.queries.precision import refuse_impossible
from netspec.queries.tree import Tree, _forward


def marginals(tree: Tree, x: Tensor, y: Tensor | None = None) -> list[Tensor]:
    """p(state = m at a position | observed pixels): one blob (B, M, h, w) per level, from the leaf up to the class.

    y (B,): condition on these classes as well. Exact, in one upward and one backward pass: the gradient of log p with
    respect to the activation of a state is that state's posterior probability (Darwiche 2003; facts of a sum-product
    network with log inputs). A SUM pooling only copies its state to the cells of its windows: its two blobs say the
    same, and the list holds the lower one.
    """
    asked, x = tree.ready(x)
    return [probabilities.to(tree.dtype) for probabilities in posteriors(asked, x, y)]


def posteriors(tree: Tree, x: Tensor, y: Tensor | None) -> list[Tensor]:
    """`marginals` of evidence that is ready, in its precision."""
    with torch.no_grad():
        zeros = tuple(torch.zeros_like(value).requires_grad_() for value in tree.up(x))

    def score(bumps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        waiting = iter(bumps)

        def call(layer: Layer, value: Tensor) -> Tensor:
            return _forward(layer, value) + next(waiting)

        top = tree.up(x, call)[-1].flatten(1)
        if y is None:
            return torch.logsumexp(top, 1).sum(), top
        return top.gather(1, y.view(-1, 1)).sum(), top

    with torch.enable_grad():  # torch.func.grad would import torch's compiler
        total, top = score(zeros)
        gradients = torch.autograd.grad(total, zeros)
    refuse_impossible(top.detach(), y)
    return list(gradients)


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats of distributions along axis 1: (B, M, h, w) -> (B, h, w)."""
    nats: Tensor = torch.special.entr(probabilities).sum(1)
    return nats


def expected_completion(tree: Tree, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(E[pixel | observed], its standard deviation), both (B, C, H, W) in the units of x; observed pixels are
    unchanged, with deviation 0. From the leaf's posterior q: mean = sum_d q_d mean_d, variance = sum_d q_d (variance_d
    + (mean_d - mean)^2), in double precision. NaN where a missing value was never observed in training, so that nothing
    is known.
    """
    asked, ready = tree.ready(x)
    q = posteriors(asked, ready, y)[0]
    missing, mean = ready.isnan(), asked.leaf.mean_image(q)
    deviation = asked.leaf.variance_image(q, mean).clamp_min(0).sqrt()
    given = x.to(tree.dtype)
    return torch.where(missing, mean.to(given), given), torch.where(missing, deviation.to(given), 0.0)


def level_probabilities(tree: Tree, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(values (C, H, W, L), p(value | observed) (B, C, H, W, L)) of pixels that have finitely many values.

    An observed pixel has its own value with probability 1. Where a pixel has fewer levels than L, or none because it
    is continuous, values are NaN and probabilities 0. NetspecError when no pixel has levels.
    """
    asked, ready = tree.ready(x)
    levels = asked.leaf.level_image(posteriors(asked, ready, y)[0])
    if levels is None:
        raise NetspecError(
            f"{tree.leaf.spec} has continuous values: no list of them; ask for expected_completion"
        )
    values, probabilities = levels
    missing = ready.isnan().unsqueeze(4)
    apart = (ready.unsqueeze(4) - values).abs().nan_to_num(nan=torch.inf)
    own = torch.nn.functional.one_hot(apart.argmin(4), values.shape[3]).to(probabilities)
    own = torch.where(values.isnan(), 0.0, own)
    return values.to(tree.dtype), torch.where(missing, probabilities, own).to(tree.dtype)
