"""Layers that pass values on and turn gradients round, for the adaptation to another domain."""

from __future__ import annotations

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, at_least, register
from netspec.layers.loss.labels import only_gradient
from netspec.schema.spec import TRAIN


@register("GradientReversal")
class GradientReversal(Layer):
    """y = x; the gradient of x is that of y times -1.

    NaN passes; where x is infinite its gradient is 0. Source: Ganin and Lempitsky 2015; gradient_reversal_layer.cpp of
    its forks.
    """

    family, roles = "pointwise", ("values",)
    carries = True

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0].detach() - only_gradient(bottoms[0])


@register("GradientScaler")
class GradientScaler(Layer):
    """y = x; the gradient of x is that of y times -c, c growing from lower_bound to upper_bound.

    Shapes: one top a bottom, any shape. c = 2 h / (1 + exp(-alpha min(1, n / max_iter))) - h + lower_bound with h =
    upper_bound - lower_bound and n the forwards in TRAIN before this one (the iterations, without iter_size). With
    `scale_factor` s the gradient is that of y times s. NaN passes; where x is infinite its gradient is 0. Raises
    SpecError for lower_bound > upper_bound, alpha < 0 and max_iter < 1. Source: Ganin and Lempitsky 2015,
    "Unsupervised domain adaptation by backpropagation", gradient_scaler_layer.cpp.
    """

    family, roles = "pointwise", ("values",)
    carries = True
    bottoms = tops = at_least(1)
    paired = True
    param_field = "gradient_scaler_param"
    iteration: Tensor

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        for wrong, name in ((p.lower_bound > p.upper_bound, "lower_bound"), (p.alpha < 0, "alpha"),
                            (p.max_iter < 1, "max_iter")):  # fmt: skip
            self.require(not wrong, name, "needs lower_bound <= upper_bound, alpha >= 0 and max_iter >= 1")
        self.given = float(p.scale_factor) if p.HasField("scale_factor") else None
        self.register_buffer("iteration", torch.tensor(0.0))

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        factor = self.factor()
        return tuple(x.detach() + factor.to(x.dtype) * only_gradient(x) for x in bottoms)

    def factor(self) -> Tensor:
        """What gradients are multiplied by; counts the forward."""
        p = self.param
        if self.given is not None:
            return torch.full_like(self.iteration, self.given)
        progress = (self.iteration / float(p.max_iter)).clamp(max=1)
        if self.phase == TRAIN:
            with torch.no_grad():
                self.iteration.add_(1)
        height, least, alpha = float(p.upper_bound - p.lower_bound), float(p.lower_bound), float(p.alpha)
        grown: Tensor = 2 * height / (1 + (-alpha * progress).exp()) - height + least
        return -grown
