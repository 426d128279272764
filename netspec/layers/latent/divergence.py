"""KLGaussian, GaussianKLLoss: divergences of normal densities."""

from __future__ import annotations

from math import log

from torch import Tensor

from netspec.layers.base import Layer, Shape, exactly, register
from netspec.layers.latent.density import variance_of


@register("KLGaussian")
class KLGaussian(Layer):
    """loss = mean over rows of KL(N(mu, sigma^2) || N(0, 1)) = -1/2 sum (1 + log sigma^2 - mu^2 - sigma^2).

    Shapes: bottoms mu and log sigma^2 (n, ...) alike, top (), in nats. Gradients: mu / n and (sigma^2 - 1) /
    (2 n). NaN makes the loss NaN. Raises SpecError when the bottoms differ in shape. Source: Kingma and
    Welling 2014, appendix B.
    """

    bottoms, is_loss = exactly(2), True
    family, roles, alike = "loss", ("values",), True

    def setup(self, *shapes: Shape) -> None:
        if shapes[0] != shapes[1] or not shapes[0]:
            self.fail(f"needs bottoms (N, ...) of one shape, found {shapes[0]} and {shapes[1]}", "bottom", 1)

    def forward(self, *bottoms: Tensor) -> Tensor:
        mu, logvar = bottoms
        return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum() / mu.shape[0]


@register("GaussianKLLoss")
class GaussianKLLoss(Layer):
    """loss = KL(N(m1, v1) || N(m2, v2)), diagonal normal densities, summed over a row, mean over rows.

    Shapes: bottoms m1, spread 1, m2, spread 2, of one shape (n, ...) or spreads that broadcast to it, such as
    (n, 1, 1, 1); top (). `spread` says whether spreads hold log variances, deviations or variances; `unit`
    NATS or BITS; per_value: the mean over all values. Gradients go to all four. NaN makes the loss NaN.
    Raises SpecError for shapes that do not fit. Source: Sohl-Dickstein et al. 2015.
    """

    bottoms, is_loss = exactly(4), True
    family, roles = "loss", ("values",)
    param_field = "gaussian_kl_param"

    def setup(self, *shapes: Shape) -> None:
        whole = shapes[0]
        for i, shape in enumerate(shapes):
            fits = len(shape) == len(whole) and all(a in (1, b) for a, b in zip(shape, whole, strict=True))
            if not fits or (i == 2 and shape != whole):
                self.fail(f"bottom {i} of shape {shape} does not fit the means {whole}", "bottom", i)

    def forward(self, *bottoms: Tensor) -> Tensor:
        m1, s1, m2, s2 = bottoms
        v1, v2 = variance_of(s1, self.param.spread), variance_of(s2, self.param.spread)
        divergence = 0.5 * ((v1 + (m1 - m2).square()) / v2 - 1 + v2.log() - v1.log())
        loss = divergence.mean() if self.param.per_value else divergence.sum() / m1.shape[0]
        return loss / log(2) if self.param.unit == self.param.BITS else loss
