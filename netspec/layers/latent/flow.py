"""Dequantize, DiagonalScale, LogisticPriorLoss: the ends of a net of additive couplings (NICE)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netspec.layers import ranks
from netspec.layers.base import Layer, Shape, at_least, between, register
from netspec.layers.latent.density import logistic


@register("Dequantize")
class Dequantize(Layer):
    """y = (level + u) / levels with u ~ U[0, 1): a continuous value in [0, 1) from one of `levels` values.

    Shapes: top as bottom, which holds level / (levels - 1), or the level itself with `raw`. Drawn anew in
    every forward, in TEST too; `centre` takes u = 1/2. NaN stays NaN. The gradient is that of the line.
    Random numbers: torch's generator of the device. Raises SpecError for less than 2 levels. Source: Dinh,
    Krueger and Bengio 2014, section 5.1.
    """

    family, roles = "pointwise", ("values",)
    param_field = "dequantize_param"

    def setup(self, *shapes: Shape) -> None:
        self.require(self.param.levels >= 2, "levels", "levels must be at least 2")
        self.levels = int(self.param.levels)
        self.factor = 1 if self.param.raw else self.levels - 1

    def forward(self, *bottoms: Tensor) -> Tensor:
        x = bottoms[0]
        u = 0.5 if self.param.centre else ranks.rand_like(x)
        return (x * self.factor + u) / self.levels

    def inverse(
        self, tops: Sequence[Tensor], bottoms: Sequence[Tensor | None], shapes: Sequence[Shape]
    ) -> tuple[Tensor, ...]:
        level = (tops[0] * self.levels).floor().clamp(0, self.levels - 1)
        return (level / self.factor,)


@register("DiagonalScale")
class DiagonalScale(Layer):
    """y = exp(D) x with a learned D for each value of a row; the second top is log det = sum D.

    Shapes: bottom and top (N, ...), second top (N,), blob D as one row, at first `filler` (default 0). NaN
    stays NaN. Raises SpecError for a bottom without rows. Source: Dinh, Krueger and Bengio 2014, section 3.3.
    """

    tops = between(1, 2)
    family, roles, undone_by = "latent", ("values",), 1
    products = 1
    param_field = "diagonal_scale_param"

    def setup(self, *shapes: Shape) -> None:
        if len(shapes[0]) < 2:
            self.fail(f"needs a bottom (N, D, ...), found {shapes[0]}", "bottom", 0)
        self.add_blob(shapes[0][1:], self.param.filler if self.param.HasField("filler") else None)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        x, scale = bottoms[0], self.blob(0)
        return (x * scale.exp(), scale.sum().expand(x.shape[0]).clone())[: len(self.spec.tops)]

    def inverse(
        self, tops: Sequence[Tensor], bottoms: Sequence[Tensor | None], shapes: Sequence[Shape]
    ) -> tuple[Tensor, ...]:
        return (tops[0] * (-self.blob(0)).exp(),)


@register("LogisticPriorLoss")
class LogisticPriorLoss(Layer):
    """loss = -mean over rows of (sum log p(z) + log det), in nats, p the standard logistic density.

    Shapes: bottoms z (N, ...), then any number of log determinants (N,); tops loss () and the log likelihood
    of each row (N,). log p(z) = -softplus(z) - softplus(-z). NaN makes the loss NaN. Raises SpecError for
    determinants of another number of rows. Source: Dinh, Krueger and Bengio 2014, section 3.4.
    """

    bottoms, tops, is_loss = at_least(1), between(1, 2), True
    family, roles = "loss", ("values",)

    def setup(self, *shapes: Shape) -> None:
        for i, shape in enumerate(shapes[1:], 1):
            if shape != shapes[0][:1]:
                self.fail(f"needs a log determinant {shapes[0][:1]}, found {shape}", "bottom", i)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        logp = self.rows(*bottoms)
        return (-logp.mean(), logp)[: len(self.spec.tops)]

    def rows(self, *bottoms: Tensor) -> Tensor:
        """(N,): log likelihood of each row in nats."""
        logp = logistic(bottoms[0].flatten(1)).sum(1)
        for determinant in bottoms[1:]:
            logp = logp + determinant
        return logp

    def draw(self, rows: int, shape: Shape, like: Tensor) -> Tensor:
        """(rows, *shape): draws of the prior, with the device and dtype of `like`."""
        unit = torch.rand((rows, *shape), dtype=like.dtype, device=like.device)
        return torch.logit(unit, eps=1e-7)
