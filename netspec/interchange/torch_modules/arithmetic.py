"""Sums, products and maxima of two values of a PyTorch program as layers of Caffe, repeated as torch repeats."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from netspec.interchange.blobs import Array
from netspec.interchange.torch_modules.base import Blob, Conversion, Unsupported, handles
from netspec.interchange.torch_modules.ops import power
from netspec.interchange.torch_modules.shapes import reshaped


@handles("add", "add_")
def add(c: Conversion, a: SimpleNamespace) -> Blob:
    return combined(c, a.self, a.other, "add", alpha=getattr(a, "alpha", 1))


@handles("sub", "sub_")
def sub(c: Conversion, a: SimpleNamespace) -> Blob:
    return combined(c, a.self, a.other, "add", alpha=-getattr(a, "alpha", 1))


@handles("rsub")
def rsub(c: Conversion, a: SimpleNamespace) -> Blob:
    return combined(c, a.other, a.self, "add", alpha=-getattr(a, "alpha", 1))


@handles("mul", "mul_")
def mul(c: Conversion, a: SimpleNamespace) -> Blob:
    return combined(c, a.self, a.other, "mul")


@handles("div", "div_")
def div(c: Conversion, a: SimpleNamespace) -> Blob:
    if getattr(a, "rounding_mode", None) is not None:
        raise Unsupported("rounds its quotient")
    if isinstance(a.other, Blob):
        return combined(c, a.self, power(c, c.blob(a.other), exponent=-1.0), "mul")
    return combined(c, a.self, 1 / a.other, "mul")


@handles("maximum", "max")
def maximum(c: Conversion, a: SimpleNamespace) -> Blob:
    other = getattr(a, "other", None)
    if not isinstance(a.self, Blob) or not isinstance(other, Blob) or a.self.shape != other.shape:
        raise Unsupported("is no maximum of two blobs of one shape")
    return c.one("Eltwise", c.blob(a.self), c.blob(other), eltwise_param={"operation": 2})


def combined(c: Conversion, x: Any, y: Any, how: str, alpha: float = 1.0) -> Blob:
    """x + alpha y or x y, whatever of the two is a blob, with the smaller one repeated as torch does."""
    if not isinstance(x, Blob):  # constant + alpha blob
        if how == "add" and alpha != 1:
            y, alpha = power(c, c.blob(y), scale=alpha), 1.0
        x, y = y, x
    x = c.blob(x)
    if not isinstance(y, Blob):
        return with_constant(c, x, np.asarray(y, np.float32) * alpha, how)
    y = c.blob(y)
    if x.shape == y.shape:
        if how == "mul":
            return c.one("Eltwise", x, y, eltwise_param={"operation": 0})
        coefficients = {} if alpha == 1 else {"coeff": [1.0, float(alpha)]}
        return c.one("Eltwise", x, y, eltwise_param={"operation": 1, **coefficients})
    if len(y.shape) > len(x.shape) or np.prod(y.shape) > np.prod(x.shape):
        if how == "add" and alpha != 1:
            y, alpha = power(c, y, scale=alpha), 1.0
        x, y = y, x
    elif how == "add" and alpha != 1:
        y = power(c, y, scale=alpha)
    return repeated(c, x, y, how)


def with_constant(c: Conversion, x: Blob, y: Array, how: str) -> Blob:
    """A Power by a number; a Scale or Bias by an array, along the axes on which it varies."""
    if y.size == 1:
        return (
            power(c, x, scale=float(y.ravel()[0])) if how == "mul" else power(c, x, shift=float(y.ravel()[0]))
        )
    if y.ndim > len(x.shape):
        raise Unsupported("repeats a blob along new axes")
    full = y.reshape((1,) * (len(x.shape) - y.ndim) + y.shape)
    axes = [axis for axis, size in enumerate(full.shape) if size != 1]
    start, end = axes[0], axes[-1] + 1
    if any(full.shape[axis] != x.shape[axis] for axis in axes):
        raise Unsupported("repeats a blob to the shape of a constant")
    values = np.broadcast_to(full.reshape(full.shape[start:end]), x.shape[start:end])
    settings: dict[str, Any] = {} if start == 1 else {"axis": start}
    if end - start != 1:
        settings["num_axes"] = end - start
    if how == "mul":
        return c.one("Scale", x, blobs=[values], scale_param=settings)
    return c.one("Bias", x, blobs=[values], bias_param=settings)


def repeated(c: Conversion, x: Blob, y: Blob, how: str) -> Blob:
    """Scale or Bias by a second blob, which varies along the first axes of x and is repeated along the rest."""
    shape = (1,) * (len(x.shape) - len(y.shape)) + y.shape
    rank = max((axis + 1 for axis, size in enumerate(shape) if size != 1), default=1)
    if shape[:rank] != x.shape[:rank]:
        raise Unsupported(f"repeats a blob of shape {y.shape} over {x.shape}, which Caffe's Scale cannot")
    if y.shape != shape[:rank]:
        y = reshaped(c, y, shape[:rank])
    if how == "mul":
        return c.one("Scale", x, y, scale_param={"axis": 0})
    return c.one("Bias", x, y, bias_param={"axis": 0})
