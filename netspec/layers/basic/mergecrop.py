"""MergeCrop: a U-Net's small map with the middle of a larger one."""

from __future__ import annotations

from torch import Tensor, cat

from netspec.layers.base import Layer, Shape, exactly, register


@register("MergeCrop")
class MergeCrop(Layer):
    """y = the first map and the middle of the second, one behind the other in channels (STACK), or added (ADD).

    Shapes: bottoms (N, C1, ...) and (N, C2, ...), as large or larger along every further axis; top (N, C1 + C2, ...) or
    with ADD (N, C1, ...). `forward` says which bottoms count (else 0), `backward` which get a gradient (the first
    alone unless said). NaN spreads. Raises SpecError when sizes do not fit. Source: mergecrop_layer.cu of Caffe's
    OpenCL branch.
    """

    family, roles = "shape", ("image", "image")
    products = 0
    bottoms = exactly(2)
    param_field = "mergecrop_param"

    def setup(self, *shapes: Shape) -> None:
        p, (a, b) = self.param, shapes
        self.stacks = p.operation == p.STACK
        if (
            len(a) < 3
            or len(a) != len(b)
            or a[0] != b[0]
            or any(x > y for x, y in zip(a[2:], b[2:], strict=True))
        ):
            self.fail(f"needs a second bottom around {a}, found {b}", "bottom", 1)
        self.require(self.stacks or a[1] == b[1], ("bottom", 1), f"ADD needs {a[1]} channels, found {b[1]}")
        for name in ("forward", "backward"):
            self.require(len(getattr(p, name)) <= 2, name, "takes one number for each of two bottoms")
        self.counts = [bool(v) for v in [*p.forward, *(1, 1)[len(p.forward) :]]]
        self.learns = [bool(v) for v in [*p.backward, *(1, 0)[len(p.backward) :]]]
        self.window = tuple(slice((y - x) // 2, (y - x) // 2 + x) for x, y in zip(a[2:], b[2:], strict=True))

    def forward(self, *bottoms: Tensor) -> Tensor:
        parts = [bottoms[0], bottoms[1][(slice(None), slice(None), *self.window)]]
        parts = [x if learns else x.detach() for x, learns in zip(parts, self.learns, strict=True)]
        parts = [x if counts else x * 0 for x, counts in zip(parts, self.counts, strict=True)]
        return cat(parts, 1) if self.stacks else parts[0] + parts[1]
