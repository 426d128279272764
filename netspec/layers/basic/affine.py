"""Scale and Bias: a learned or given factor and summand along some axes."""

from __future__ import annotations

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, between, register


class Broadcast(Layer):
    """What Scale and Bias share: which axes of the bottom their operand runs along."""

    family, roles = "normalisation", ("values", "operand")
    bottoms = between(1, 2)

    start: int
    view: Shape
    """The operand's shape with ones behind it, so that it meets the right axes."""

    def read_operand(self, shapes: tuple[Shape, ...]) -> Shape:
        """Set start and view; gives the operand's shape, of the second bottom or of the blob to be made."""
        p, shape = self.param, shapes[0]
        if len(shapes) == 2:
            operand = shapes[1]
            self.start = self.axis(p.axis, len(shape), "axis") if operand else 0
            self.require(
                shape[self.start : self.start + len(operand)] == operand,
                ("bottom", 1),
                f"bottom 1 of shape {operand} does not meet {shape} from axis {self.start} on",
            )
        else:
            self.start = self.axis(p.axis, len(shape), "axis") if p.num_axes else 0
            if p.num_axes < -1:
                self.fail(f"num_axes must be -1 or more, found {p.num_axes}", "num_axes")
            end = len(shape) if p.num_axes == -1 else self.start + p.num_axes
            self.require(
                end <= len(shape),
                "num_axes",
                f"{p.num_axes} axes from axis {self.start} on exceed the bottom's shape {shape}",
            )
            operand = shape[self.start : end]
        self.view = operand + (1,) * (len(shape) - self.start - len(operand)) if operand else ()
        return operand


@register("Scale")
class Scale(Broadcast):
    """y = x * s, plus b with `bias_term`; s and b run along `num_axes` axes from `axis` on (-1: all that
    follow).

    Shapes: bottom (d0, ..., dn), top alike; s (and b) is a blob of shape (d_axis, ...), () for num_axes 0;
    with a second bottom s is that bottom, whose shape must appear in the first from `axis` on. The blob s
    starts at 1 unless `filler` says otherwise. NaN passes through. Raises SpecError for axes outside the
    bottom. Source: Caffe, scale_layer.cpp.
    """

    products = 1
    param_field = "scale_param"

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        operand = self.read_operand(shapes)
        self.given = len(shapes) == 2
        if not self.given:
            filler = p.filler
            if not p.HasField("filler"):
                filler = type(filler)(type="constant", value=1.0)
            self.add_blob(operand, filler)
        self.shift = self.add_blob(operand, p.bias_filler) if p.bias_term else None

    def forward(self, *bottoms: Tensor) -> Tensor:
        x = bottoms[0]
        s = (bottoms[1] if self.given else self.blob(0)).reshape(self.view)
        return x * s if self.shift is None else torch.addcmul(self.blob(self.shift).reshape(self.view), x, s)


@register("Bias")
class Bias(Broadcast):
    """y = x + b; b runs along `num_axes` axes from `axis` on (-1: all that follow).

    Shapes: bottom (d0, ..., dn), top alike; b is a blob of shape (d_axis, ...), () for num_axes 0; with a
    second bottom b is that bottom, whose shape must appear in the first from `axis` on. NaN passes through.
    Raises SpecError for axes outside the bottom. Source: Caffe, bias_layer.cpp.
    """

    products = 0
    param_field = "bias_param"

    def setup(self, *shapes: Shape) -> None:
        operand = self.read_operand(shapes)
        self.given = len(shapes) == 2
        if not self.given:
            self.add_blob(operand, self.param.filler)

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0] + (bottoms[1] if self.given else self.blob(0)).reshape(self.view)
