"""Operators that repeat values, pad, and trade space for depth."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from netspec.interchange.onnx_nets.graph import Call, Refused, bounded, computes
from netspec.interchange.onnx_nets.operators.windows import padded


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
