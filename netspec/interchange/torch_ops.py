"""Operators of torch as layers of Caffe; each function makes the layers of one kind of operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import ceil
from numbers import Number
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import Tensor

from netspec.interchange.blobs import Array
from netspec.interchange.torch_modules import Blob, Conversion, Unsupported

Handler = Callable[[Conversion, SimpleNamespace], Any]
OPERATORS: dict[str, Handler] = {}
"""Handler by the operator's name in aten, all overloads alike."""


def handles(*names: str) -> Callable[[Handler], Handler]:
    def add(handler: Handler) -> Handler:
        for name in names:
            OPERATORS[name] = handler
        return handler

    return add


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
    if a.scale != 1 or a.input_scale != 1:
        raise Unsupported("has scales, which Caffe's ELU lacks")
    return c.one("ELU", c.blob(a.self), elu_param={"alpha": float(a.alpha)})


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


# --- sums and products of two


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


# --- pooling and reduction


@handles("max_pool2d", "max_pool2d_with_indices")
def max_pool(c: Conversion, a: SimpleNamespace) -> Any:
    if any(d != 1 for d in each(a.dilation, 2)):
        raise Unsupported("has dilation, which Caffe's Pooling lacks")
    y = pooled(c, a, "MAX")
    return y if not isinstance(c.real[c.node], tuple) else (y, None)


@handles("avg_pool2d")
def avg_pool(c: Conversion, a: SimpleNamespace) -> Blob:
    """AVE pooling; Caffe counts zeros of the padding in, as count_include_pad does."""
    if any(each(a.padding, 2)) and not a.count_include_pad:
        raise Unsupported("leaves padding out of its averages (count_include_pad=False), Caffe counts it in")
    if a.divisor_override is not None:
        raise Unsupported("has a divisor of its own, which Caffe's Pooling lacks")
    return pooled(c, a, "AVE")


def pooled(c: Conversion, a: SimpleNamespace, method: str) -> Blob:
    """A Pooling layer with round_mode where rounding up, Caffe's way, gives another size."""
    x = c.blob(a.self)
    kernel = each(a.kernel_size, 2)
    stride, pad = each(a.stride, 2) if a.stride not in ([], None) else kernel, each(a.padding, 2)
    real = c.real[c.node]
    shape = tuple((real[0] if isinstance(real, tuple) else real).shape)
    if len(x.shape) != 4:
        raise Unsupported(f"pools a blob of {len(x.shape)} axes, Caffe's Pooling takes 4")
    sizes = list(zip(x.shape[2:], kernel, stride, pad, strict=True))
    settings: dict[str, Any] = {"pool": {"MAX": 0, "AVE": 1}[method]}
    for name, values, default in (("kernel", kernel, None), ("stride", stride, 1), ("pad", pad, 0)):
        if values[0] == values[1]:
            if values[0] != default:
                settings["kernel_size" if name == "kernel" else name] = values[0]
        else:
            settings |= {f"{name}_h": values[0], f"{name}_w": values[1]}
    if tuple(caffe_size(*one, up=True) for one in sizes) != shape[2:]:
        if tuple(caffe_size(*one, up=False) for one in sizes) != shape[2:]:
            raise Unsupported(f"gives {shape[2:]}, which no rounding of Caffe's gives")
        settings["round_mode"] = 1
    return c.one("Pooling", x, shape=shape, pooling_param=settings)


def caffe_size(size: int, kernel: int, stride: int, pad: int, up: bool) -> int:
    """Outputs of Caffe's Pooling: rounded up by default, a last window that begins in the padding left out."""
    steps = (size + 2 * pad - kernel) / stride
    found = (ceil(steps) if up else int(steps // 1)) + 1
    return found - 1 if pad and (found - 1) * stride >= size + pad else found


@handles("adaptive_avg_pool2d", "adaptive_max_pool2d")
def adaptive_pool(c: Conversion, a: SimpleNamespace) -> Any:
    """Pooling with the windows that give so many outputs, where they do not overlap."""
    x, real = c.blob(a.self), c.real[c.node]
    method = 1 if isinstance(real, Tensor) else 0
    shape = tuple((real if isinstance(real, Tensor) else real[0]).shape)
    if shape == x.shape:
        y = x
    elif shape[2:] == (1, 1):
        y = c.one("Pooling", x, shape=shape, pooling_param={"pool": method, "global_pooling": True})
    elif any(size % out for size, out in zip(x.shape[2:], shape[2:], strict=True)):
        raise Unsupported(f"pools {x.shape[2:]} to {shape[2:]}: windows of unequal size, which Caffe lacks")
    else:
        height, width = (size // out for size, out in zip(x.shape[2:], shape[2:], strict=True))
        sizes = {"kernel_h": height, "kernel_w": width, "stride_h": height, "stride_w": width}
        y = c.one("Pooling", x, shape=shape, pooling_param={"pool": method, **sizes})
    return y if isinstance(real, Tensor) else (y, None)


@handles("mean", "sum", "amax")
def reduce(c: Conversion, a: SimpleNamespace) -> Blob:
    """Global pooling of planes, or Reduction of the last axes."""
    x, name = c.blob(a.self), str(c.node.target._schema.name).split("::")[1]
    rank = len(x.shape)
    dims = getattr(a, "dim", None)
    axes = sorted(axis % rank for axis in (range(rank) if dims in (None, []) else each(dims, 1)))
    shape = tuple(c.real[c.node].shape)
    if rank == 4 and axes == [2, 3] and name != "sum":
        settings = {"pool": 0 if name == "amax" else 1, "global_pooling": True}
        y = c.one("Pooling", x, shape=(*x.shape[:2], 1, 1), pooling_param=settings)
    elif axes == list(range(axes[0], rank)) and name != "amax":
        settings = {"operation": {"sum": 1, "mean": 4}[name], "axis": axes[0]}
        y = c.one("Reduction", x, shape=x.shape[: axes[0]], reduction_param=settings)
    else:
        raise Unsupported(
            f"reduces axes {axes} of {rank}; Caffe's Reduction takes the last ones, by sum or mean"
        )
    return y if y.shape == shape else reshaped(c, y, shape)


# --- shapes


def reshaped(c: Conversion, x: Blob, shape: Sequence[int]) -> Blob:
    """Reshape; axes that stay are written as 0, so that any batch size works."""
    if tuple(shape) == x.shape:
        return x
    dims = [0 if i < len(x.shape) and x.shape[i] == n else n for i, n in enumerate(shape)]
    layer = c.one("Reshape", x, shape=shape, reshape_param={})
    target = c.message.layer[-1].reshape_param.shape
    target.SetInParent()
    target.dim.extend(dims)
    return layer


@handles("view", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "unflatten", "unsqueeze_", "squeeze_")
def reshape(c: Conversion, a: SimpleNamespace) -> Blob:
    return reshaped(c, c.blob(a.self), tuple(c.real[c.node].shape))


@handles("flatten")
def flatten(c: Conversion, a: SimpleNamespace) -> Blob:
    x, shape = c.blob(a.self), tuple(c.real[c.node].shape)
    if shape == x.shape:
        return x
    settings = {} if a.start_dim == 1 else {"axis": a.start_dim}
    settings |= {} if a.end_dim in (-1, len(x.shape) - 1) else {"end_axis": a.end_dim}
    return c.one("Flatten", x, shape=shape, flatten_param=settings)


@handles("permute", "transpose", "t", "movedim", "swapaxes")
def permute(c: Conversion, a: SimpleNamespace) -> Blob:
    """Permute, a layer of the SSD fork."""
    x = c.blob(a.self)
    rank = len(x.shape)
    order = list(range(rank))
    if hasattr(a, "dims"):
        order = [axis % rank for axis in a.dims]
    elif hasattr(a, "dim0"):
        i, j = a.dim0 % rank, a.dim1 % rank
        order[i], order[j] = order[j], order[i]
    elif rank == 2:
        order = [1, 0]
    if order == list(range(rank)):
        return x
    return c.one("Permute", x, shape=[x.shape[axis] for axis in order], permute_param={"order": order})


@handles("channel_shuffle")
def channel_shuffle(c: Conversion, a: SimpleNamespace) -> Blob:
    """Channels as a table of groups, transposed."""
    x = c.blob(a.self if hasattr(a, "self") else a.input)
    n, channels, *plane = x.shape
    y = reshaped(c, x, (n, a.groups, channels // a.groups, *plane))
    order = [0, 2, 1, *range(3, len(y.shape))]
    y = c.one("Permute", y, shape=[y.shape[axis] for axis in order], permute_param={"order": order})
    return reshaped(c, y, x.shape)


@handles("cat", "concat", "concatenate")
def cat(c: Conversion, a: SimpleNamespace) -> Blob:
    blobs = [c.blob(value) for value in a.tensors]
    axis = a.dim % len(blobs[0].shape)
    settings = {} if axis == 1 else {"axis": axis}
    return c.one("Concat", *blobs, shape=c.real[c.node].shape, concat_param=settings)


@handles("chunk", "split", "split_with_sizes", "tensor_split")
def split(c: Conversion, a: SimpleNamespace) -> list[Blob]:
    x = c.blob(a.self)
    axis = a.dim % len(x.shape)
    return pieces(c, x, axis, [int(value.shape[axis]) for value in c.real[c.node]])


@handles("unbind")
def unbind(c: Conversion, a: SimpleNamespace) -> list[Blob]:
    x = c.blob(a.self)
    axis = a.dim % len(x.shape)
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    return [reshaped(c, piece, shape) for piece in pieces(c, x, axis, [1] * x.shape[axis])]


@handles("slice", "narrow", "select")
def narrow(c: Conversion, a: SimpleNamespace) -> Blob:
    """A range of an axis: the middle one of up to three pieces."""
    x, shape = c.blob(a.self), tuple(c.real[c.node].shape)
    axis, size = a.dim % len(x.shape), x.shape[a.dim]
    if getattr(a, "step", 1) != 1:
        raise Unsupported("takes every other value, which Caffe's Slice cannot")
    start = a.index if hasattr(a, "index") else (a.start or 0)
    start = min(start + size if start < 0 else start, size)
    length = 1 if hasattr(a, "index") else shape[axis]
    sizes = [start, length, size - start - length]
    found = pieces(c, x, axis, [n for n in sizes if n])[1 if start else 0]
    return reshaped(c, found, shape)


def pieces(c: Conversion, x: Blob, axis: int, sizes: Sequence[int]) -> list[Blob]:
    """Slice; a single piece is the blob itself."""
    if len(sizes) == 1:
        return [x]
    shapes = [(*x.shape[:axis], n, *x.shape[axis + 1 :]) for n in sizes]
    settings: dict[str, Any] = {"slice_point": list(accumulate(sizes))[:-1]}
    if axis != 1:
        settings["axis"] = axis
    return c.add("Slice", [x], shapes, slice_param=settings)


@handles("constant_pad_nd", "pad")
def pad(c: Conversion, a: SimpleNamespace) -> Blob:
    """Zeros around planes, left to the convolution that follows."""
    x = c.blob(a.self)
    if a.value or getattr(a, "mode", "constant") != "constant":
        raise Unsupported("pads with other values than zero, which Caffe does not")
    pairs = [tuple(a.pad[i : i + 2]) for i in range(0, len(a.pad), 2)][::-1]
    n = len(x.shape) - 2
    pairs = [(0, 0)] * (n - len(pairs)) + pairs
    if len(pairs) != n or any(low != high or low < 0 for low, high in pairs):
        raise Unsupported("pads unequally, or crops, or pads channels, which Caffe does not")
    return Blob(x.name, x.shape, tuple(low for low, _ in pairs)) if any(low for low, _ in pairs) else x


# --- larger planes


@handles("upsample_nearest2d")
def nearest(c: Conversion, a: SimpleNamespace) -> Blob:
    """Each value repeated: a Deconvolution of ones by channel."""
    x = c.blob(a.self if hasattr(a, "self") else a.input)
    shape = tuple(c.real[c.node].shape)
    factors = [out / size for out, size in zip(shape[2:], x.shape[2:], strict=True)]
    if any(f != int(f) for f in factors):
        raise Unsupported(f"enlarges {x.shape[2:]} to {shape[2:]}, no whole multiple")
    kernel = [int(f) for f in factors]
    channels = x.shape[1]
    settings = {
        "num_output": channels,
        "group": channels,
        "bias_term": False,
        "kernel_size": kernel,
        "stride": kernel,
    }
    ones = np.ones((channels, 1, *kernel), np.float32)
    y = c.one("Deconvolution", x, shape=shape, blobs=[ones], convolution_param=settings)
    c.message.layer[-1].param.add(lr_mult=0, decay_mult=0)
    return y


@handles("upsample_bilinear2d")
def bilinear(c: Conversion, a: SimpleNamespace) -> Blob:
    """Interp, a layer of many forks, which puts corners on corners."""
    x = c.blob(a.self if hasattr(a, "self") else a.input)
    shape = tuple(c.real[c.node].shape)
    if not a.align_corners:
        raise Unsupported("interpolates with align_corners=False; Caffe's Interp has corners aligned")
    return c.one("Interp", x, shape=shape, interp_param={"height": shape[2], "width": shape[3]})
