"""Operators on single values, and on several values at the same place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from netspec.interchange.onnx_nets.graph import Call, Refused, computes

# --- of single values

PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "Relu": torch.relu, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Abs": torch.abs, "Exp": torch.exp,
    "Log": torch.log, "Sqrt": torch.sqrt, "Neg": torch.neg, "Reciprocal": torch.reciprocal, "Softplus": F.softplus,
    "HardSwish": F.hardswish, "Mish": lambda x: x * F.softplus(x).tanh(), "Softsign": lambda x: x / (1 + x.abs()),
    "Identity": lambda x: x, "Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round,
    "Sign": torch.sign, "Not": torch.logical_not, "Erf": torch.erf, "Sin": torch.sin, "Cos": torch.cos,
}  # fmt: skip
for _name, _function in PLAIN.items():
    computes(_name)(lambda c, x, f=_function: f(x))


@computes("ArgMax")
def argmax(c: Call, x: Tensor) -> Tensor:
    if c.get("select_last_index", 0):
        raise Refused("takes the last of equal values, Caffe's ArgMax the first")
    return x.argmax(c.get("axis", 0) % x.dim(), bool(c.get("keepdims", 1)))


@computes("Swish")
def swish(c: Call, x: Tensor) -> Tensor:
    return x * torch.sigmoid(c.get("alpha", 1.0) * x)


@computes("Dropout")
def dropout(c: Call, x: Tensor, *rest: Tensor | None) -> Tensor:
    return x


@computes("LeakyRelu")
def leaky(c: Call, x: Tensor) -> Tensor:
    return F.leaky_relu(x, c.get("alpha", 0.01))


@computes("PRelu")
def prelu(c: Call, x: Tensor, slope: Tensor) -> Tensor:
    whole = (1,) * (x.dim() - slope.dim()) + tuple(slope.shape)
    each = (1, x.shape[1], *[1] * (x.dim() - 2))  # the slopes stand as ONNX broadcasts them
    if 1 not in c.constants or (slope.numel() != 1 and whole != each):
        raise Refused(f"slopes of shape {tuple(slope.shape)}; Caffe's PReLU has one, or one for each channel")
    return F.prelu(x, slope.reshape(-1).contiguous())


@computes("Elu")
def elu(c: Call, x: Tensor) -> Tensor:
    return F.elu(x, c.get("alpha", 1.0))


@computes("Selu")
def selu(c: Call, x: Tensor) -> Tensor:
    y: Tensor = F.elu(x, c.get("alpha", 1.6732632)) * c.get("gamma", 1.0507010)
    return y


@computes("Celu")
def celu(c: Call, x: Tensor) -> Tensor:
    alpha = c.get("alpha", 1.0)
    y: Tensor = F.elu(x * (1 / alpha)) * alpha
    return y


@computes("HardSigmoid")
def hard_sigmoid(c: Call, x: Tensor) -> Tensor:
    y: Tensor = (x * c.get("alpha", 0.2) + c.get("beta", 0.5)).clamp(0.0, 1.0)
    return y


@computes("Clip")
def clip(c: Call, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    for i, value in enumerate((low, high), 1):
        if value is not None and i not in c.constants:
            raise Refused("clips by blobs")
    return x.clamp(c.number(1, "min"), c.number(2, "max"))


@computes("Cast", "CastLike")
def cast(c: Call, x: Tensor, like: Tensor | None = None) -> Tensor:
    from onnx import TensorProto

    if 0 not in c.constants:
        if c.kind == "Cast" and c.get("to") not in (
            TensorProto.FLOAT,
            TensorProto.FLOAT16,
            TensorProto.DOUBLE,
        ):
            raise Refused("makes whole numbers of a blob, which Caffe cannot")
        return x
    if like is not None:
        return x.to(like.dtype)
    kinds = {TensorProto.FLOAT: torch.float32, TensorProto.FLOAT16: torch.float32, TensorProto.DOUBLE: torch.float32,
             TensorProto.INT64: torch.int64, TensorProto.INT32: torch.int64, TensorProto.BOOL: torch.bool}  # fmt: skip
    return x.to(kinds.get(c.get("to"), x.dtype))


# --- of several


def number(c: Call, i: int, x: Tensor) -> Tensor | float:
    """Input i, a constant of one value as a number."""
    alone = i in c.constants and x.numel() == 1 and len(c.constants) == 1 and not x.dim()
    return float(c.lists[i][0]) if alone else x


def pairwise(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Two or more inputs, one after the other."""

    def operator(c: Call, *inputs: Tensor) -> Tensor:
        total: Any = number(c, 0, inputs[0])
        for i, value in enumerate(inputs[1:], 1):
            total = function(total, number(c, i, value))
        return total  # type: ignore[no-any-return]

    return operator


computes("Add", "Sum")(pairwise(lambda a, b: a + b))
computes("Sub")(pairwise(lambda a, b: a - b))
computes("Mul")(pairwise(lambda a, b: a * b))
computes("Max")(pairwise(lambda a, b: torch.maximum(torch.as_tensor(a), torch.as_tensor(b))))
computes("Min")(pairwise(lambda a, b: -torch.maximum(-torch.as_tensor(a), -torch.as_tensor(b))))


@computes("Div")
def divide(c: Call, a: Tensor, b: Tensor) -> Tensor:
    if len(c.constants) == 2 and not a.is_floating_point():
        return torch.div(a, b, rounding_mode="trunc")
    if 1 in c.constants and b.is_floating_point() and 0 not in c.constants:
        return a * (1 / b)
    return a / b


@computes("Mean")
def average(c: Call, *inputs: Tensor) -> Tensor:
    total = inputs[0]
    for value in inputs[1:]:
        total = total + value
    return total * (1 / len(inputs)) if len(inputs) > 1 else total


@computes("Pow")
def power(c: Call, x: Tensor, exponent: Tensor) -> Tensor:
    if 1 not in c.constants or exponent.numel() != 1:
        raise Refused("has an exponent that is no number")
    return x ** float(c.number(1) or 0.0) if 0 not in c.constants else x**exponent


COMPARED: dict[str, Callable[..., Tensor]] = {
    "Equal": torch.eq, "Less": torch.lt, "Greater": torch.gt, "And": torch.logical_and, "Or": torch.logical_or,
    "LessOrEqual": torch.le, "GreaterOrEqual": torch.ge, "Where": torch.where,
}  # fmt: skip


def constants_alone(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An operator that shapes are worked out with."""

    def operator(c: Call, *inputs: Tensor) -> Tensor:
        if len(c.constants) != len(inputs):
            raise Refused("Caffe has no layer for it")
        return function(*inputs)

    return operator


for _name, _compare in COMPARED.items():
    computes(_name)(constants_alone(_compare))


@computes("Mod")
def modulo(c: Call, a: Tensor, b: Tensor) -> Tensor:
    return constants_alone(torch.fmod if c.get("fmod", 0) else torch.remainder)(c, a, b)
