"""Operators with sliding windows: convolutions and pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from netspec.interchange.onnx_nets.graph import Call, Refused, computes


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
        if c.kind == "AveragePool" and c.get("count_include_pad", 0):
            raise Refused("counts unequal padding, which Caffe's Pooling cannot")
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
