"""Log densities of normal, Student t and Bernoulli values, and how a spread is written."""

from __future__ import annotations

from math import log, pi

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

LOG_VARIANCE, DEVIATION, VARIANCE = range(3)
"""Spread of netspec.proto."""
LOG_2PI = log(2 * pi)


def variance_of(spread: Tensor, written: int) -> Tensor:
    """The variance that a blob holds as LOG_VARIANCE, DEVIATION or VARIANCE."""
    if written == LOG_VARIANCE:
        return spread.exp()
    return spread.square() if written == DEVIATION else spread


def deviation_of(spread: Tensor, written: int) -> Tensor:
    """The standard deviation that a blob holds as LOG_VARIANCE, DEVIATION or VARIANCE."""
    if written == LOG_VARIANCE:
        return (0.5 * spread).exp()
    return spread if written == DEVIATION else spread.sqrt()


def normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(x; mean, variance), value by value."""
    return -0.5 * (LOG_2PI + variance.log() + (x - mean).square() / variance)


def student(x: Tensor, location: Tensor, scale: Tensor, df: Tensor) -> Tensor:
    """log St(x; location, scale, df), value by value."""
    square = ((x - location) / scale).square()
    constant = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * (df * pi).log() - scale.log()
    return constant - (df + 1) / 2 * torch.log1p(square / df)


def bernoulli(x: Tensor, logit: Tensor) -> Tensor:
    """x log sigmoid(l) + (1 - x) log sigmoid(-l), value by value; x may lie between 0 and 1."""
    return x * logit + logsigmoid(-logit)


def logistic(x: Tensor) -> Tensor:
    """Log density of the standard logistic distribution: log sigmoid(x) + log sigmoid(-x), value by value."""
    return logsigmoid(x) + logsigmoid(-x)
