"""Pooling, reduction and enlargement of PyTorch programs as layers of Caffe."""

from __future__ import annotations

from math import ceil
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import Tensor

from netspec.interchange.torch_modules.base import Blob, Conversion, Unsupported, handles
from netspec.interchange.torch_modules.ops import each
from netspec.interchange.torch_modules.shapes import reshaped


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
    """A Pooling layer that says how it rounds where rounding up, Caffe's way, gives another size."""
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
    if tuple(caffe_size(*axis, up=True) for axis in sizes) != shape[2:]:
        if tuple(caffe_size(*axis, up=False) for axis in sizes) != shape[2:]:
            raise Unsupported(f"gives {shape[2:]}, which no rounding of Caffe's gives")
        settings |= c.rounds_down
    return c.one("Pooling", x, shape=shape, pooling_param=settings)


def caffe_size(size: int, kernel: int, stride: int, pad: int, up: bool) -> int:
    """Outputs of Caffe's Pooling: rounded up by default, a last window that begins in the padding left out."""
    steps = (size + 2 * pad - kernel) / stride
    count = (ceil(steps) if up else int(steps // 1)) + 1
    return count - 1 if pad and (count - 1) * stride >= size + pad else count


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
    written = kernel[:1] if len(set(kernel)) == 1 else kernel
    channels = x.shape[1]
    settings = {
        "num_output": channels,
        "group": channels,
        "bias_term": False,
        "kernel_size": written,
        "stride": written,
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
