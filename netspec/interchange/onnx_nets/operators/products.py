"""Matrix products, and normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from netspec.interchange.onnx_nets.graph import Call, Refused, computes


@computes("Gemm")
def gemm(c: Call, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    if 0 in c.constants or 1 not in c.constants:
        raise Refused(
            "is a product of two blobs, or by a constant from the left, for which Caffe has no layer"
        )
    if c.get("transA", 0):
        a = a.t()
    weight = (b if c.get("transB", 0) else b.t()) * c.get("alpha", 1.0)
    if bias is not None:
        bias = bias * c.get("beta", 1.0)
        if bias.dim() > 1 and bias.shape[0] != 1:
            raise Refused("adds a matrix that is no row")
        bias = bias.reshape(-1).expand(weight.shape[0]).contiguous()
    return F.linear(a, weight.contiguous(), bias)


@computes("MatMul")
def matmul(c: Call, a: Tensor, b: Tensor) -> Tensor:
    if not c.constants:
        raise Refused("is a product of two blobs, for which Caffe has no layer")
    if 1 in c.constants and 0 not in c.constants and b.dim() == 2:
        return F.linear(a, b.t().contiguous())
    if len(c.constants) == 2:
        return a @ b
    raise Refused("multiplies by a constant from the left, or by one of more than two axes")


# --- normalisation


@computes("BatchNormalization")
def batch_norm(c: Call, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    if c.get("training_mode", 0):
        raise Refused("normalises by the batch")
    return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, c.get("epsilon", 1e-5))


@computes("InstanceNormalization")
def instance_norm(c: Call, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.instance_norm(x, None, None, scale, shift, True, 0.0, c.get("epsilon", 1e-5))


@computes("GroupNormalization")
def group_norm(c: Call, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    groups, channels = int(c.get("num_groups")), x.shape[1]
    if len(scale) != channels:  # opset 18 has a number for each group
        scale, shift = (value.repeat_interleave(channels // groups) for value in (scale, shift))
    return F.group_norm(x, groups, scale, shift, c.get("epsilon", 1e-5))


@computes("LayerNormalization")
def layer_norm(c: Call, x: Tensor, scale: Tensor, shift: Tensor | None = None) -> Tensor:
    if c.outputs > 1:
        raise Refused("gives its means too, which are read by nothing of Caffe's")
    axis = c.get("axis", -1) % x.dim()
    return F.layer_norm(x, x.shape[axis:], scale, shift, c.get("epsilon", 1e-5))


@torch.library.custom_op("netspec::lrn", mutates_args=())
def lrn(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """Local response normalisation across channels, alpha over the number of channels."""
    return F.local_response_norm(x, size, alpha, beta, k)


@lrn.register_fake
def _(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    return torch.empty_like(x)


@computes("LRN")
def response(c: Call, x: Tensor) -> Tensor:
    size = int(c.get("size"))
    if size % 2 == 0:
        raise Refused(f"size {size}; Caffe's LRN takes odd ones")
    y: Tensor = lrn(x, size, c.get("alpha", 1e-4), c.get("beta", 0.75), c.get("bias", 1.0))
    return y


@computes("Softmax", "LogSoftmax")
def softmax(c: Call, x: Tensor) -> Tensor:
    function: Callable[..., Tensor] = F.softmax if c.kind == "Softmax" else F.log_softmax
    axis = c.get("axis", -1 if c.opset >= 13 else 1) % x.dim()
    if c.opset >= 13 or axis == x.dim() - 1 or math.prod(x.shape[axis + 1 :]) == 1:
        return function(x, axis)
    return function(x.flatten(axis), axis).reshape(x.shape)
