"""Compact bilinear pooling, and the two layers that follow it: signed roots, and rows of length 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from math import prod

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, exactly, register

TINY = 1e-12


def c_rand(seed: int = 1) -> Iterator[int]:
    """The numbers that glibc's rand() gives after srand(seed), without end."""
    state = [seed]
    for _ in range(30):
        state.append(16807 * state[-1] % 2147483647)
    state += state[:3]
    for i in range(34, 344):
        state.append((state[i - 3] + state[i - 31]) % 2**32)
    while True:
        state.append((state[-3] + state[-31]) % 2**32)
        del state[0]
        yield state[-1] >> 1


@register("CompactBilinear")
class CompactBilinear(Layer):
    """y = num_output times the sum over places of the circular convolution of two count sketches of the channels.

    Shapes: bottoms (N, C1, H, W) and (N, C2, H, W); top (N, num_output, 1, 1), or (N, num_output, H, W) with
    `sum_pool: false`. A sketch adds up the channels in num_output places, each with its sign, both drawn by C's rand()
    after srand(1), so that trained nets find theirs. Both bottoms get a gradient. NaN spreads over the places of its
    pixel. Raises SpecError when sizes differ. Source: Gao et al. 2016, compact_bilinear_layer.cpp.
    """

    family, roles = "pooling", ("image",)
    mixes = True
    bottoms = exactly(2)
    param_field = "compact_bilinear_param"

    def setup(self, *shapes: Shape) -> None:
        self.require(self.param.num_output > 0, "num_output", "needs num_output > 0")
        for i, shape in enumerate(shapes):
            if len(shape) != 4 or (shape[0], *shape[2:]) != (shapes[0][0], *shapes[0][2:]):
                self.fail(f"needs a bottom (N, C, H, W) as the first one's, found {shape}", "bottom", i)
        number, numbers = int(self.param.num_output), c_rand()
        for i, shape in enumerate(shapes):
            place = torch.tensor([v % number for v in islice(numbers, shape[1])])
            sign = torch.tensor([2.0 * (v % 2) - 1 for v in islice(numbers, shape[1])])
            self.register_buffer(f"place{i}", place, persistent=False)
            self.register_buffer(f"sign{i}", sign, persistent=False)

    def forward(self, *bottoms: Tensor) -> Tensor:
        number = int(self.param.num_output)
        first, second = (self.sketch(x, i) for i, x in enumerate(bottoms))
        spectrum = torch.fft.rfft(first, dim=1) * torch.fft.rfft(second, dim=1)
        if self.param.sum_pool:
            spectrum = spectrum.sum((2, 3), keepdim=True)
        top: Tensor = number * torch.fft.irfft(spectrum, n=number, dim=1)
        return top

    def sketch(self, x: Tensor, i: int) -> Tensor:
        """The channels of bottom i added up in their places, (N, num_output, H, W)."""
        signed = x * self.get_buffer(f"sign{i}").to(x).view(-1, 1, 1)
        empty = x.new_zeros((x.shape[0], int(self.param.num_output), *x.shape[2:]))
        return empty.index_add(1, self.get_buffer(f"place{i}"), signed)

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int | None:
        n = int(self.param.num_output)
        return 3 * n * max(n.bit_length() - 1, 1) * prod((bottoms[0][0], *bottoms[0][2:]))


@register("SignedSqrt")
class SignedSqrt(Layer):
    """y = sign(x) sqrt(|x|).

    Shapes: any, top as the bottom. The gradient at 0 is 0. NaN spreads. Source: Gao et al. 2016, signed_sqrt_layer.cpp.
    """

    family, roles = "pointwise", ("values",)
    products, carries = 0, True

    def forward(self, *bottoms: Tensor) -> Tensor:
        x = bottoms[0]
        return torch.where(x == 0, 0.0, x.sign() * torch.where(x == 0, 1.0, x).abs().sqrt())


@register("L2Normalize", "Norm")
class L2Normalize(Layer):
    """y = x / |x|, each row of the batch by itself.

    Shapes: (N, ...), top as the bottom. A row of zeros stays. NaN spreads over its row. Source: Gao et al. 2016,
    l2_normalize_layer.cpp; Wang and Gupta 2015, norm_layer.cpp.
    """

    family, roles = "normalisation", ("values",)
    products, mixes = 2, True

    def forward(self, *bottoms: Tensor) -> Tensor:
        x = bottoms[0].flatten(1)
        return (x / (x.square().sum(1, keepdim=True) + TINY**2).sqrt()).view(bottoms[0].shape)
