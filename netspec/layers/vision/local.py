"""Locally connected layers: convolutions whose weights differ from place to place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from netspec.layers.base import Layer, Shape, register
from netspec.layers.traits import Field


@register("Local")
class Local(Layer):
    """y[m, p] = sum over a k x k window at p of w[m, ., p] x, plus b[m, p]: filters of their own at every place.

    Shapes: (N, C, H, W) to (N, num_output, H', W') with H' = (H + 2 pad - kernel_size) / stride + 1, rounded down,
    W' alike; blobs w (num_output, 1, C k^2, H' W'), b (1, 1, num_output, H' W') with bias_term. NaN spreads to the
    windows that see it. Raises SpecError for missing num_output or kernel_size and a window larger than the
    padded image. Source: Taigman et al. 2014 (DeepFace); local_layer.cpp of face forks.
    """

    family, roles = "convolution, linear", ("image",)
    param_field = "local_param"

    def setup(self, *shapes: Shape) -> None:
        p, (shape,) = self.param, shapes
        self.require(len(shape) == 4, ("bottom", 0), f"needs a bottom (N, C, H, W), found {shape}")
        for name in ("num_output", "kernel_size", "stride"):
            if not getattr(p, name):
                self.fail(f"needs {name} > 0", name)
        sides = [size + 2 * p.pad - p.kernel_size for size in shape[2:]]
        if min(sides) < 0:
            self.fail(
                f"a window of {p.kernel_size} x {p.kernel_size} does not fit into {shape}",
                "kernel_size",
            )
        self.grid = [side // p.stride + 1 for side in sides]
        places = self.grid[0] * self.grid[1]
        self.add_blob((p.num_output, 1, shape[1] * p.kernel_size**2, places), p.weight_filler)
        if p.bias_term:
            self.add_blob((1, 1, p.num_output, places), p.bias_filler)

    def forward(self, *bottoms: Tensor) -> Tensor:
        p = self.param
        windows_NKP = F.unfold(bottoms[0], p.kernel_size, padding=p.pad, stride=p.stride)
        y_NMP = torch.einsum("nkp,mkp->nmp", windows_NKP, self.blob(0).squeeze(1))
        if p.bias_term:
            y_NMP = y_NMP + self.blob(1)[0]
        return y_NMP.reshape(*y_NMP.shape[:2], *self.grid)

    def field(self, below: Field, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Field | None:
        p = self.param
        return below.grown((p.kernel_size,) * 2, (p.stride,) * 2, (p.pad,) * 2)


@register("LocallyConnected")
class LocallyConnected(Local):
    """y[m, p] = sum over a k x k window at p of w[m, ., p] x, plus b[m, p]: Local with locally_connected_param.

    Shapes, NaN and errors as for Local. Source: locally_connected_layer.cpp of face forks.
    """

    param_field = "locally_connected_param"
