"""ONNX's operators in torch's, those that Caffe has layers for, and those that only shapes and constants need."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from netspec.data.files.idx import Array
from netspec.interchange.onnx_nets.graph import SHORT, SHORT_OF, Call, Refused, bounded, computes

# --- windows


def window(
    c: Call, x: Tensor, kernel: Sequence[int], up: bool = False
) -> tuple[list[int], list[int], list[int]]:
    """(stride, dilation, pads as begin and end of each axis) of a node with windows."""
    n = len(kernel)
    stride, dilation = list(c.get("strides", [1] * n)), list(c.get("dilations", [1] * n))
    mode = c.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return stride, dilation, list(c.get("pads", [0] * 2 * n))
    pads = [0] * 2 * n
    if mode == "VALID":
        return stride, dilation, pads
    for i in range(n):
        size = x.shape[2 + i]
        total = max(
            (math.ceil(size / stride[i]) - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 - size, 0
        )
        small, large = total // 2, total - total // 2
        pads[i], pads[n + i] = (small, large) if mode == "SAME_UPPER" else (large, small)
    return stride, dilation, pads


def equal(pads: Sequence[int]) -> list[int] | None:
    """Padding that is the same at both ends of each axis; None where it is not."""
    n = len(pads) // 2
    return list(pads[:n]) if list(pads[:n]) == list(pads[n:]) else None


def padded(x: Tensor, pads: Sequence[int], value: float = 0.0) -> Tensor:
    """x with `value` around its last axes."""
    n = len(pads) // 2
    pairs = [side for i in reversed(range(n)) for side in (pads[i], pads[n + i])]
    return F.pad(x, pairs, value=value) if any(pairs) else x


@computes("Conv")
def conv(c: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    stride, dilation, pads = window(c, x, weight.shape[2:])
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}.get(weight.dim() - 2)
    if function is None:
        raise Refused(f"convolves {weight.dim() - 2} axes")
    pad = equal(pads)
    if pad is None:
        # Unequal padding: a kernel with zeros at its smaller side is the same with equal padding.
        n = len(pads) // 2
        gaps = [pads[n + i] - pads[i] for i in range(n)]
        if any(gap % dilation[i] for i, gap in enumerate(gaps)):
            raise Refused(f"pads unequally ({pads}) with dilation {dilation}, which Caffe cannot")
        wide = [max(pads[i], pads[n + i]) for i in range(n)]
        grown = [max(gap, 0) // dilation[i] for i, gap in enumerate(gaps)]
        behind = [max(-gap, 0) // dilation[i] for i, gap in enumerate(gaps)]
        return function(
            x, padded(weight, [*grown, *behind]), bias, stride, wide, dilation, int(c.get("group", 1))
        )
    return function(x, weight, bias, stride, pad, dilation, int(c.get("group", 1)))


@computes("ConvTranspose")
def conv_transpose(c: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if c.get("output_shape") or c.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise Refused("gives the size of its output, which Caffe's Deconvolution cannot")
    n = weight.dim() - 2
    stride, dilation = c.get("strides", [1] * n), c.get("dilations", [1] * n)
    pad = equal(c.get("pads", [0] * 2 * n))
    extra = c.get("output_padding", [0] * n)
    if pad is None or any(extra):
        raise Refused("pads unequally, which Caffe's Deconvolution cannot")
    function = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[n]
    return function(x, weight, bias, stride, pad, 0, int(c.get("group", 1)), dilation)


@computes("MaxPool", "AveragePool")
def pool(c: Call, x: Tensor) -> Tensor:
    kernel = list(c.get("kernel_shape"))
    if len(kernel) != 2:
        raise Refused(f"pools {len(kernel)} axes, Caffe's Pooling 2")
    if c.outputs > 1:
        raise Refused("gives the places of its maxima, which are read by nothing of Caffe's")
    stride, dilation, pads = window(c, x, kernel)
    if any(d != 1 for d in dilation):
        raise Refused("has dilation, which Caffe's Pooling lacks")
    up = bool(c.get("ceil_mode", 0))
    pad = equal(pads)
    if pad is None:
        pad, up = rounded_up(x, kernel, stride, pads, up)
    if c.kind == "MaxPool":
        return F.max_pool2d(x, kernel, stride, pad, 1, up)
    return F.avg_pool2d(x, kernel, stride, pad, up, bool(c.get("count_include_pad", 0)) or not any(pads))


def rounded_up(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], pads: Sequence[int], up: bool
) -> tuple[list[int], bool]:
    """Equal padding and rounding up that place the same windows as more padding at the end does."""
    n = len(kernel)
    before = list(pads[:n])
    for i in range(n):
        size, end = x.shape[2 + i], pads[n + i]
        if up:
            break
        wanted = (size + before[i] + end - kernel[i]) // stride[i] + 1
        count = -(-(size + 2 * before[i] - kernel[i]) // stride[i]) + 1
        if (count - 1) * stride[i] >= size + before[i]:
            count -= 1
        if wanted != count:
            break
    else:
        return before, True
    raise Refused(f"pads unequally ({list(pads)}), which Caffe's Pooling cannot")


@computes("GlobalAveragePool")
def global_average(c: Call, x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, 1) if x.dim() == 4 else x.mean(list(range(2, x.dim())), keepdim=True)


@computes("GlobalMaxPool")
def global_max(c: Call, x: Tensor) -> Tensor:
    if x.dim() != 4:
        raise Refused(f"pools {x.dim() - 2} axes, Caffe's Pooling 2")
    return F.adaptive_max_pool2d(x, 1)


# --- products


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
    "LessOrEqual": torch.le, "GreaterOrEqual": torch.ge, "Mod": torch.remainder, "Where": torch.where,
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


# --- of shapes


@computes("Constant")
def constant(c: Call) -> Tensor:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if (value := c.get(name)) is not None:
            return value if isinstance(value, Tensor) else torch.tensor(value)
    raise Refused("is a constant of another kind than numbers")


@computes("ConstantOfShape")
def constant_of_shape(c: Call, shape: Tensor) -> Tensor:
    sizes = c.ints(0) or []
    bounded(math.prod(sizes))
    value = c.get("value")
    return torch.full(sizes, value.flatten()[0].item()) if value is not None else torch.zeros(sizes)


@computes("Range")
def arange(c: Call, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    first, last, step = (c.lists[i][0] for i in range(3))
    if not step:
        raise Refused("has steps of 0")
    bounded(int((last - first) / step))
    return torch.arange(first, last, step)


@computes("Reshape")
def reshape(c: Call, x: Tensor, shape: Tensor | None = None) -> Tensor:
    sizes = c.ints(1, "shape")
    if sizes is None:
        raise Refused("has a shape that depends on the input")
    if not c.get("allowzero", 0):
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


@computes("Flatten")
def flatten(c: Call, x: Tensor) -> Tensor:
    axis = c.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    if axis == 1 and x.dim() > 1:
        return x.flatten(1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


@computes("Squeeze")
def squeeze(c: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    axis_numbers = c.ints(1, "axes")
    gone = (
        {a % x.dim() for a in axis_numbers}
        if axis_numbers is not None
        else {i for i, n in enumerate(x.shape) if n == 1}
    )
    return x.reshape([n for i, n in enumerate(x.shape) if i not in gone])


@computes("Unsqueeze")
def unsqueeze(c: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    axis_numbers = c.ints(1, "axes") or []
    rank = x.dim() + len(axis_numbers)
    new, rest = {axis % rank for axis in axis_numbers}, iter(x.shape)
    return x.reshape([1 if i in new else next(rest) for i in range(rank)])


@computes("Transpose")
def transpose(c: Call, x: Tensor) -> Tensor:
    return x.permute(c.get("perm", list(range(x.dim()))[::-1]))


@computes("Concat")
def concat(c: Call, *inputs: Tensor) -> Tensor:
    return torch.cat(inputs, c.get("axis", 1))


@computes("Split")
def split(c: Call, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = c.get("axis", 0)
    parts = c.ints(1, "split")
    if parts is None:
        each = -(-x.shape[axis] // c.outputs)
        parts = [each] * (c.outputs - 1) + [x.shape[axis] - each * (c.outputs - 1)]
    return torch.split(x, parts, axis)


@computes("Slice")
def cut(c: Call, x: Tensor, *rest: Tensor | None) -> Tensor:
    starts, ends = c.ints(1, "starts"), c.ints(2, "ends")
    if starts is None or ends is None:
        raise Refused("begins or ends where the input says")
    axes = c.ints(3, "axes", range(len(starts))) or []
    steps = c.ints(4, "", [1] * len(starts)) or []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 1:
            raise Refused("goes backwards, which Caffe's Slice cannot")
        size = x.shape[axis]
        first, last, _ = slice(start, end).indices(size)
        if (first, last, step) != (0, size, 1):
            x = (
                x.narrow(axis, first, max(last - first, 0))
                if step == 1
                else strided(x, axis, first, last, step)
            )
    return x


def strided(x: Tensor, axis: int, first: int, last: int, step: int) -> Tensor:
    """Every step-th value of an axis."""
    index = [slice(None)] * x.dim()
    index[axis] = slice(first, last, step)
    return x[tuple(index)]


@computes("Gather")
def gather(c: Call, x: Tensor, index: Tensor) -> Tensor:
    axis = c.get("axis", 0)
    if 1 not in c.constants:
        raise Refused("takes what the input says; Caffe's Embed does so from a table alone")
    axis = axis % x.dim()
    size = x.shape[axis]
    if 0 in c.constants:
        flat = index.flatten()
        taken = x.index_select(axis, torch.where(flat < 0, flat + size, flat))
        return taken.reshape(x.shape[:axis] + index.shape + x.shape[axis + 1 :])
    places = c.ints(1)
    if places is None:
        raise Refused(f"takes more than {SHORT_OF['Gather']} places")
    if outside := [place for place in places if not -size <= place < size]:
        raise Refused(f"takes place {outside[0]} of {size}")
    places = [place % size for place in places]
    if index.dim() == 0:
        return x.select(axis, places[0])
    if index.dim() != 1 or not places:
        raise Refused("takes a table of places, or none")
    stretches = runs(places)
    if len(stretches) > SHORT:
        raise Refused(f"takes {len(stretches)} runs of places, more than {SHORT}")
    parts = [x.narrow(axis, first, count) for first, count in stretches]
    return torch.cat(parts, axis) if len(parts) > 1 else parts[0]


def runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """(first, count) of the runs in which places follow each other."""
    stretches: list[tuple[int, int]] = []
    for place in places:
        if stretches and place == sum(stretches[-1]):
            stretches[-1] = (stretches[-1][0], stretches[-1][1] + 1)
        else:
            stretches.append((place, 1))
    return stretches


@computes("Expand")
def expand(c: Call, x: Tensor, shape: Tensor) -> Tensor:
    sizes = list(np.broadcast_shapes(tuple(x.shape), tuple(c.ints(1) or ())))
    bounded(math.prod(sizes))
    return x.expand(sizes)


@computes("Tile")
def tile(c: Call, x: Tensor, repeats: Tensor) -> Tensor:
    counts = c.ints(1) or []
    bounded(math.prod(counts) * max(x.numel(), 1))
    for axis, count in enumerate(counts):
        if count != 1:
            x = torch.cat([x] * count, axis)
    return x


@computes("Pad")
def pad(c: Call, x: Tensor, *rest: Tensor | None) -> Tensor:
    c.only("mode", "constant")
    pads = c.ints(1, "pads") or []
    value = c.number(2, "value", 0.0)
    axes = c.ints(3) if 3 in c.constants else list(range(len(pads) // 2))
    whole = [0] * 2 * x.dim()
    for i, axis in enumerate(axes or []):
        whole[axis % x.dim()], whole[x.dim() + axis % x.dim()] = pads[i], pads[len(pads) // 2 + i]
    bounded(math.prod(n + whole[i] + whole[x.dim() + i] for i, n in enumerate(x.shape)))
    return padded(x, whole, value or 0.0)


@computes("SpaceToDepth")
def space_to_depth(c: Call, x: Tensor) -> Tensor:
    size = int(c.get("blocksize"))
    if size < 1 or any(n % size for n in x.shape[2:]):
        raise Refused(f"blocksize {size}, which does not divide {' x '.join(map(str, x.shape[2:]))} pixels")
    bounded((x.shape[1] * size**2) ** 2)  # the kernel's
    return torch.cat([x[:, :, i::size, j::size] for i in range(size) for j in range(size)], 1)


@computes("DepthToSpace")
def depth_to_space(c: Call, x: Tensor) -> Tensor:
    """A transposed convolution by a kernel that has one 1 for each channel."""
    size = int(c.get("blocksize"))
    if size < 1 or x.shape[1] % size**2:
        raise Refused(f"blocksize {size}, whose square does not divide {x.shape[1]} channels")
    outputs = x.shape[1] // size**2
    kernel = torch.zeros(x.shape[1], outputs, size, size)
    for i in range(size):
        for j in range(size):
            for k in range(outputs):
                place = (
                    (i * size + j) * outputs + k
                    if c.get("mode", "DCR") == "DCR"
                    else k * size**2 + i * size + j
                )
                kernel[place, k, i, j] = 1
    return F.conv_transpose2d(x, kernel, None, size)


@computes("Resize", "Upsample")
def resize(c: Call, x: Tensor, *rest: Tensor | None) -> Tensor:
    if x.dim() != 4:
        raise Refused(f"resizes {x.dim() - 2} axes")
    c.only("keep_aspect_ratio_policy", "stretch")
    c.only("antialias", 0)
    size = scaled(c, x)
    mode = c.get("mode", "nearest")
    if list(size) == list(x.shape[2:]):
        return x
    if mode == "nearest":
        if any(new % old for new, old in zip(size, x.shape[2:], strict=True)):
            raise Refused("repeats pixels unequally, which Caffe's layers do not")
        repeats(c, x, size)
        return F.interpolate(x, size)
    if mode not in ("linear", "bilinear"):
        raise Refused(f"mode {mode!r}; Caffe has nearest and linear")
    kind = c.get("coordinate_transformation_mode", "half_pixel" if c.kind == "Resize" else "asymmetric")
    if kind not in ("align_corners", "half_pixel", "pytorch_half_pixel"):
        raise Refused(f"coordinate_transformation_mode {kind!r}; Caffe's Interp puts corners on corners")
    return F.interpolate(x, size, mode="bilinear", align_corners=kind == "align_corners")


PLACES: dict[str, Callable[[Array, int], Array]] = {
    "asymmetric": lambda i, scale: i / scale,
    "half_pixel": lambda i, scale: (i + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda i, scale: (i + 0.5) / scale - 0.5,
    "tf_half_pixel_for_nn": lambda i, scale: (i + 0.5) / scale,
}
"""Where a pixel of the output lies in the input, by coordinate_transformation_mode."""
ROUNDED: dict[str, Callable[[Array], Array]] = {
    "floor": np.floor, "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - 0.5), "round_prefer_ceil": lambda x: np.floor(x + 0.5),
}  # fmt: skip


def repeats(c: Call, x: Tensor, size: Sequence[int]) -> None:
    """Refused unless nearest neighbours repeat each pixel as often as any other."""
    old = c.kind == "Upsample" or c.opset < 11
    kind = c.get("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    mode = c.get("nearest_mode", "floor" if old else "round_prefer_floor")
    for axis, new in enumerate(size, 2):
        scale = new // x.shape[axis]
        if (factors := factors_of(c)) and not math.isclose(factors[axis], scale, rel_tol=1e-6):
            raise Refused(
                f"scale {factors[axis]:g} gives {scale} pixels for each, which Caffe's layers do not"
            )
        if kind not in PLACES or mode not in ROUNDED:
            same = False
        else:
            places = ROUNDED[mode](PLACES[kind](np.arange(new), scale)).clip(0, x.shape[axis] - 1)
            same = np.array_equal(places, np.arange(new) // scale)
        if scale > 1 and not same:
            raise Refused(f"nearest_mode {mode!r} with coordinates {kind!r} repeats pixels unequally")


def factors_of(c: Call) -> list[float] | None:
    """The scales of a Resize, where it gives these and no sizes."""
    if 3 in c.constants and c.constants[3].numel():
        return None
    return c.lists.get(2 if c.kind == "Resize" and c.opset >= 11 else 1) or c.get("scales")


def scaled(c: Call, x: Tensor) -> list[int]:
    """Height and width that a Resize gives."""
    if 3 in c.constants and c.constants[3].numel():
        sizes = c.ints(3) or []
    else:
        factors = factors_of(c)
        if not factors:
            raise Refused("has a size that depends on the input")
        sizes = [math.floor(n * f) for n, f in zip(x.shape, factors, strict=True)]
    if list(sizes[:2]) != list(x.shape[:2]):
        raise Refused("changes batch or channels")
    bounded(math.prod(sizes))
    return [int(n) for n in sizes[2:]]


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
