"""DivNorm: divisive normalisation over a window and all channels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from netspec.layers.base import Layer, Shape, register
from netspec.schema import FillerParameter

TINY = 1e-10
"""What stands under the root is at least this: an image without contrast, with alpha 0, gives the bias."""


@register("DivNorm")
class DivNorm(Layer):
    """y = (x - m) / sqrt((alpha + v / sigma^2) / 2) + bias, m and v the mean and the variance around a position.

    Shapes: bottom x (N, C, H, W) and top alike; blobs alpha, sigma and bias, one number each. m is the mean of x and v
    that of (x - m)^2 over a window of kernel_size x kernel_size and all channels; outside the image both count as 0.
    NaN spreads to all channels of the windows that hold it. Raises SpecError for another rank, an even window and one
    of more than twice the image. Source: the code of the collaborators of Patel et al. 2016, which has it in every
    level; Ren et al. 2017 for the kind.
    """

    family, roles = "normalisation", ("image",)
    products = 0
    param_field = "div_norm_param"

    def setup(self, *shapes: Shape) -> None:
        (shape,) = shapes
        self.require(len(shape) == 4, ("bottom", 0), f"needs a bottom (N, C, H, W), found shape {shape}")
        self.side = int(self.param.kernel_size)
        most = 2 * max(shape[2:]) + 1
        fits = self.side % 2 == 1 and self.side <= most
        self.require(fits, "kernel_size", f"needs an odd kernel_size of at most {most}, found {self.side}")
        for name, value in (("alpha_filler", 1.0), ("sigma_filler", 0.5), ("bias_filler", 0.0)):
            filler = getattr(self.param, name) if self.param.HasField(name) else constant(value)
            self.add_blob((1,), filler)

    def forward(self, *bottoms: Tensor) -> Tensor:
        (x,) = bottoms
        alpha, sigma, bias = (self.blob(i) for i in range(3))
        centred = x - self.around(x)
        scale = (alpha + self.around(centred.square()) / sigma.square()) / 2
        return centred / scale.clamp_min(TINY).sqrt() + bias

    def around(self, x: Tensor) -> Tensor:
        """(N, 1, H, W): the mean over the window around each position and all channels; 0 counts outside."""
        plane = x.mean(1, keepdim=True)
        mean: Tensor = functional.avg_pool2d(plane, self.side, 1, self.side // 2, count_include_pad=True)
        return mean


def constant(value: float) -> FillerParameter:
    """A filler that writes one value."""
    return FillerParameter(type="constant", value=value)
