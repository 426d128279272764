"""Update rules: how regularised gradients and their history move the parameters.

A rule works on lists of tensors at once (torch._foreach_...): a step costs a handful of kernels however many
blobs there are. g gradient, w value, lr = rate * lr_mult, t = iteration + 1; b1 `momentum`, b2 `momentum2`.
Numbers that change from step to step come as floats, or as 0-d tensors where the update is compiled: a float
would be burnt into the compiled code. Gradients are never written to.
Sources: Caffe, src/caffe/solvers/*.cpp; the SimNets fork for Nadam, SMORMS3 and DirectionalAdam.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

Number = float | Tensor
Tensors = list[Tensor] | tuple[Tensor, ...]
History = Sequence[Tensors]
RuleClass = TypeVar("RuleClass", bound="type[Rule]")

rules: dict[str, type[Rule]] = {}
"""Class of a rule by the name written in `type`."""


def register(cls: RuleClass) -> RuleClass:
    rules[cls.__name__] = cls
    return cls


def history_of(kind: str) -> int:
    """How many tensors the rule of a solver type keeps beside each parameter; 0 where there is no such type."""
    return len(rules[kind].slots) if kind in rules else 0


class Rule:
    """One `type` of solver. `slots` names its history tensors, shaped as the parameter, first `start`."""

    slots: ClassVar[tuple[str, ...]] = ("h",)
    start: ClassVar[dict[str, float]] = {}
    """First value of a slot, where it is not 0."""
    uses_momentum: ClassVar[bool] = True

    def __init__(self, message: Any):
        self.momentum: float = message.momentum
        self.momentum2: float = message.momentum2
        self.delta: float = message.delta
        self.rms_decay: float = message.rms_decay
        if message.strict and not message.HasField("rms_decay"):
            self.rms_decay = 0.0  # the fork's schema has no default for it

    def problems(self) -> Iterator[tuple[str, str]]:
        """(field, what is wrong with it) for values that the rule cannot work with."""
        kind = type(self).__name__
        for name in ("momentum", "momentum2", "rms_decay"):
            if not 0 <= getattr(self, name) < 1:
                yield name, f"type {kind!r} needs {name} in [0, 1), found {getattr(self, name):g}"
        if self.momentum and not self.uses_momentum:
            yield "momentum", f"type {kind!r} has no momentum, found {self.momentum:g}"

    def scalars(self, t: int) -> tuple[float, ...]:
        """Numbers of step t (from 1) that do not depend on the parameter."""
        return ()

    def update(self, w: Tensors, g: Tensors, history: History, lr: Number, scalars: Sequence[Number]) -> None:
        """Change the values `w` and their history in place."""
        raise NotImplementedError


@register
class SGD(Rule):
    """h = b1 h + lr g; w -= h. The rate is part of the history: lowering the rate does not change what was gathered."""

    def update(self, w: Tensors, g: Tensors, history: History, lr: Number, scalars: Sequence[Number]) -> None:
        (h,) = history
        torch._foreach_mul_(h, scalars[0] if scalars else self.momentum)
        add_(h, lr, g)
        torch._foreach_sub_(w, h)


@register
class Nesterov(Rule):
    """h' = b1 h + lr g; w -= (1 + b1) h' - b1 h."""

    def update(self, w: Tensors, g: Tensors, history: History, lr: Number, scalars: Sequence[Number]) -> None:
        (h,) = history
        if scalars:  # a momentum of this step's own
            torch._foreach_add_(w, torch._foreach_mul(h, scalars[0]))
            torch._foreach_mul_(h, scalars[0])
            add_(h, lr, g)
            torch._foreach_sub_(w, torch._foreach_mul(h, 1 + scalars[0]))
            return
        torch._foreach_add_(w, h, alpha=self.momentum)
        torch._foreach_mul_(h, self.momentum)
        add_(h, lr, g)
        torch._foreach_sub_(w, h, alpha=1 + self.momentum)


@register
class AdaGrad(Rule):
    """h += g^2; w -= lr g / (sqrt(h) + delta)."""

    uses_momentum = False

    def update(self, w: Tensors, g: Tensors, history: History, lr: Number, scalars: Sequence[Number]) -> None:
        (h,) = history
        torch._foreach_addcmul_(h, g, g)
        descend_(w, lr, g, root_plus(h, self.delta))


@register
class RMSProp(Rule):
    """h = d h + (1 - d) g^2 with d = rms_decay; w -= lr g / (sqrt(h) + delta)."""

    uses_momentum = False

    def update(self, w: Tensors, g: Tensors, history: History, lr: Number, scalars: Sequence[Number]) -> None:
        (h,) = history
        average_(h, self.rms_decay, g, g)
        descend_(w, lr, g, root_plus(h, self.delta))


@register
class AdaDelta(Rule):
    """h = b1 h + (1 - b1) g^2; s = g sqrt((u + delta) / (h + delta)); u = b1 u + (1 - b1) s^2; w -= lr s."""

    slots = ("h", "u")

    def update(self, w: Tensors, g: Tensors, history: History, lr: Number, scalars: Sequence[Number]) -> None:
        h, u = history
        average_(h, self.momentum, g, g)
        s = torch._foreach_add(u, self.delta)
        torch._foreach_div_(s, torch._foreach_add(h, self.delta))
        torch._foreach_sqrt_(s)
        torch._foreach_mul_(s, g)
        average_(u, self.momentum, s, s)
        add_(w, -lr, s)


@register
class Adam(Rule):
    """w -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + delta).

    m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2.
    """

    slots = ("m", "v")

    def scalars(self, t: int) -> tuple[float, ...]:
        return (sqrt(1 - self.momentum2**t) / (1 - self.momentum**t),)

    def update(self, w: Tensors, g: Tensors, history: History, lr: Number, scalars: Sequence[Number]) -> None:
        m, v = history
        average_(m, self.momentum, g)
        average_(v, self.momentum2, g, g)
        descend_(w, lr * scalars[0], m, root_plus(v, self.delta))


@register
class DirectionalAdam(Adam):
    """Adam with one scale for each row of L values on the last axis.

    w -= lr sqrt(L) sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(V) + delta), V the sum of v over the row.
    """

    def update(self, w: Tensors, g: Tensors, history: History, lr: Number, scalars: Sequence[Number]) -> None:
        m, v = history
        average_(m, self.momentum, g)
        average_(v, self.momentum2, g, g)
        for value, mean, square in zip(w, m, v, strict=True):
            row = square if square.dim() else square.view(1)
            scale = (row.sum(-1, keepdim=True).sqrt() + self.delta).reciprocal() * sqrt(row.shape[-1])
            value.sub_((mean * scale.view(scale.shape if square.dim() else ())) * (lr * scalars[0]))


@register
class Nadam(Rule):
    """Adam with Nesterov's look ahead, as the SimNets fork has it (the b2 above v is not in Dozat's paper).

    m and v as Adam; m' = b1/(1 - b1^(t+1)) m + (1 - b1)/(1 - b1^t) g; v' = b2/(1 - b2^t) v;
    w -= lr m' / (sqrt(v') + delta).
    """

    slots = ("m", "v")

    def scalars(self, t: int) -> tuple[float, ...]:
        b1, b2 = self.momentum, self.momentum2
        return b1 / (1 - b1 ** (t + 1)), (1 - b1) / (1 - b1**t), b2 / (1 - b2**t)

    def update(self, w: Tensors, g: Tensors, history: History, lr: Number, scalars: Sequence[Number]) -> None:
        m, v = history
        average_(m, self.momentum, g)
        average_(v, self.momentum2, g, g)
        ahead = torch._foreach_mul(m, scalars[0])
        add_(ahead, scalars[1], g)
        descend_(w, lr, ahead, root_plus(torch._foreach_mul(v, scalars[2]), self.delta))


@register
class SMORMS3(Rule):
    """Averages with a memory that each value adapts for itself (Funk 2015).

    r = 1/(mem + 1); m = (1 - r) m + r g; v = (1 - r) v + r g^2; a = m^2/(v + delta);
    w -= g min(lr, a) / sqrt(v + delta); mem = 1 + mem (1 - a), mem starting at 1.
    """

    uses_momentum = False
    slots = ("m", "v", "mem")
    start: ClassVar[dict[str, float]] = {"mem": 1.0}

    def update(self, w: Tensors, g: Tensors, history: History, lr: Number, scalars: Sequence[Number]) -> None:
        for value, gradient, m, v, mem in zip(w, g, *history, strict=True):
            r = 1 / (mem + 1)
            m.copy_((1 - r) * m + r * gradient)
            v.copy_((1 - r) * v + r * gradient * gradient)
            power = v + self.delta
            agreement = m * m / power
            pace = torch.minimum(agreement, lr) if isinstance(lr, Tensor) else agreement.clamp(max=lr)
            value.sub_(gradient * pace / power.sqrt())
            mem.copy_(1 + mem * (1 - agreement))


def add_(y: Tensors, factor: Number, x: Tensors) -> None:
    """y += factor x"""
    if isinstance(factor, Tensor):
        torch._foreach_add_(y, torch._foreach_mul(x, factor))
    else:
        torch._foreach_add_(y, x, alpha=factor)


def average_(mean: Tensors, keep: float, x: Tensors, times: Tensors | None = None) -> None:
    """mean = keep mean + (1 - keep) x, or of x * times."""
    torch._foreach_mul_(mean, keep)
    if times is None:
        torch._foreach_add_(mean, x, alpha=1 - keep)
    else:
        torch._foreach_addcmul_(mean, x, times, value=1 - keep)


def root_plus(x: Tensors, delta: float) -> list[Tensor]:
    """sqrt(x) + delta, as new tensors."""
    roots = list(torch._foreach_sqrt(x))
    torch._foreach_add_(roots, delta)
    return roots


def descend_(w: Tensors, lr: Number, numerator: Tensors, denominator: Tensors) -> None:
    """w -= lr numerator / denominator"""
    if isinstance(lr, Tensor):
        torch._foreach_sub_(w, torch._foreach_mul(torch._foreach_div(numerator, denominator), lr))
    else:
        torch._foreach_addcdiv_(w, numerator, denominator, value=-lr)


@register
class EM(Rule):
    """Does nothing: this type turns expected counts into probabilities, see netspec.solver.em."""

    slots = ()

    def update(self, w: Tensors, g: Tensors, history: History, lr: Number, scalars: Sequence[Number]) -> None:
        """Leave the values as they are."""


@register
class HardEM(Rule):
    """Does nothing: this type trains rendering models without gradients, see netspec.run.hard_em."""

    slots = ()

    def update(self, w: Tensors, g: Tensors, history: History, lr: Number, scalars: Sequence[Number]) -> None:
        """Leave the values as they are."""
