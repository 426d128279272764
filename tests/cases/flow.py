"""Cases of FlowNet's layers: matching, warping, resizing, means."""

from __future__ import annotations

import torch

from tests.cases import Case
from tests.cases.loss import NAN
from tests.cases.pointwise import HOLES, net
from tests.cases.shape import several


def correlation(kind: str, options: str, *shape: int) -> str:
    return several(kind, f"correlation_param {{ {options} }}", shape, shape)


def resample(options: str, shape: tuple[int, ...] = (1, 2, 5, 7)) -> str:
    return net("Resample", f"resample_param {{ {options} }}", shape)


HOLED = torch.where(torch.arange(60) % 7 == 3, NAN, torch.arange(60) / 9).reshape(1, 2, 5, 6)
FLOW = (torch.arange(40.0).reshape(1, 2, 4, 5) * 7 % 11 - 5) / 3 + 0.05
"""Flows between pixels, some of them pointing outside."""
AUGMENTED = "DataAugmentation"

CASES = [
    Case(
        "correlation",
        correlation("Correlation", "pad: 4 kernel_size: 1 max_displacement: 4 stride_2: 2", 1, 2, 3, 4),
    ),
    Case(
        "correlation_windows",
        correlation(
            "Correlation", "pad: 3 kernel_size: 3 max_displacement: 2 stride_1: 2 do_abs: true", 2, 2, 4, 5
        ),
    ),
    Case(
        "correlation_strides",
        correlation(
            "Correlation", "pad: 2 kernel_size: 1 max_displacement: 3 stride_1: 2 stride_2: 2", 1, 1, 6, 5
        ),
    ),
    Case(
        "correlation_subtract",
        correlation(
            "Correlation", "pad: 1 kernel_size: 1 max_displacement: 1 correlation_type: SUBTRACT", 1, 2, 3, 3
        ),
    ),
    Case(
        "correlation_1d",
        correlation("Correlation1D", "pad: 2 kernel_size: 1 max_displacement: 2", 1, 2, 3, 4),
    ),
    Case(
        "correlation_1d_left",
        correlation(
            "Correlation1D", "pad: 2 kernel_size: 1 max_displacement: 2 single_direction: -1", 1, 2, 3, 4
        ),
    ),
    Case(
        "correlation_1d_right",
        correlation(
            "Correlation1D", "pad: 4 kernel_size: 3 max_displacement: 3 single_direction: 1", 1, 2, 4, 4
        ),
    ),
    Case(
        "flow_warp",
        several("FlowWarp", "", (1, 3, 4, 5), (1, 2, 4, 5)),
        inputs={"b": FLOW},
        gradient=("a", "b"),
    ),
    Case(
        "flow_warp_nan",
        several("FlowWarp", "flow_warp_param { fill_value: NOT_A_NUMBER }", (1, 1, 4, 5), (1, 2, 4, 5)),
        inputs={"b": torch.where(FLOW > 1.4, NAN, FLOW)},
        gradient=(),
    ),
    Case("channel_norm", net("ChannelNorm", shape=(2, 3, 2, 2))),
    Case("neg_relu", net("NegReLU", "relu_param { negative_slope: 0.2 }")),
    Case("neg_relu_missing", net("NegReLU", "", (1, 4)), inputs=HOLES, gradient=()),
    Case("resample_up", resample("width: 13 height: 9")),
    Case("resample_down", resample("width: 3 height: 2")),
    Case("resample_sharp", resample("width: 3 height: 2 antialias: false type: CUBIC")),
    Case("resample_mixed", resample("width: 3 height: 12 type: CUBIC")),
    Case("resample_nearest", resample("width: 4 height: 10 type: NEAREST")),
    Case("resample_like", several("Resample", "", (2, 1, 4, 4), (2, 3, 8, 6)), gradient=("a",)),
    Case("downsample", net("Downsample", "downsample_param { top_height: 3 top_width: 4 }", (1, 2, 5, 7))),
    Case(
        "downsample_missing",
        several("Downsample", "", (1, 2, 5, 6), (1, 9, 2, 6)),
        inputs={"a": HOLED},
        gradient=(),
    ),
    Case("downsample_same", several("Downsample", "", (1, 2, 5, 6), (1, 9, 5, 6)), gradient=("a",)),
    Case(
        "mean",
        net("Mean", "mean_param { operation: SUBTRACT value: 1 value: 2 input_scale: 0.5 }", (2, 4, 2, 2)),
    ),
    Case(
        "mean_add",
        net("Mean", "mean_param { operation: ADD value: 1 output_scale: 3 mean_scale: 2 }", (2, 1, 2, 2)),
    ),
    Case(
        "augmentation_crop",
        net(
            AUGMENTED,
            "augmentation_param { crop_width: 4 crop_height: 3 mean: [1, 2, 3] mean_per_pixel: false }",
            (2, 3, 4, 6),
        ),
    ),
    Case(
        "augmentation_test",
        net(
            AUGMENTED,
            "augmentation_param { crop_width: 5 crop_height: 5 mirror { prob: 0.5 } }",
            (2, 3, 6, 5),
        ),
        "TEST",
    ),
    Case(
        "augmentation_mean",
        net(AUGMENTED, "augmentation_param { recompute_mean: 3 }", (2, 2, 3, 3)),
        gradient=(),
    ),
    Case(
        "augmentation_means",
        net(AUGMENTED, "augmentation_param { recompute_mean: 3 mean_per_pixel: false }", (2, 2, 3, 3)),
        "TEST",
        gradient=(),
    ),
    *(
        Case(
            kind.lower(),
            several(kind, 'writer_param { folder: "out" }', (1, 2, 3, 3)).replace(' top: "y"', ""),
        )
        for kind in ("FLOWriter", "PFMWriter", "FloatWriter", "ImgWriter")
    ),
]
