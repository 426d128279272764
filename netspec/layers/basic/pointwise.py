"""Functions of each value by itself (rectifiers, sigmoids, thresholds, Dropout), and Softmax.

Tops have their bottom's shape, but for CReLU. NaN (a missing value) stays NaN unless a docstring says otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from netspec import schema
from netspec.layers import ranks
from netspec.layers.base import Layer, Shape, register
from netspec.schema.spec import TRAIN


@register("ReLU")
class ReLU(Layer):
    """y = max(x, 0) + negative_slope * min(x, 0); the gradient at 0 is the slope.

    Source: Caffe, relu_layer.cpp.
    """

    family, roles = "pointwise", ("values",)
    carries = True
    param_field = "relu_param"

    def forward(self, *bottoms: Tensor) -> Tensor:
        slope = self.param.negative_slope
        return F.leaky_relu(bottoms[0], slope) if slope else F.relu(bottoms[0])


@register("ReLU6")
class ReLU6(Layer):
    """y = min(max(x, 0), 6); the gradient is 0 at both bounds.

    Source: the ReLU6 layer of MobileNet forks of Caffe.
    """

    family, roles = "pointwise", ("values",)
    carries = True

    def forward(self, *bottoms: Tensor) -> Tensor:
        return F.relu6(bottoms[0])


@register("PReLU")
class PReLU(Layer):
    """y = max(x, 0) + a_c * min(x, 0) with a learned slope a for each channel, or one for all.

    Shapes: bottom and top (N, C, ...); blob a (C,), or () with `channel_shared`, filled with 0.25 unless
    `filler` is given. The gradient at 0 is the slope's. Raises SpecError for a bottom without a channel axis.
    Source: He et al. 2015, "Delving deep into rectifiers"; Caffe, prelu_layer.cpp.
    """

    family, roles = "pointwise", ("image",)
    products = 1
    carries = True
    param_field = "prelu_param"

    def setup(self, *shapes: Shape) -> None:
        (shape,) = shapes
        if len(shape) < 2:
            self.fail(f"needs a bottom with a channel axis (N, C, ...), found {shape}", "bottom", 0)
        quarter = schema.FillerParameter(type="constant", value=0.25)
        filler = self.param.filler if self.param.HasField("filler") else quarter
        self.add_blob(() if self.param.channel_shared else (shape[1],), filler)

    def forward(self, *bottoms: Tensor) -> Tensor:
        (x,) = bottoms
        slope = self.blob(0)
        if not self.param.channel_shared:
            slope = slope.view(-1, *(1,) * (x.dim() - 2))
        return torch.where(x > 0, x, slope * x)


@register("ELU")
class ELU(Layer):
    """y = x for x > 0, else alpha * (exp(x) - 1).

    Source: Clevert et al. 2016, "Fast and accurate deep network learning by exponential linear units".
    """

    family, roles = "pointwise", ("values",)
    carries = True
    param_field = "elu_param"

    def forward(self, *bottoms: Tensor) -> Tensor:
        return F.elu(bottoms[0], self.param.alpha)


@register("SELU", "Selu", "SeLu")
class SELU(Layer):
    """y = 1.0507 x for x > 0, else 1.7581 (exp(x) - 1), which keeps mean 0 and variance 1.

    Source: Klambauer et al. 2017, "Self-normalizing neural networks".
    """

    family, roles = "pointwise", ("values",)
    carries = True

    def forward(self, *bottoms: Tensor) -> Tensor:
        return F.selu(bottoms[0])


@register("Sigmoid")
class Sigmoid(Layer):
    """y = 1 / (1 + exp(-x)).

    Source: Caffe, sigmoid_layer.cpp.
    """

    family, roles = "pointwise", ("values",)
    carries = True

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0].sigmoid()


@register("TanH")
class TanH(Layer):
    """y = tanh(x).

    Source: Caffe, tanh_layer.cpp.
    """

    family, roles = "pointwise", ("values",)
    carries = True

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0].tanh()


@register("BNLL")
class BNLL(Layer):
    """y = log(1 + exp(x)), the binomial negative log-likelihood, without overflow for large x.

    Source: Caffe, bnll_layer.cpp.
    """

    family, roles = "pointwise", ("values",)
    carries = True

    def forward(self, *bottoms: Tensor) -> Tensor:
        return -F.logsigmoid(-bottoms[0])


@register("AbsVal")
class AbsVal(Layer):
    """y = |x|; the gradient at 0 is 0.

    Source: Caffe, absval_layer.cpp.
    """

    family, roles = "pointwise", ("values",)
    carries = True

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0].abs()


@register("Threshold")
class Threshold(Layer):
    """y = 1 where x > threshold, else 0; no gradient.

    A missing value (NaN) is not above the threshold, so it gives 0. Source: Caffe, threshold_layer.cpp.
    """

    family, roles = "pointwise", ("values",)
    carries = True
    param_field = "threshold_param"
    differentiable = False

    def forward(self, *bottoms: Tensor) -> Tensor:
        return (bottoms[0] > float(self.param.threshold)).to(bottoms[0].dtype)


@register("Clip")
class Clip(Layer):
    """y = min(max(x, min), max); the gradient passes within the bounds, both included.

    Raises SpecError when a bound is not given or min exceeds max. Source: Caffe, clip_layer.cpp (which turns
    NaN into `min`; here it stays NaN).
    """

    family, roles = "pointwise", ("values",)
    carries = True
    param_field = "clip_param"

    def setup(self, *shapes: Shape) -> None:
        if not (self.param.HasField("min") and self.param.HasField("max")):
            self.fail("needs both min and max", "min")
        if self.param.min > self.param.max:
            self.fail(f"min {self.param.min} exceeds max {self.param.max}", "min")

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0].clamp(self.param.min, self.param.max)


@register("Swish")
class Swish(Layer):
    """y = x / (1 + exp(-beta * x)).

    Source: Ramachandran et al. 2017, "Searching for activation functions"; Caffe, swish_layer.cpp.
    """

    family, roles = "pointwise", ("values",)
    carries = True
    param_field = "swish_param"

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0] * (bottoms[0] * float(self.param.beta)).sigmoid()


@register("Dropout")
class Dropout(Layer):
    """In TRAIN y = 0 with probability r = dropout_ratio, else x / (1 - r); in TEST y = x.

    With `scale_train: false` (SegNet) TRAIN leaves the kept values as they are and TEST gives (1 - r) * x;
    with `sample_weights_test` TEST drops values as TRAIN does. A missing value (NaN) stays missing, dropped
    or not. Random numbers: torch's generator of the device. Raises SpecError for a ratio outside [0, 1).
    Source: Srivastava et al. 2014; Caffe, dropout_layer.cpp.
    """

    family, roles = "pointwise", ("values",)
    carries = True
    param_field = "dropout_param"

    def setup(self, *shapes: Shape) -> None:
        if not 0 <= self.param.dropout_ratio < 1:
            self.fail(
                f"dropout_ratio {self.param.dropout_ratio} is outside [0, 1)",
                "dropout_ratio",
            )

    @property
    def passes(self) -> bool:
        return self.phase != TRAIN and bool(self.param.scale_train) and not self.param.sample_weights_test

    def forward(self, *bottoms: Tensor) -> Tensor:
        keep = 1 - self.param.dropout_ratio
        if self.phase == TRAIN or self.param.sample_weights_test:
            kept = dropped(bottoms[0], self.param.dropout_ratio)
            return kept if self.param.scale_train else kept * keep
        return bottoms[0] if self.param.scale_train else bottoms[0] * keep


def dropped(x: Tensor, ratio: float) -> Tensor:
    """x / (1 - ratio), but 0 with probability `ratio`; among ranks as one process would drop it."""
    if not ranks.current().split:
        return F.dropout(x, ratio)
    return x * ranks.drawn(lambda shape: F.dropout(x.new_ones(shape), ratio), x.shape)


@register("SpatialDropout")
class SpatialDropout(Layer):
    """In TRAIN whole channels are 0 with probability r = dropout_ratio, else x / (1 - r); in TEST y = x.

    Shapes: (N, C, ...) to the same; each channel of each item is drawn for itself. `sample_weights_test`: TEST
    drops too. A missing value (NaN) stays missing. Random numbers: torch's generator of the device. Raises
    SpecError for a ratio outside [0, 1) and for a bottom without channels. Source: Tompson et al. 2015; ENet's
    Caffe, spatial_dropout_layer.cu.
    """

    family, roles = "pointwise", ("values",)
    carries = True
    param_field = "spatial_dropout_param"

    def setup(self, *shapes: Shape) -> None:
        ratio = self.param.dropout_ratio
        self.require(0 <= ratio < 1, "dropout_ratio", f"dropout_ratio {ratio} is outside [0, 1)")
        if len(shapes[0]) < 2:
            self.fail(f"needs a bottom (N, C, ...), found shape {shapes[0]}", "bottom", 0)

    def forward(self, *bottoms: Tensor) -> Tensor:
        (x,) = bottoms
        if self.phase != TRAIN and not self.param.sample_weights_test:
            return x
        ones = x.new_ones(x.shape[:2] + (1,) * (x.dim() - 2))
        return x * dropped(ones, self.param.dropout_ratio)


@register("Softmax")
class Softmax(Layer):
    """y = exp(x) / sum exp(x) along `axis` (default 1, the channels).

    A missing value (NaN) makes the whole line along the axis NaN. Raises SpecError when the bottom has no
    such axis. Source: Caffe, softmax_layer.cpp.
    """

    family, roles = "pointwise", ("scores",)
    is_softmax = True
    param_field = "softmax_param"

    def setup(self, *shapes: Shape) -> None:
        self.along = self.axis(self.param.axis, len(shapes[0]), "axis")

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0].softmax(self.along)


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
