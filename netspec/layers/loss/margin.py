"""Scores of classes with a margin between their angles (SphereFace)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, between, exactly, register
from netspec.layers.loss.labels import from_start

SINGLE, DOUBLE, TRIPLE, QUADRUPLE = range(4)
"""MarginInnerProductParameter.MarginType."""


def psi(kind: int, c: Tensor) -> tuple[Tensor, Tensor]:
    """(-1)^k cos(m t) - 2 k, which falls with the angle t from 0 to pi, and its derivative by c = cos t."""
    side = c.sign()
    if kind == DOUBLE:
        return 2 * side * c * c - 1, 4 * side * c
    if kind == TRIPLE:
        turn = (c.abs() - 0.5).sign()
        return turn * (4 * c**3 - 3 * c) + side * (1 + turn) - 2, turn * (12 * c * c - 3)
    turn = side * (2 * c * c - 1).sign()
    return turn * (8 * c**4 - 8 * c * c + 1) + 2 * side + turn - 3, turn * (32 * c**3 - 16 * c)


@register("MarginInnerProduct")
class MarginInnerProduct(Layer):
    """y_j = w_j x with rows w of length 1; for the label (|x| psi(t) + lambda w x) / (1 + lambda), psi the cosine
    of m times the angle.

    Shapes: x (d0, ..., K axes from `axis`), label one for each row, top (d0, ..., num_output), second top lambda
    (1,); blob W (num_output, K), whose rows a forward makes length 1. type SINGLE: m = 1, no lambda; DOUBLE,
    TRIPLE, QUADRUPLE: m = 2, 3, 4. lambda = max(base (1 + gamma n)^-power, lambda_min), n counting forwards from
    `iteration` + 1. Gradients are the fork's: of W that of a plain product; of x, at the label, that of |x| psi
    written as a w + b x, with (a, b) of length 1. NaN spreads over its row. Raises SpecError for missing
    num_output or labels that do not fit; IndexError in forward for a label of no class, but for SINGLE. Source:
    Liu et al. 2017 (SphereFace), margin_inner_product_layer.cpp.
    """

    family, roles = "convolution, linear", ("features", "row label")
    mixes = True
    bottoms, tops = exactly(2), between(1, 2)
    param_field = "margin_inner_product_param"
    iteration: Tensor

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        self.require(p.num_output, "num_output", "needs num_output > 0")
        self.along = self.axis(p.axis, len(shape), "axis")
        rows = prod(shape[: self.along])
        if prod(shapes[1]) != rows:
            self.fail(f"needs {rows} labels, found shape {shapes[1]}", "bottom", 1)
        self.add_blob((p.num_output, prod(shape[self.along :])), p.weight_filler)
        self.register_buffer("iteration", torch.tensor(float(p.iteration)))

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        p, bottom = self.param, bottoms[0]
        x, label = bottom.flatten(self.along).reshape(-1, self.blob_shapes[0][1]), bottoms[1]
        weight = self.unit_rows()
        with torch.no_grad():
            self.iteration.add_(1)
            mix = (p.base * (1 + p.gamma * self.iteration) ** -p.power).clamp(min=p.lambda_min).to(x.dtype)
        y = x @ weight.t()
        if p.type != SINGLE:
            index = from_start(label.detach().flatten().long(), weight.shape[0])
            y = self.with_margin(x, weight, y, index, mix)
        top = y.reshape(*bottom.shape[: self.along], -1)
        return (top, mix.reshape(1)) if len(self.spec.tops) == 2 else top

    def unit_rows(self) -> Tensor:
        """W with rows of length 1; they are kept."""
        weight = self.blob(0)
        if torch.compiler.is_exporting():  # a program that is written for others changes no weights
            unit: Tensor = weight / weight.norm(dim=1, keepdim=True)
            return unit
        with torch.no_grad():
            weight.div_(weight.norm(dim=1, keepdim=True))
        return self.blob(0).clone()  # which may be written to again before the backward pass

    def with_margin(self, x: Tensor, weight: Tensor, y: Tensor, label: Tensor, mix: Tensor) -> Tensor:
        """y with the label's entries moved; both parts below are 0 and carry the gradients of W and of x."""
        rows = torch.arange(len(x), device=x.device)
        with torch.no_grad():
            length = x.norm(dim=1)
            at_label = y[rows, label]
            c = at_label / length
            value, slope = psi(int(self.param.type), c)
            along_w, along_x = slope, (value - c * slope) / length
            size = (along_w * along_w + along_x * along_x).sqrt()
            moved = (length * value + mix * at_label) / (1 + mix)
            values = y.index_put((rows, label), moved)
        plain = x.detach() @ weight.t()
        straight = x @ weight.detach().t()
        bent = along_w / size * straight[rows, label] + along_x / size * 0.5 * (x * x).sum(1)
        straight = straight.index_put((rows, label), (bent + mix * straight[rows, label]) / (1 + mix))
        moved_y: Tensor = values + (plain - plain.detach()) + (straight - straight.detach())
        return moved_y

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """Those of the inner products; the further ones of `forward` are there for the gradient."""
        return prod(bottoms[0]) * int(self.param.num_output)
