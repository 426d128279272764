"""Functions of single values of mobile nets' and YOLO's forks of Caffe: Mish, hard Swish and Sigmoid, CReLU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from netspec.layers.base import Layer, Shape, register


@register("Mish")
class Mish(Layer):
    """y = x tanh(log(1 + exp(x))).

    The gradient is the derivative at x (one fork takes it at y). NaN stays NaN. Source: Misra 2019, "Mish";
    mish_layer.cpp of YOLOv4 forks.
    """

    family, roles = "pointwise", ("values",)
    carries = True

    def forward(self, *bottoms: Tensor) -> Tensor:
        return F.mish(bottoms[0])


@register("HardSwish", "HSwish")
class HardSwish(Layer):
    """y = x min(max(x + 3, 0), 6) / 6.

    NaN stays NaN. Source: Howard et al. 2019, "MobileNetV3"; hard_swish_layer.cpp and hswish_layer.cpp of its
    forks.
    """

    family, roles = "pointwise", ("values",)
    carries = True

    def forward(self, *bottoms: Tensor) -> Tensor:
        return F.hardswish(bottoms[0])


@register("HSigmoid")
class HSigmoid(Layer):
    """y = min(max(x + 3, 0), 6) / 6.

    NaN stays NaN. Source: Howard et al. 2019, "MobileNetV3"; hsigmoid_layer.cpp of its forks.
    """

    family, roles = "pointwise", ("values",)
    carries = True

    def forward(self, *bottoms: Tensor) -> Tensor:
        return F.hardsigmoid(bottoms[0])


@register("HardSigmoid")
class HardSigmoid(Layer):
    """y = min(max(alpha x + beta, 0), 1).

    Two forks' layers: with hard_sigmoid_param (or hardsigmoid_param) its alpha and beta, by default 0.2 and 0.5;
    without it, as MobileNetV3's forks, alpha = 1 / 6 and beta = 1 / 2. NaN stays NaN. Source:
    hard_sigmoid_layer.cpp of Synopsys' Caffe; hardsigmoid_layer.cpp of MobileNetV3 forks.
    """

    family, roles = "pointwise", ("values",)
    carries = True

    def setup(self, *shapes: Shape) -> None:
        message = self.spec.message
        self.alpha, self.beta = 1 / 6, 0.5
        for name in ("hard_sigmoid_param", "hardsigmoid_param"):
            if message.HasField(name):
                self.alpha, self.beta = getattr(message, name).alpha, getattr(message, name).beta

    def forward(self, *bottoms: Tensor) -> Tensor:
        return (self.alpha * bottoms[0] + self.beta).clamp(0, 1)


@register("CReLU")
class CReLU(Layer):
    """y = r(x) and r(-x) side by side along `concat_axis` (default 1), r(x) = max(x, 0) + negative_slope min(x,
    0).

    Shapes: (N, C, ...) to (N, 2 C, ...). NaN stays NaN in both. Raises SpecError when the bottom lacks the axis.
    Source: Shang et al. 2016; crelu_layer.cpp of Cambricon's Caffe.
    """

    family, roles = "pointwise", ("values",)
    param_field = "crelu_param"

    def setup(self, *shapes: Shape) -> None:
        self.along = self.axis(self.param.concat_axis, len(shapes[0]), "concat_axis")

    def forward(self, *bottoms: Tensor) -> Tensor:
        both = torch.cat((bottoms[0], -bottoms[0]), self.along)
        return F.leaky_relu(both, self.param.negative_slope)
