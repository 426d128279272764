"""Regularisation: what weight decay adds to the gradients, in linear and in log space.

A term is a function (values, gradients, decay, logspace) -> gradients over lists of tensors; d is the decay,
`weight_decay` times the parameter's `decay_mult`. Log space (`is_logspace`): a parameter x stands for exp(x).
Sources: Caffe, sgd_solver.cpp (Regularize); the SimNets fork for log space and L2_Smoothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Tensors = list[Tensor] | tuple[Tensor, ...]
Term = Callable[[Tensors, Tensors, float, bool], list[Tensor]]

terms: dict[str, Term] = {}
"""Function of a term by its name in `regularization_type`."""


def term(name: str) -> Callable[[Term], Term]:
    def add(function: Term) -> Term:
        terms[name] = function
        return function

    return add


@term("L2")
def l2(values: Tensors, gradients: Tensors, decay: float, logspace: bool) -> list[Tensor]:
    """g + d x; in log space g + 2 d exp(2x), the gradient of d sum exp(x)^2."""
    if not logspace:
        return plus(gradients, values, decay)
    # One by one: the compiler fuses exp, but calls _foreach_exp as it is.
    return plus(gradients, [torch.exp(2.0 * value) for value in values], 2 * decay)


@term("L1")
def l1(values: Tensors, gradients: Tensors, decay: float, logspace: bool) -> list[Tensor]:
    """g + d sign(x), in log space too."""
    return plus(gradients, torch._foreach_sign(values), decay)


@term("L2_Smoothing")
def l2_smoothing(values: Tensors, gradients: Tensors, decay: float, logspace: bool) -> list[Tensor]:
    """g + 2d (2x_i - x_(i-1) - x_(i+1)) along the last axis; at its ends the missing neighbour is x_i itself.

    In log space g + 2d (2 exp(2x_i) - exp(x_(i-1) + x_i) - exp(x_(i+1) + x_i)).
    """
    return plus(gradients, [roughness(value, logspace) for value in values], 2 * decay)


def roughness(x: Tensor, logspace: bool) -> Tensor:
    """Twice each value less its two neighbours; in log space the products of exp(x) that belong to it."""
    x = x if x.dim() else x.view(1)
    before = torch.cat((x[..., :1], x[..., :-1]), -1)
    after = torch.cat((x[..., 1:], x[..., -1:]), -1)
    if logspace:
        return 2 * (2 * x).exp() - (before + x).exp() - (after + x).exp()
    return 2 * x - before - after


def plus(gradients: Tensors, additions: Tensors, factor: float) -> list[Tensor]:
    """gradients + factor * additions, as new tensors."""
    return list(torch._foreach_add(gradients, additions, alpha=factor))
