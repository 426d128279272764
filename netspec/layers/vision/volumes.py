"""C3D's layers over space and time: fields for height and width as usual, and one each for time."""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor
from torch.nn import functional

from netspec.layers.base import Layer, Shape, register
from netspec.layers.basic.convolution import Convolution
from netspec.schema.spec import LayerSpec


def over_time(name: str, message: object, time: int, default: int) -> list[int]:
    """[time, height, width] of a window's field, from `name` (one or two values) or name_h and name_w."""
    short = name.removesuffix("_size")
    values = getattr(message, name)
    values = list(values) if hasattr(values, "__len__") else [values] if message.HasField(name) else []  # type: ignore[attr-defined]
    if not values and message.HasField(f"{short}_h"):  # type: ignore[attr-defined]
        values = [getattr(message, f"{short}_h"), getattr(message, f"{short}_w")]
    values = [int(value) for value in values] or [default]
    return [time, values[0], values[-1]]


@register("Convolution3D")
class Convolution3D(Convolution):
    """y = convolution over time, height and width: Convolution with kernel_depth, temporal_pad and temporal_stride.

    Shapes: bottom (N, C, L, H, W), top (N, num_output, L', H', W'); blobs as Convolution's, the kernel (kernel_depth,
    kernel_h, kernel_w). Source: Tran et al. 2015 (C3D), convolution3d_layer.cpp.
    """

    def __init__(self, spec: LayerSpec, phase: str):
        super().__init__(spec, phase)
        given = spec.message.convolution_param
        self.param = type(given)()
        self.param.CopyFrom(given)
        for name, time, default in (
            ("kernel_size", given.kernel_depth, 0),
            ("pad", given.temporal_pad, 0),
            ("stride", given.temporal_stride, 1),
        ):
            short = name.removesuffix("_size")
            values = over_time(name, given, int(time), default)
            for field in (name, f"{short}_h", f"{short}_w"):
                self.param.ClearField(field)
            getattr(self.param, name).extend(values)


@register("Pooling3D")
class Pooling3D(Layer):
    """y = the largest value (MAX), or the average (AVE, padding left out), of each window over time, height and width.

    Shapes: bottom (N, C, L, H, W), top (N, C, L', H', W'), each side ceil((size + 2 pad - kernel) / stride) + 1, less
    one where the last window would start behind the padding. NaN spreads over its windows. Raises SpecError for other
    pools and shapes. Source: Tran et al. 2015 (C3D), pooling3d_layer.cpp.
    """

    family, roles = "pooling", ("image",)
    products = 0
    param_field = "pooling_param"

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        if len(shape) != 5:
            self.fail(f"needs a bottom (N, C, L, H, W), found {shape}", "bottom", 0)
        self.require(p.pool in (p.MAX, p.AVE), "pool", "can be MAX or AVE only")
        self.kernel = over_time("kernel_size", p, int(p.kernel_depth), 0)
        self.pad = over_time("pad", p, int(p.temporal_pad), 0)
        self.stride = over_time("stride", p, int(p.temporal_stride), 1)
        self.require(min(self.kernel) > 0, "kernel_size", "must be > 0")
        self.require(min(self.stride) > 0, "stride", "must be > 0")
        self.require(
            all(q < k for q, k in zip(self.pad, self.kernel, strict=True)), "pad", "must be below the kernel"
        )
        self.size = [
            positions(*side) for side in zip(shape[2:], self.kernel, self.pad, self.stride, strict=True)
        ]
        self.require(min(self.size) > 0, "kernel_size", f"{self.kernel} does not fit into {shape}")

    def forward(self, *bottoms: Tensor) -> Tensor:
        x = bottoms[0]
        room = [(n - 1) * s + k for n, s, k in zip(self.size, self.stride, self.kernel, strict=True)]
        ends = [
            (pad, max(total - size - pad, 0))
            for pad, total, size in zip(self.pad, room, x.shape[2:], strict=True)
        ]
        margins = [side for pair in reversed(ends) for side in pair]
        count = [slice(0, total) for total in room]
        if self.param.pool == self.param.MAX:
            wide = functional.pad(x, margins, value=float("-inf"))[:, :, count[0], count[1], count[2]]
            return functional.max_pool3d(wide, self.kernel, self.stride)
        ones = functional.pad(torch.ones_like(x[:1, :1]), margins)[:, :, count[0], count[1], count[2]]
        wide = functional.pad(x, margins)[:, :, count[0], count[1], count[2]]
        total, number = (functional.avg_pool3d(value, self.kernel, self.stride) for value in (wide, ones))
        return total / number


def positions(size: int, kernel: int, pad: int, stride: int) -> int:
    """Windows along an axis."""
    count = ceil((size + 2 * pad - kernel) / stride) + 1
    return count - 1 if (count - 1) * stride >= size + pad else count
