"""Operators of torch as layers of Caffe; each function makes the layers of one kind of operator."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from numbers import Number
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import Tensor

from netspec.interchange.blobs import Array
from netspec.interchange.torch_modules.base import Blob, Conversion, Handler, Unsupported, handles
from netspec.interchange.torch_modules.shapes import reshaped


def each(value: Any, n: int) -> list[int]:
    """A setting for each of n axes."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values * n if len(values) == 1 else values


# --- nothing at all


@handles(
    "dropout", "dropout_", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "alias", "clone",
    "contiguous", "detach", "detach_", "lift_fresh_copy", "to", "_to_copy", "expand", "expand_as", "type_as",
)  # fmt: skip
def same(c: Conversion, a: SimpleNamespace) -> Any:
    """Operators that change no value in eval mode (expand: where it changes no shape)."""
    value = a.input if hasattr(a, "input") else a.self
    if isinstance(value, Blob) and value.shape != tuple(c.real[c.node].shape) and not value.pad:
        raise Unsupported("repeats a blob, which Caffe's layers do not do by themselves")
    return value


# --- products


@handles("conv1d", "conv2d", "conv3d")
def conv(c: Conversion, a: SimpleNamespace) -> Blob:
    """Convolution, with zeros that were put around its bottom."""
    x, weight = a.input, c.constant(a.weight)
    if not isinstance(x, Blob):
        raise Unsupported("convolves a constant")
    n = weight.ndim - 2
    stride, dilation = each(a.stride, n), each(a.dilation, n)
    pad = padding(a.padding, weight.shape[2:], dilation, n)
    if x.pad:
        pad = [p + q for p, q in zip(pad, x.pad, strict=True)]
    return convolution(
        c, "Convolution", Blob(x.name, x.shape), weight, a, weight.shape[0], pad, stride, dilation
    )


def padding(value: Any, kernel: Sequence[int], dilation: Sequence[int], n: int) -> list[int]:
    """Zeros before and after each axis; `padding="same"` only where they are equally many."""
    if not isinstance(value, str):
        return each(value, n)
    if value == "valid":
        return [0] * n
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if any(t % 2 for t in total):
        raise Unsupported("padding='same' with an even kernel pads unequally, which Caffe cannot")
    return [t // 2 for t in total]


@handles("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(c: Conversion, a: SimpleNamespace) -> Blob:
    """Deconvolution."""
    x, weight = c.blob(a.input), c.constant(a.weight)
    n = weight.ndim - 2
    if any(each(a.output_padding, n)):
        raise Unsupported("has output_padding, which Caffe's Deconvolution lacks")
    outputs = weight.shape[1] * a.groups
    return convolution(
        c, "Deconvolution", x, weight, a, outputs, each(a.padding, n), each(a.stride, n), each(a.dilation, n)
    )


def convolution(
    c: Conversion,
    kind: str,
    x: Blob,
    weight: Array,
    a: SimpleNamespace,
    outputs: int,
    pad: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Blob:
    """A Convolution or Deconvolution layer; settings that are Caffe's defaults are left out."""
    settings: dict[str, Any] = {"num_output": outputs, "bias_term": a.bias is not None}
    written = {"kernel_size": weight.shape[2:], "pad": pad, "stride": stride, "dilation": dilation}
    defaults = {"kernel_size": None, "pad": 0, "stride": 1, "dilation": 1}
    for name, values in written.items():
        if any(value != defaults[name] for value in values):
            settings[name] = [values[0]] if len(set(values)) == 1 else list(values)
    if a.groups != 1:
        settings["group"] = a.groups
    blobs = [weight] if a.bias is None else [weight, c.constant(a.bias)]
    return c.one(kind, x, shape=c.real[c.node].shape, blobs=blobs, convolution_param=settings)


@handles("linear")
def linear(c: Conversion, a: SimpleNamespace) -> Blob:
    """InnerProduct over the last axis."""
    return product(c, c.blob(a.input), c.constant(a.weight), a.bias)


@handles("addmm")
def addmm(c: Conversion, a: SimpleNamespace) -> Blob:
    """bias + x W."""
    if a.alpha != 1 or a.beta != 1:
        raise Unsupported("scales its terms (alpha, beta)")
    return product(c, c.blob(a.mat1), c.constant(a.mat2).T, a.self)


@handles("mm", "matmul", "bmm")
def matmul(c: Conversion, a: SimpleNamespace) -> Blob:
    """x W with a constant W."""
    other = a.mat2 if hasattr(a, "mat2") else a.other
    if not isinstance(a.self, Blob) or not isinstance(other, Tensor) or other.dim() != 2:
        raise Unsupported("is a product of two blobs, for which Caffe has no layer")
    return product(c, c.blob(a.self), c.constant(other).T, None)


def product(c: Conversion, x: Blob, weight: Array, bias: Any) -> Blob:
    settings: dict[str, Any] = {"num_output": weight.shape[0], "bias_term": bias is not None}
    if len(x.shape) != 2:
        settings["axis"] = len(x.shape) - 1
    blobs = [weight] if bias is None else [weight, np.broadcast_to(c.constant(bias), weight.shape[:1])]
    shape = (*x.shape[:-1], weight.shape[0])
    return c.one("InnerProduct", x, shape=shape, blobs=blobs, inner_product_param=settings)


@handles("embedding")
def embedding(c: Conversion, a: SimpleNamespace) -> Blob:
    """Rows of a table: Embed."""
    x, table = c.blob(a.indices), c.constant(a.weight)
    settings = {"num_output": table.shape[1], "input_dim": table.shape[0], "bias_term": False}
    return c.one("Embed", x, shape=(*x.shape, table.shape[1]), blobs=[table], embed_param=settings)


# --- normalisation


@handles("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm")
def batch_norm(c: Conversion, a: SimpleNamespace) -> Blob:
    """BatchNorm by the running statistics, then Scale."""
    if a.running_mean is None or getattr(a, "training", False):
        raise Unsupported("normalises by the batch in eval mode too (no running statistics)")
    mean, variance = c.constant(a.running_mean), c.constant(a.running_var)
    settings = {"use_global_stats": True, "eps": a.eps}
    statistics = [mean, variance, np.ones(1, np.float32)]
    y = c.one("BatchNorm", c.blob(a.input), blobs=statistics, batch_norm_param=settings)
    if a.weight is None:
        return y
    blobs = [c.constant(a.weight), c.constant(a.bias)]
    return c.one("Scale", y, blobs=blobs, scale_param={"bias_term": True})


def by_rows(c: Conversion, x: Blob, rows: int, eps: float) -> Blob:
    """Each of `rows` runs of values to mean 0 and variance 1: BatchNorm by the batch's own statistics, over a batch of
    one with a channel for each run.
    """
    size = prod(x.shape) // rows
    flat = reshaped(c, x, (1, rows, *x.shape[2:]) if rows == x.shape[0] * x.shape[1] else (1, rows, size))
    statistics = [np.zeros(rows), np.ones(rows), np.ones(1)]
    settings = {"use_global_stats": False, "eps": eps}
    return reshaped(c, c.one("BatchNorm", flat, blobs=statistics, batch_norm_param=settings), x.shape)


def scaled_by(c: Conversion, x: Blob, weight: Any, bias: Any, axis: int = 1) -> Blob:
    """Times a weight, plus a bias, from an axis on; either may be None."""
    if weight is None and bias is None:
        return x
    shape = tuple((weight if weight is not None else bias).shape)
    blobs = [c.constant(weight) if weight is not None else np.ones(shape, np.float32)]
    blobs += [c.constant(bias)] if bias is not None else []
    settings: dict[str, Any] = {"bias_term": bias is not None}
    settings |= {} if (axis, len(shape)) == (1, 1) else {"axis": axis, "num_axes": len(shape)}
    return c.one("Scale", x, blobs=blobs, scale_param=settings)


@handles("instance_norm")
def instance_norm(c: Conversion, a: SimpleNamespace) -> Blob:
    """Each channel of each image by its own mean and variance, then Scale."""
    if not a.use_input_stats:
        by_statistics: Blob = batch_norm(c, a)
        return by_statistics
    x = c.blob(a.input)
    return scaled_by(c, by_rows(c, x, x.shape[0] * x.shape[1], a.eps), a.weight, a.bias)


@handles("group_norm")
def group_norm(c: Conversion, a: SimpleNamespace) -> Blob:
    """Each group of channels of each image by its own mean and variance, then Scale."""
    x = c.blob(a.input)
    return scaled_by(c, by_rows(c, x, x.shape[0] * a.num_groups, a.eps), a.weight, a.bias)


@handles("layer_norm")
def layer_norm(c: Conversion, a: SimpleNamespace) -> Blob:
    """The last axes by their own mean and variance, then Scale along them."""
    x, last = c.blob(a.input), len(a.normalized_shape)
    rows = prod(x.shape[: len(x.shape) - last])
    return scaled_by(c, by_rows(c, x, rows, a.eps), a.weight, a.bias, len(x.shape) - last)


@handles("argmax")
def argmax(c: Conversion, a: SimpleNamespace) -> Blob:
    """The place of the largest value along an axis; of equal ones Caffe may name another."""
    if a.dim is None:
        raise Unsupported("looks for the largest of all values; Caffe's ArgMax takes an axis")
    x = c.blob(a.self)
    axis = a.dim % len(x.shape)
    shape = tuple(1 if i == axis else n for i, n in enumerate(x.shape))
    places = c.one("ArgMax", x, shape=shape, argmax_param={"axis": axis})
    return reshaped(c, places, tuple(c.real[c.node].shape))


@handles("softmax")
def softmax(c: Conversion, a: SimpleNamespace) -> Blob:
    x = c.blob(a.self)
    axis = a.dim % len(x.shape)
    return c.one("Softmax", x, softmax_param={} if axis == 1 else {"axis": axis})


@handles("log_softmax")
def log_softmax(c: Conversion, a: SimpleNamespace) -> Blob:
    return c.one("Log", softmax(c, a))


# --- of single values


@handles("relu", "relu_")
def relu(c: Conversion, a: SimpleNamespace) -> Blob:
    return c.one("ReLU", c.blob(a.self))


@handles("leaky_relu", "leaky_relu_")
def leaky_relu(c: Conversion, a: SimpleNamespace) -> Blob:
    return c.one("ReLU", c.blob(a.self), relu_param={"negative_slope": a.negative_slope})


@handles("prelu")
def prelu(c: Conversion, a: SimpleNamespace) -> Blob:
    x, slope = c.blob(a.self), c.constant(a.weight)
    shared = slope.size == 1
    blob = slope.reshape(()) if shared else slope
    return c.one("PReLU", x, blobs=[blob], prelu_param={"channel_shared": True} if shared else {})


@handles("elu", "elu_")
def elu(c: Conversion, a: SimpleNamespace) -> Blob:
    if a.input_scale != 1:
        raise Unsupported("has a scale of its input, which Caffe's ELU lacks")
    y = c.one("ELU", c.blob(a.self), elu_param={"alpha": float(a.alpha)})
    return y if a.scale == 1 else power(c, y, scale=float(a.scale))


@handles("hardtanh", "hardtanh_", "clamp", "clamp_", "clip", "relu6")
def clamp(c: Conversion, a: SimpleNamespace) -> Blob:
    """Clip between constants."""
    low, high = (getattr(a, n, None) for n in ("min_val", "max_val"))
    low, high = getattr(a, "min", low), getattr(a, "max", high)
    if not hasattr(a, "min") and not hasattr(a, "min_val"):
        low, high = 0.0, 6.0
    if isinstance(low, Blob | Tensor) or isinstance(high, Blob | Tensor):
        raise Unsupported("clips by tensors")
    if high is None and low == 0:
        return c.one("ReLU", c.blob(a.self))
    largest = float(np.finfo(np.float32).max)
    settings = {
        "min": -largest if low is None else float(low),
        "max": largest if high is None else float(high),
    }
    return c.one("Clip", c.blob(a.self), clip_param=settings)


def plain(kind: str) -> Handler:
    """The handler of an operator that is a layer without settings."""

    def handler(c: Conversion, a: SimpleNamespace) -> Blob:
        return c.one(kind, c.blob(a.self))

    return handler


for _name, _kind in {
    "sigmoid": "Sigmoid",
    "tanh": "TanH",
    "abs": "AbsVal",
    "exp": "Exp",
    "log": "Log",
}.items():
    handles(_name, f"{_name}_")(plain(_kind))
handles("silu", "silu_")(plain("Swish"))


@handles("softplus")
def softplus(c: Conversion, a: SimpleNamespace) -> Blob:
    if a.beta != 1:
        raise Unsupported("has beta, which Caffe's BNLL lacks")
    return c.one("BNLL", c.blob(a.self))


@handles("selu", "selu_")
def selu(c: Conversion, a: SimpleNamespace) -> Blob:
    y = c.one("ELU", c.blob(a.self), elu_param={"alpha": 1.6732632423543772})
    return power(c, y, scale=1.0507009873554805)


@handles("celu", "celu_")
def celu(c: Conversion, a: SimpleNamespace) -> Blob:
    alpha = float(a.alpha)
    return power(
        c, c.one("ELU", power(c, c.blob(a.self), scale=1 / alpha), elu_param={"alpha": 1.0}), scale=alpha
    )


@handles("mish", "mish_")
def mish(c: Conversion, a: SimpleNamespace) -> Blob:
    x = c.blob(a.self)
    return c.one("Eltwise", x, c.one("TanH", c.one("BNLL", x)), eltwise_param={"operation": 0})


@handles("hardsigmoid", "hardsigmoid_")
def hardsigmoid(c: Conversion, a: SimpleNamespace) -> Blob:
    line = power(c, c.blob(a.self), scale=1 / 6, shift=0.5)
    return c.one("Clip", line, clip_param={"min": 0.0, "max": 1.0})


@handles("hardswish", "hardswish_")
def hardswish(c: Conversion, a: SimpleNamespace) -> Blob:
    x = c.blob(a.self)
    return c.one("Eltwise", x, hardsigmoid(c, a), eltwise_param={"operation": 0})


def power(c: Conversion, x: Blob, *, exponent: float = 1.0, scale: float = 1.0, shift: float = 0.0) -> Blob:
    """(shift + scale x)^exponent"""
    given = {"power": exponent, "scale": scale, "shift": shift}
    defaults = {"power": 1.0, "scale": 1.0, "shift": 0.0}
    settings = {name: float(value) for name, value in given.items() if value != defaults[name]}
    return c.one("Power", x, power_param=settings)


@handles("pow")
def pow_(c: Conversion, a: SimpleNamespace) -> Blob:
    if not isinstance(a.exponent, Number):
        raise Unsupported("has an exponent that is no number")
    return power(c, c.blob(a.self), exponent=float(a.exponent))  # type: ignore[arg-type]


for _name, _settings in {
    "neg": {"scale": -1.0},
    "sqrt": {"exponent": 0.5},
    "rsqrt": {"exponent": -0.5},
    "reciprocal": {"exponent": -1.0},
    "square": {"exponent": 2.0},
}.items():
    handles(_name)(lambda c, a, settings=_settings: power(c, c.blob(a.self), **settings))  # type: ignore[misc]
