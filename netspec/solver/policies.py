"""Learning-rate policies: the global rate of each iteration as an exact float32.

Source: Caffe, src/caffe/solvers/sgd_solver.cpp (GetLearningRate), and the same file of the SimNets fork for
`step_lr` and `step_policy`. Where the original computes in float32, so is done here, operation by operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from netspec.errors import Position, Problem, SpecError, did_you_mean

F = np.float32
Policy = Callable[["LearningRate", int], float]

policies: dict[str, Policy] = {}
"""Function of (schedule, iteration) by the name written in `lr_policy`."""


def policy(function: Policy) -> Policy:
    policies[function.__name__] = function
    return function


class LearningRate:
    """The schedule of a SolverParameter. `current_step` counts drops so far; it is saved."""

    def __init__(self, message: Any, at: Callable[..., Position | None] | None = None):
        """`at` gives the place of a field of `message` (a Document's `at`), for errors."""
        self.message = message
        self.current_step = 0
        problems = [Problem(text, at(*path) if at else None) for text, *path in self.problems()]
        if problems:
            raise SpecError(problems)

    def problems(self) -> Iterator[tuple[Any, ...]]:
        """(what is wrong, path of the field) for each mistake in the message."""
        message = self.message
        name = message.lr_policy
        if name not in policies:
            if not name:
                yield f"the solver needs lr_policy, one of {', '.join(policies)}", "lr_policy"
            else:
                yield f"unknown lr_policy {name!r}{did_you_mean(name, policies)}", "lr_policy"
        if name == "step" and message.stepsize <= 0:
            yield f"lr_policy 'step' needs stepsize > 0, found {message.stepsize}", "stepsize"
        if name == "poly" and message.max_iter <= 0:
            yield f"lr_policy 'poly' needs max_iter > 0, found {message.max_iter}", "max_iter"
        if message.step_lr and len(message.step_lr) != len(message.stepvalue):
            found = f"{len(message.step_lr)} step_lr values for {len(message.stepvalue)} stepvalue entries"
            yield found, "step_lr", 0
            return
        for i, name in enumerate(message.step_policy[: len(message.step_lr)]):
            if name == "linear" and message.stepvalue[i] <= (message.stepvalue[i - 1] if i else 0):
                found = f"step_policy 'linear' needs a rising stepvalue, found {message.stepvalue[i]}"
                yield found, "stepvalue", i

    def next(self, iteration: int) -> float:
        """The rate of `iteration`; ask in order (multistep takes at most one step in an iteration)."""
        return float(F(policies[self.message.lr_policy](self, iteration)))

    def peek(self, iteration: int) -> float:
        """The rate that `next` would give, without counting a step."""
        before = self.current_step
        rate = self.next(iteration)
        self.current_step = before
        return rate


def power(base: float, exponent: int) -> float:
    """base^exponent in double precision; infinite where that overflows."""
    try:
        return float(base**exponent)
    except OverflowError:
        return math.inf


def power32(base: np.float32, exponent: np.float32) -> np.float32:
    """powf: the power of two float32 numbers, rounded once; infinite or NaN where C's is."""
    with np.errstate(all="ignore"):
        try:
            return F(math.pow(float(base), float(exponent)))
        except (ValueError, OverflowError):  # Python's own complaint about a pole, a root of -1, an overflow
            return F(np.power(np.float64(base), np.float64(exponent)))


@policy
def fixed(schedule: LearningRate, iteration: int) -> float:
    """base_lr"""
    return float(schedule.message.base_lr)


@policy
def step(schedule: LearningRate, iteration: int) -> float:
    """base_lr * gamma^floor(iteration / stepsize)"""
    m = schedule.message
    schedule.current_step = iteration // m.stepsize
    return float(m.base_lr * power(m.gamma, schedule.current_step))


@policy
def exp(schedule: LearningRate, iteration: int) -> float:
    """base_lr * gamma^iteration"""
    return float(schedule.message.base_lr * power(schedule.message.gamma, iteration))


@policy
def inv(schedule: LearningRate, iteration: int) -> float:
    """base_lr * (1 + gamma * iteration)^-power"""
    m = schedule.message
    return float(F(m.base_lr) * power32(F(1) + F(m.gamma) * F(iteration), F(-m.power)))


@policy
def multistep(schedule: LearningRate, iteration: int) -> float:
    """base_lr * gamma^(number of stepvalues passed); with `step_lr` the rate each of them names instead."""
    m = schedule.message
    if schedule.current_step < len(m.stepvalue) and iteration >= m.stepvalue[schedule.current_step]:
        schedule.current_step += 1
    if m.step_lr:
        return between_steps(m, schedule.current_step, iteration)
    return float(m.base_lr * power(m.gamma, schedule.current_step))


def between_steps(m: Any, i: int, iteration: int) -> float:
    """Rate after i of the stepvalues: that of the last one passed, or on the way to the next ("linear")."""
    start = F(m.step_lr[i - 1] if i > 0 else m.base_lr)
    if i >= min(len(m.step_lr), len(m.step_policy)) or m.step_policy[i] != "linear":
        return float(start)
    since, until = (m.stepvalue[i - 1] if i > 0 else 0), m.stepvalue[i]
    alpha = F(iteration - since) / F(until - since)
    return float(start * (F(1) - alpha) + F(m.step_lr[i]) * alpha)


@policy
def poly(schedule: LearningRate, iteration: int) -> float:
    """base_lr * (1 - iteration / max_iter)^power; 0 from max_iter on"""
    m = schedule.message
    left = max(F(1) - F(iteration) / F(m.max_iter), F(0))
    return float(F(m.base_lr) * power32(left, F(m.power)))


@policy
def sigmoid(schedule: LearningRate, iteration: int) -> float:
    """base_lr / (1 + exp(-gamma * (iteration - stepsize))): gamma < 0 falls, gamma > 0 rises"""
    m = schedule.message
    exponent = float(F(-m.gamma) * (F(iteration) - F(m.stepsize)))
    rise = F(math.exp(exponent)) if exponent < 88 else F(math.inf)
    return float(F(m.base_lr) * (F(1) / (F(1) + rise)))
