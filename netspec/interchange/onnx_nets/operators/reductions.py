"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from netspec.interchange.onnx_nets.graph import Call, Refused, computes


def reduction(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A reduction over axes."""

    def operator(c: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
        axis_numbers = c.ints(1, "axes")
        if not axis_numbers:
            if c.get("noop_with_empty_axes", 0):
                return x
            axis_numbers = list(range(x.dim()))
        return function(x, axis_numbers, bool(c.get("keepdims", 1)))

    return operator


computes("ReduceMean")(reduction(lambda x, axes, keep: x.mean(axes, keepdim=keep)))
computes("ReduceSum")(reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep)))
computes("ReduceMax")(reduction(lambda x, axes, keep: x.amax(axes, keepdim=keep)))
computes("ReduceMin")(reduction(lambda x, axes, keep: -(-x).amax(axes, keepdim=keep)))
computes("ReduceL1")(reduction(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)))
computes("ReduceL2")(reduction(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep).sqrt()))
computes("ReduceSumSquare")(reduction(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep)))
computes("ReduceLogSum")(reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep).log()))
computes("ReduceLogSumExp")(reduction(lambda x, axes, keep: x.exp().sum(axes, keepdim=keep).log()))


@computes("ReduceProd")
def product(c: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Of constants alone."""
    if 0 not in c.constants:
        raise Refused("Caffe has no layer for it")
    return reduction(products)(c, x, axes)


def products(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x
