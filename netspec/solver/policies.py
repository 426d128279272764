"""Learning-rate policies: the global rate of each iteration as an exact float32.

Source: Caffe, src/caffe/solvers/sgd_solver.cpp (GetLearningRate), and the same file of the SimNets fork for `step_lr`
and `step_policy`, of SSD for "plateau", of Intel's for `warmup_iter`, of NVIDIA's for `rampup_interval`, `min_lr`,
`momentum_policy` and `weight_decay_policy`. Where the original computes in float32, so does this module, operation by
operation. "cosine" is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from netspec.errors import Position, Problem, SpecError, did_you_mean

F = np.float32
Policy = Callable[["LearningRate", int], float]

policies: dict[str, Policy] = {}
"""Function of (schedule, iteration) by the name written in `lr_policy`."""


def policy(function: Policy) -> Policy:
    policies[function.__name__] = function
    return function


class LearningRate:
    """The schedule of a SolverParameter. `current_step` counts drops so far; it is saved.

    Policy "plateau" needs `observe` in every iteration, before its rate is asked for.
    """

    def __init__(self, message: Any, at: Callable[..., Position | None] | None = None):
        """`at` gives the place of a field of `message` (a Document's `at`), for errors."""
        self.message = message
        self.current_step = 0
        self.lowest = torch.full((), math.inf, dtype=torch.float64)
        """Policy "plateau": the lowest loss so far."""
        self.last_event = 0
        """Policy "plateau": the iteration of the last new low, or of the last drop."""
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
                known = f"; known: {', '.join(policies)}"
                yield f"unknown lr_policy {name!r}{did_you_mean(name, policies)}{known}", "lr_policy"
        if name in ("step", "stepearly") and message.stepsize <= 0:
            yield f"lr_policy {name!r} needs stepsize > 0, found {message.stepsize}", "stepsize"
        if name == "multifixed" and not 0 < len(message.stagelr) == len(message.stageiter):
            counts = f"{len(message.stagelr)} stagelr values for {len(message.stageiter)} stageiter entries"
            yield f"lr_policy 'multifixed' needs a rate for each stage, found {counts}", "stagelr"
        if name in ("poly", "cosine") and message.max_iter <= 0:
            yield f"lr_policy {name!r} needs max_iter > 0, found {message.max_iter}", "max_iter"
        if name in ("poly", "cosine") and message.min_lr > message.base_lr:
            yield f"min_lr {message.min_lr:g} is above base_lr {message.base_lr:g}", "min_lr"
        if name == "plateau" and (not message.plateau_winsize or min(message.plateau_winsize) <= 0):
            sizes = ", ".join(map(str, message.plateau_winsize)) or "none"
            yield (
                f"lr_policy 'plateau' needs plateau_winsize > 0, one per drop, found {sizes}",
                "plateau_winsize",
            )
        if message.warmup_iter and message.rampup_interval:
            yield "warmup_iter and rampup_interval are two warm-ups; give one of them", "rampup_interval"
        for field in ("warmup_iter", "rampup_interval", "min_lr"):
            if getattr(message, field) < 0:
                yield f"{field} must be at least 0, found {getattr(message, field):g}", field
        if message.step_lr and len(message.step_lr) != len(message.stepvalue):
            text = f"{len(message.step_lr)} step_lr values for {len(message.stepvalue)} stepvalue entries"
            yield text, "step_lr", 0
            return
        for i, name in enumerate(message.step_policy[: len(message.step_lr)]):
            if name == "linear" and message.stepvalue[i] <= (message.stepvalue[i - 1] if i else 0):
                text = f"step_policy 'linear' needs a rising stepvalue, found {message.stepvalue[i]}"
                yield text, "stepvalue", i

    def next(self, iteration: int) -> float:
        """The rate of `iteration`; ask in order (multistep takes at most one step in an iteration)."""
        climbing = warm_up(self.message, iteration)
        rate = F(policies[self.message.lr_policy](self, iteration)) if climbing is None else climbing
        return float(max(rate, F(self.message.min_lr)))

    def peek(self, iteration: int) -> float:
        """The rate that `next` would give, without counting a step."""
        before = self.current_step, self.last_event
        rate = self.next(iteration)
        self.current_step, self.last_event = before
        return rate

    def observe(self, iteration: int, loss: float) -> None:
        """Take note of the loss of `iteration`, averaged over `average_loss`; only "plateau" and "stepearly" depend on
        it.
        """
        if self.observes and loss < float(self.lowest):
            self.lowest.fill_(loss)
            self.last_event = iteration

    @property
    def observes(self) -> bool:
        """Whether the rate depends on the loss."""
        return self.message.lr_policy in ("plateau", "stepearly")


def warm_up(message: Any, iteration: int) -> np.float32 | None:
    """The rate at the start of a run: on the way to base_lr, evenly (Intel's) or as the square (NVIDIA's).

    None once the policy decides. As in both, the policy then goes by the iteration, warm-up included.
    """
    base = F(message.base_lr)
    if iteration < message.warmup_iter:
        count, start = message.warmup_iter, F(message.warmup_start_lr)
        return F((F(iteration) * base + F(count - iteration) * start) / F(count))
    if iteration < message.rampup_interval:
        alpha, start = F(iteration) / F(message.rampup_interval), F(message.rampup_lr)
        return F(start + (base - start) * alpha * alpha)
    return None


def momentum_at(message: Any, iteration: int, rate: float) -> float:
    """The momentum of an iteration as `momentum_policy` says; `rate` is the iteration's."""
    base = F(message.momentum)
    if message.momentum_policy == "poly":
        share = power32(F(iteration) / F(message.max_iter), F(message.momentum_power))
        return float(base + (F(message.max_momentum) - base) * share)
    if message.momentum_policy == "opt":
        momentum = (1 - 0.5 * math.sqrt(rate)) ** 2
        return float(F(min(message.max_momentum, momentum) if message.HasField("max_momentum") else momentum))
    return float(message.momentum)


def decay_share(message: Any, iteration: int) -> float:
    """What share of `weight_decay` counts in an iteration, as `weight_decay_policy` says."""
    if message.weight_decay_policy == "poly":
        return float(power32(F(iteration) / F(message.max_iter), F(message.weight_decay_power)))
    return 1.0


def policy_problems(message: Any) -> Iterator[tuple[str, str]]:
    """(what is wrong, field) of the momentum, the weight decay and the layer-wise rates of NVIDIA's Caffe."""
    known = {"momentum_policy": ("fixed", "poly", "opt"), "weight_decay_policy": ("fixed", "poly"),
             "larc_policy": ("scale", "clip")}  # fmt: skip
    for field, names in known.items():
        name = getattr(message, field)
        if name not in names:
            yield f"unknown {field} {name!r}{did_you_mean(name, names)}; known: {', '.join(names)}", field
        elif name == "poly" and message.max_iter <= 0:
            yield f"{field} 'poly' needs max_iter > 0, found {message.max_iter}", "max_iter"
    if message.momentum_policy == "poly" and not 0 <= message.max_momentum < 1:
        yield f"max_momentum must be in [0, 1), found {message.max_momentum:g}", "max_momentum"
    if message.larc and not 0 < message.larc_eta < math.inf:
        yield f"larc_eta must be positive, found {message.larc_eta:g}", "larc_eta"


LINEAR = ("SGD", "Nesterov")
"""Types of solver in whose step the rate and the gradient are one factor."""


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
    """min_lr + (base_lr - min_lr) * (1 - iteration / max_iter)^power; min_lr from max_iter on"""
    m = schedule.message
    left = max(F(1) - F(iteration) / F(m.max_iter), F(0))
    return float((F(m.base_lr) - F(m.min_lr)) * power32(left, F(m.power)) + F(m.min_lr))


@policy
def cosine(schedule: LearningRate, iteration: int) -> float:
    """min_lr + (base_lr - min_lr) * (1 + cos(pi * share)) / 2, share of the iterations after the warm-up that are done

    Loshchilov and Hutter, "SGDR: Stochastic gradient descent with warm restarts" (2017), without restarts.
    """
    m = schedule.message
    first = max(m.warmup_iter, m.rampup_interval)
    share = min(1.0, (iteration - first) / max(1, m.max_iter - first))
    return float(m.min_lr + (m.base_lr - m.min_lr) * (1 + math.cos(math.pi * share)) / 2)


@policy
def plateau(schedule: LearningRate, iteration: int) -> float:
    """base_lr * gamma^d; drop d comes plateau_winsize[d - 1] iterations after the last new low of the loss, or drop"""
    m, step = schedule.message, schedule.current_step
    if step < len(m.plateau_winsize) and iteration >= schedule.last_event + m.plateau_winsize[step]:
        schedule.current_step += 1
        schedule.last_event = iteration
    return float(m.base_lr * power(m.gamma, schedule.current_step))


@policy
def stepearly(schedule: LearningRate, iteration: int) -> float:
    """base_lr * gamma^d; drop d comes where the loss had no new low, and no drop came, for stepsize iterations"""
    m = schedule.message
    if iteration >= schedule.last_event + m.stepsize:
        schedule.current_step += 1
        schedule.last_event = iteration
    return float(m.base_lr * power(m.gamma, schedule.current_step))


@policy
def multifixed(schedule: LearningRate, iteration: int) -> float:
    """stagelr[i] up to and with iteration stageiter[i]; the last one after that"""
    m = schedule.message
    stage = next((i for i, last in enumerate(m.stageiter) if iteration <= last), len(m.stageiter) - 1)
    schedule.current_step = stage
    return float(m.stagelr[stage])


@policy
def sigmoid(schedule: LearningRate, iteration: int) -> float:
    """base_lr / (1 + exp(-gamma * (iteration - stepsize))): gamma < 0 falls, gamma > 0 rises"""
    m = schedule.message
    exponent = float(F(-m.gamma) * (F(iteration) - F(m.stepsize)))
    rise = F(math.exp(exponent)) if exponent < 88 else F(math.inf)
    return float(F(m.base_lr) * (F(1) / (F(1) + rise)))
