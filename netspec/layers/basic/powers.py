"""Power, Exp and Log of an affine function of the bottom."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, register
from netspec.layers.traits import Constant, Value


@register("Power")
class Power(Layer):
    """y = (shift + scale * x)^power.

    Shapes: top as bottom. A negative base under a fractional power gives NaN, which nets use on purpose:
    (mask - 1)^0.5 is 0 where the mask is 1, and NaN, "missing", where it is 0. Nothing is clamped; NaN stays
    NaN, but power 0 or scale 0 makes a constant of any value. The gradient is power * scale * y / (shift +
    scale * x), so it is NaN (0 / 0) at a base of 0, as in Caffe; powers 0, 1 and 2 have their exact gradient
    there. Source: Caffe, power_layer.cpp.
    """

    family, roles = "pointwise", ("values",)
    carries = True
    param_field = "power_param"

    def forward(self, *bottoms: Tensor) -> Tensor:
        p, (x,) = self.param, bottoms
        if p.power * p.scale == 0:
            return torch.full_like(x, p.shift).pow(p.power)
        base = x if p.scale == 1 else p.scale * x
        base = base if p.shift == 0 else base + p.shift
        if p.power == 1:
            return base.clone() if base is x else base
        if p.power == 2:
            return base * base
        y = base.pow(p.power)
        # The root of |base| is 0 as well at a base of 0, and has the gradient NaN there that y / base has.
        return torch.where(base == 0, base.abs().sqrt(), y) if p.power > 0 else y

    def inverse(
        self, tops: Sequence[Tensor], bottoms: Sequence[Tensor | None], shapes: Sequence[Shape]
    ) -> tuple[Tensor, ...] | None:
        """Of a line: (y - shift) / scale."""
        p = self.param
        return None if p.power != 1 or p.scale == 0 else ((tops[0] - p.shift) / p.scale,)

    def tree_value(self, index: int, below: Sequence[Value]) -> Value | None:
        """That of a constant; anything else only where nothing changes."""
        p, (bottom,) = self.param, below
        if isinstance(bottom, Constant):
            base = p.shift + p.scale * bottom.value
            return Constant(base**p.power) if base > 0 or (base == 0 and p.power > 0) else None
        return bottom if (p.power, p.scale, p.shift) == (1, 1, 0) else None


@register("Exp")
class Exp(Layer):
    """y = base^(shift + scale * x); base -1 (the default) stands for e.

    Shapes: top as bottom. NaN stays NaN. Raises SpecError for another base that is not positive.
    Source: Caffe, exp_layer.cpp.
    """

    family, roles = "pointwise", ("values",)
    carries = True
    param_field = "exp_param"

    def setup(self, *shapes: Shape) -> None:
        base = self.param.base
        self.require(base == -1 or base > 0, "base", f"base {base} is not positive (-1 stands for e)")
        self.log_base = 1.0 if base == -1 else log(base)

    def forward(self, *bottoms: Tensor) -> Tensor:
        return ((bottoms[0] * float(self.param.scale) + float(self.param.shift)) * self.log_base).exp()


@register("Log")
class Log(Layer):
    """y = log(shift + scale * x) to the given base; base -1 (the default) stands for e.

    Shapes: top as bottom. NaN stays NaN, and a negative argument becomes NaN, 0 becomes -inf.
    Raises SpecError for another base that is not positive, or is 1. Source: Caffe, log_layer.cpp.
    """

    family, roles = "pointwise", ("values",)
    carries = True
    param_field = "log_param"

    def setup(self, *shapes: Shape) -> None:
        base = self.param.base
        if base != -1 and (base <= 0 or base == 1):
            self.fail(f"base {base} is not a base of logarithms (-1 stands for e)", "base")
        self.log_base = 1.0 if base == -1 else log(base)

    def forward(self, *bottoms: Tensor) -> Tensor:
        return (bottoms[0] * float(self.param.scale) + float(self.param.shift)).log() / self.log_base
