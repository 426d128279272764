"""Cases of UnPooling."""

from __future__ import annotations

import torch

from tests.cases import Case

MASK = torch.tensor([[0, 3, 9], [14, 22, 20]]).float().expand(2, 2, 2, 3)
"""Where a 2 x 2 pooling of a 4 x 6 plane might have found its maxima."""


def case(name: str, param: str, mask: bool = False) -> Case:
    """One UnPooling of a normal bottom, with or without a mask."""
    tops = 'top: "x" top: "m"' if mask else 'top: "x"'
    bottoms = 'bottom: "x" bottom: "m"' if mask else 'bottom: "x"'
    return Case(
        f"unpooling_{name}",
        f'layer {{ name: "in" type: "Input" {tops} '
        "input_param { shape { dim: 2 dim: 2 dim: 2 dim: 3 } } }\n"
        f'layer {{ name: "u" type: "UnPooling" {bottoms} top: "y" unpooling_param {{ {param} }} }}',
        inputs={"m": MASK} if mask else {},
        gradient=("x",),
    )


CASES = [
    case("mask", "kernel_size: 2 stride: 2 unpool_h: 4 unpool_w: 6", mask=True),
    case("first_cell", "kernel_size: 2 stride: 2"),
    case("average", "unpool: AVE kernel_size: 3 stride: 2 unpool_size: 6"),
    case("average_padded", "unpool: AVE kernel_h: 3 kernel_w: 2 stride: 2 pad: 1"),
    case("tile", "unpool: TILE kernel_size: 3 stride: 2"),
]
