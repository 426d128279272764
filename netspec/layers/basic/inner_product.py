"""InnerProduct, the fully connected layer; and Embed, its rows looked up by index."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, register


@register("InnerProduct")
class InnerProduct(Layer):
    """y = x W^T + b over the axes from `axis` on, flattened; W is stored transposed with `transpose`.

    Shapes: bottom (d0, ..., K axes from `axis`), top (d0, ..., num_output); blobs W (num_output, K), or (K,
    num_output) with `transpose`, and b (num_output,) unless `bias_term` is false. NaN passes through. Raises
    SpecError when num_output is missing. Source: Caffe, inner_product_layer.cpp.
    """

    family, roles = "convolution, linear", ("values",)
    mixes = True
    param_field = "inner_product_param"

    def setup(self, *shapes: Shape) -> None:
        p, (shape,) = self.param, shapes
        self.require(p.num_output, "num_output", "needs num_output > 0")
        self.start = self.axis(p.axis, len(shape), "axis")
        inputs = prod(shape[self.start :])
        self.add_blob((inputs, p.num_output) if p.transpose else (p.num_output, inputs), p.weight_filler)
        if p.bias_term:
            self.add_blob((p.num_output,), p.bias_filler)

    def forward(self, *bottoms: Tensor) -> Tensor:
        x = bottoms[0].flatten(self.start)
        weight = self.blob(0).t() if self.param.transpose else self.blob(0)
        return torch.nn.functional.linear(x, weight, self.blob(1) if self.param.bias_term else None)


@register("Embed")
class Embed(Layer):
    """y = W[x] + b: the row of W at each index x.

    Shapes: bottom (...) of whole numbers in [0, input_dim), top (..., num_output); blobs W (input_dim,
    num_output) and b (num_output,) unless `bias_term` is false. The bottom has no gradient; NaN is no index.
    Raises SpecError when num_output or input_dim is missing, IndexError in forward for an index outside.
    Source: Caffe, embed_layer.cpp.
    """

    family, roles = "convolution, linear", ("index",)
    products = 0
    param_field = "embed_param"

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        for name in ("num_output", "input_dim"):
            self.require(getattr(p, name), name, f"needs {name} > 0")
        self.add_blob((p.input_dim, p.num_output), p.weight_filler)
        self.biased = bool(p.bias_term)
        if self.biased:
            self.add_blob((p.num_output,), p.bias_filler)

    def forward(self, *bottoms: Tensor) -> Tensor:
        y = torch.nn.functional.embedding(bottoms[0].long(), self.blob(0))
        return y + self.blob(1) if self.biased else y
