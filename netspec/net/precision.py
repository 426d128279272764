"""Precision of a training step: float32, float32 with shorter products on a GPU (TF32), or bfloat16 products (BF16)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from netspec.layers.base import Layer, as_tuple

PRODUCTS = ("convolution, linear", "recurrent")
"""Families whose products may be of bfloat16: sums of many terms of like size."""
AS_THEY_COME = ("pointwise", "pooling", "shape", "data")
"""Families that compute in whatever their bottoms are; all others get float32: log space, statistics and losses need
its digits."""


def mixed(call: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    """`call` of a walk with the products of convolutions and inner products in bfloat16."""

    def one(layer: Layer, *bottoms: Tensor) -> tuple[Tensor, ...]:
        device = bottoms[0].device.type if bottoms else "cpu"
        if layer.family in PRODUCTS:
            with torch.autocast(device, dtype=torch.bfloat16):
                return as_tuple(call(layer, *bottoms))
        if layer.family not in AS_THEY_COME:
            bottoms = tuple(x.float() if x.dtype == torch.bfloat16 else x for x in bottoms)
        return as_tuple(call(layer, *bottoms))

    return one


@contextmanager
def tf32(device: torch.device) -> Iterator[None]:
    """Products of float32 with 10 bits of mantissa meanwhile, where `device` is a GPU."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
