"""LearnableFill: a learned value in place of each missing one."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, between, register


def observed(x: Tensor, mask: Tensor | None) -> Tensor:
    """Where x is not NaN and the mask, if there is one, is neither 0 nor NaN."""
    seen = ~x.isnan()
    if mask is None:
        return seen
    mask = mask.detach()
    mask = mask.expand(x.shape) if mask.dim() == x.dim() else mask.reshape(x.shape)
    return seen & (mask != 0) & ~mask.isnan()


def check_mask(layer: Layer, data: Shape, mask: Shape, index: int) -> None:
    """Refuse a mask that has neither the data's values nor one channel for all of them."""
    if mask != (data[0], 1, *data[2:]) and (mask[:1] != data[:1] or prod(mask) != prod(data)):
        layer.fail(f"mask {mask} does not fit data {data}", "bottom", index)


@register("LearnableFill")
class LearnableFill(Layer):
    """y = x where observed, a learned value of that feature elsewhere.

    Shapes: bottoms x (n, ...) and optionally a mask of its shape or with one channel for all; top as x; blob
    as one row of x, at first `filler` (default 0). A value is missing where x is NaN or the mask 0 or NaN; it
    gets no gradient, the blob does. With lr_mult 0 it fills in a constant. Raises SpecError for a mask that
    does not fit. Source: the learned imputation of Mattei and Frellsen 2019.
    """

    bottoms = between(1, 2)
    family, roles = "latent", ("values", "mask")
    products = 0
    param_field = "learnable_fill_param"

    def setup(self, *shapes: Shape) -> None:
        if len(shapes[0]) < 2:
            self.fail(f"needs a bottom (N, D, ...), found {shapes[0]}", "bottom", 0)
        if len(shapes) == 2:
            check_mask(self, shapes[0], shapes[1], 1)
        self.add_blob(shapes[0][1:], self.param.filler if self.param.HasField("filler") else None)

    def forward(self, *bottoms: Tensor) -> Tensor:
        x = bottoms[0]
        return torch.where(observed(x, bottoms[1] if len(bottoms) == 2 else None), x, self.blob(0))
