"""Cases of Interp, Upsample and SpatialTransformer."""

from __future__ import annotations

import torch

from tests.cases import Case
from tests.cases.pointwise import net
from tests.cases.shape import several


def interp(options: str) -> str:
    return net("Interp", f"interp_param {{ {options} }}", (2, 2, 4, 5))


def transformer(options: str, free: int, shape: tuple[int, ...] = (2, 2, 4, 5)) -> str:
    return several("SpatialTransformer", f"st_param {{ {options} }}", shape, (2, free))


MAPS = torch.tensor([[0.9, 0.2, 0.11, -0.3, 1.2, 0.07], [1.5, 0.0, -0.23, 0.4, 0.6, 0.31]])
"""Two affine maps that bring no pixel exactly onto another, where the gradient would jump."""

MASK = torch.tensor([[0, 3, 9], [14, 22, 20]]).float().view(1, 1, 2, 3).expand(2, 2, 2, 3)
"""Where a 2 x 2 pooling of a 4 x 6 plane might have found its maxima."""

CASES = [
    Case("upsample_blocks", net("Upsample", "upsample_param { scale: 3 }", (2, 2, 2, 3))),
    Case("upsample_stride", net("Upsample", "upsample_param { scale: 3 stride: 2 }", (2, 2, 2, 3))),
    Case(
        "upsample_blocks_size",
        net("Upsample", "upsample_param { upsample_h: 2 upsample_w: 9 }", (2, 2, 2, 3)),
    ),
    Case(
        "upsample_mask",
        several("Upsample", "", (2, 2, 2, 3), (2, 2, 2, 3)),
        inputs={"b": MASK},
        gradient=("a",),
    ),
    Case(
        "upsample_mask_odd",
        several("Upsample", "upsample_param { pad_out_w: true }", (2, 2, 2, 3), (2, 2, 2, 3)),
        inputs={"b": MASK - 4 * (MASK > 19)},
        gradient=("a",),
    ),
    Case("interp_zoom_intel", 'dialect: "intel"\n' + interp("zoom_factor: 3")),
    Case("interp_zoom", interp("zoom_factor: 3")),
    Case("interp_shrink", interp("shrink_factor: 2")),
    Case("interp_shrink_zoom", interp("shrink_factor: 2 zoom_factor: 3")),
    Case("interp_size", interp("height: 7 width: 3")),
    Case("interp_crop", interp("height: 3 width: 6 pad_beg: -1 pad_end: -1")),
    Case("interp_like", several("Interp", "", (1, 2, 3, 3), (1, 1, 5, 7)), gradient=("a",)),
    Case("transformer", transformer("", 6), inputs={"b": MAPS}, gradient=("a", "b")),
    Case(
        "transformer_size", transformer("output_H: 3 output_W: 7", 6), inputs={"b": MAPS}, gradient=("a", "b")
    ),
    Case("transformer_line", transformer("", 6, (2, 1, 1, 5)), inputs={"b": MAPS}, gradient=("a",)),
    Case(
        "transformer_fixed",
        transformer("theta_1_1: 0.9 theta_1_2: 0 theta_2_1: 0 theta_2_2: 0.8", 2),
        inputs={"b": MAPS[:, [2, 5]]},
        gradient=("a", "b"),
    ),
    Case("transformer_still", transformer("to_compute_dU: false", 6), inputs={"b": MAPS}, gradient=("b",)),
]
