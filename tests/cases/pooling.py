"""Cases of Pooling and SPP."""

from __future__ import annotations

import torch

from tests.cases import Case


def case(name: str, shape: str, param: str, tops: str = 'top: "y"', **more: object) -> Case:
    """One Pooling layer on a normal bottom x of the given sizes."""
    dims = " ".join(f"dim: {n}" for n in shape.split())
    return Case(
        f"pooling_{name}",
        f'layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}\n'
        f'layer {{ name: "p" type: "Pooling" bottom: "x" {tops} pooling_param {{ {param} }} }}',
        **more,  # type: ignore[arg-type]
    )


def spp(name: str, param: str) -> Case:
    return Case(
        f"spp_{name}",
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 2 dim: 7 dim: 5 } } }\n'
        f'layer {{ name: "p" type: "SPP" bottom: "x" top: "y" spp_param {{ {param} }} }}',
    )


POSITIVE = torch.rand(2, 2, 5, 4, generator=torch.Generator().manual_seed(4)) + 0.1
ZEROS = torch.tensor([[[[0.0, 2.0, -1.0, 0.0], [3.0, 0.5, 0.0, 4.0]]]])

CASES = [
    case("max", "2 2 8 7", "kernel_size: 3 stride: 2"),
    case("max_pad_ceil", "2 2 7 8", "kernel_size: 3 stride: 2 pad: 1"),
    case("max_many_channels", "1 17 6 5", "kernel_size: 3 stride: 2"),
    case("max_mask", "2 2 6 5", "kernel_size: 3 stride: 2", 'top: "y" top: "mask"', gradient=("x",)),
    case(
        "max_wide_pad_mask",
        "1 2 5 6",
        "kernel_size: 3 stride: 2 pad: 2",
        'top: "y" top: "mask"',
        gradient=("x",),
    ),
    case("max_empty_window", "1 2 5 5", "kernel_size: 1 stride: 3"),
    case("max_floor", "2 2 8 7", "kernel_size: 3 stride: 2 round_mode: FLOOR"),
    case("max_ceil_mode_false", "2 2 8 7", "kernel_size: 3 stride: 2 ceil_mode: false"),
    case("max_global", "2 3 4 5", "global_pooling: true"),
    case("ave_pad_ceil", "2 2 7 8", "pool: AVE kernel_size: 3 stride: 2 pad: 1"),
    case(
        "ave_wide_pad",
        "1 2 5 6",
        "pool: AVE kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 3 pad_h: 2 pad_w: 1",
    ),
    case("ave_global", "2 3 4 5", "pool: AVE global_pooling: true"),
    case("sum", "2 2 6 7", "pool: SUM kernel_size: 3 stride: 2 pad: 1"),
    case("sum_wide_pad", "1 2 5 6", "pool: SUM kernel_size: 3 stride: 2 pad: 2"),
    case("sum_global", "2 3 4 5", "pool: SUM global_pooling: true"),
    case("prod", "2 2 5 6", "pool: PROD kernel_size: 3 stride: 2 pad: 1"),
    case(
        "prod_zeros", "1 1 2 4", "pool: PROD kernel_size: 2 stride: 2", inputs={"x": ZEROS}, gradient=("x",)
    ),
    case("prod_global", "1 2 3 3", "pool: PROD global_pooling: true"),
    case(
        "stochastic_train",
        "2 2 5 4",
        "pool: STOCHASTIC kernel_size: 2 stride: 2",
        inputs={"x": POSITIVE},
        random=True,
    ),
    case(
        "stochastic_test",
        "2 2 5 4",
        "pool: STOCHASTIC kernel_size: 2 stride: 2",
        phase="TEST",
        inputs={"x": POSITIVE},
        gradient=("x",),
    ),
    spp("max", "pyramid_height: 2"),
    spp("ave", "pyramid_height: 2 pool: AVE"),
]
