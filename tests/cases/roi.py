"""Cases of ROIPooling, PSROIPooling and ROIAlign."""

from __future__ import annotations

import torch

from tests.cases import Case

REGIONS = torch.tensor(
    [
        [0.0, 1.0, 2.0, 11.0, 9.0],
        [1.0, 0.0, 0.0, 13.3, 17.7],
        [0.0, 6.0, 6.0, 6.0, 6.0],
        [1.0, -5.0, 4.2, 40.0, 30.0],
        [0.0, 90.0, 90.0, 99.0, 99.0],
    ]
)
"""On a map of 9 x 7 at half scale: inside, all of it, one pixel, out over three sides, and outside."""


def case(name: str, kind: str, channels: int, param: str) -> Case:
    """One layer of type `kind` on a map of 9 x 7 and REGIONS."""
    return Case(
        name,
        'layer { name: "in" type: "Input" top: "x" top: "r" input_param { '
        f"shape {{ dim: 2 dim: {channels} dim: 9 dim: 7 }} shape {{ dim: 5 dim: 5 }} }} }}\n"
        f'layer {{ name: "p" type: "{kind}" bottom: "x" bottom: "r" top: "y" {param} }}',
        inputs={"r": REGIONS},
        gradient=("x",),
    )


CASES = [
    case("roi_pooling", "ROIPooling", 3, "roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.5 }"),
    case(
        "roi_pooling_fine",
        "ROIPooling",
        2,
        "roi_pooling_param { pooled_h: 7 pooled_w: 7 spatial_scale: 0.5 }",
    ),
    case(
        "psroi", "PSROIPooling", 18, "psroi_pooling_param { output_dim: 2 group_size: 3 spatial_scale: 0.5 }"
    ),
    case(
        "roi_align_borrowed",
        "ROIAlign",
        3,
        "roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.5 }",
    ),
    case("roi_align", "ROIAlign", 3, "roi_align_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.5 }"),
    case(
        "roi_align_ends",
        "ROIAlign",
        2,
        "roi_align_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.5 sampling_ratio: 3 roi_end_mode: 1 }",
    ),
]
