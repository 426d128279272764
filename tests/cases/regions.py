"""Cases of MS-CNN's and C3D's layers, of clustered priors, and of Python modules that are known by name."""

from __future__ import annotations

import torch

from tests.cases import Case
from tests.cases.loss import text
from tests.cases.pointwise import net
from tests.cases.shape import several

ALL = "iou_thr: 1 min_size: 0 fg_thr: -100"
"""Every box stays."""
REGIONS = torch.tensor([[0.0, 2, 3, 9, 12], [0, 1, 1, 30, 20], [0, 20, 20, 27, 33]])
OBJECTS = torch.tensor([[0.0, 0, 30, 30, 2], [40, 30, 75, 60, 1]])
INFO = torch.tensor([[128.0, 160, 1]])


def python(module: str, layer: str, parameters: str = "") -> str:
    return f'Python python_param {{ module: "{module}" layer: "{layer}" param_str: "{parameters}" }}'


CASES = [
    Case("convolution_3d_layer",
         net("Convolution3D", "convolution_param { num_output: 3 kernel_size: 3 kernel_depth: 2 "
         'pad: 1 temporal_pad: 1 temporal_stride: 2 weight_filler { type: "xavier" } }', (2, 2, 4, 5, 4))),
    Case("convolution_3d_sides", net("Convolution3D", "convolution_param { num_output: 2 kernel_h: 3 kernel_w: 2 "
         'kernel_depth: 3 weight_filler { type: "xavier" } }', (1, 2, 4, 5, 4))),
    Case("pooling_3d", net("Pooling3D", "pooling_param { kernel_size: 2 stride: 2 kernel_depth: 1 }", (2, 2, 3, 5, 4))),
    Case("pooling_3d_time", net("Pooling3D", "pooling_param { kernel_size: 3 stride: 2 pad: 1 kernel_depth: 2 "
         "temporal_stride: 2 }", (1, 2, 5, 5, 6))),
    Case("pooling_3d_average", net("Pooling3D", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 "
         "kernel_depth: 2 temporal_pad: 1 }", (1, 2, 4, 5, 6))),
    Case("prior_box_clustered", text("PriorBoxClustered prior_box_param { width: [4, 6] height: [5, 9] step: 4 "
         "variance: [0.1, 0.1, 0.2, 0.2] }", "x data", "prior", x=(1, 1, 3, 2), data=(1, 3, 12, 10)), gradient=()),
    Case(
        "box_output",
        several("BoxOutput", f"box_output_param {{ {ALL} field_w: 6 field_h: 5 field_w: 9 field_h: 12 "
                "downsample_rate: 8 downsample_rate: 16 }", (2, 6, 4, 3), (2,
                6, 2, 2)),
        phase="TEST", gradient=(), compiles=False, exports=False,
    ),
    Case(
        "box_group_output",
        several("BoxGroupOutput", f"box_group_output_param {{ {ALL} "
                "box_group_param { stride: 8 field_w: [5, 7] field_h: [6, 4] } }", (4, 2, 4, 3), (4, 4, 4, 3)),
        phase="TEST", gradient=(), compiles=False, exports=False,
    ),
    Case(
        "decode_bbox",
        several("DecodeBBox", "bbox_reg_param { bbox_mean: [0, 0, 0, 0] bbox_std: [0.1, 0.1, 0.2, 0.2] }", (3, 8),
        (3, 5)),
        inputs={"b": REGIONS}, phase="TEST", gradient=(), compiles=False, exports=False,
    ),
    Case(
        "rpn_proposal",
        text(python("rpn.proposal_layer", "ProposalLayer", "'feat_stride': 16"), "score move info", "rois",
             score=(1, 18, 1, 1), move=(1, 36, 1, 1), info=(1, 3)),
        inputs={"info": torch.tensor([[900.0, 900, 1]]), "move": torch.zeros(1, 36, 1, 1)}, gradient=(),
        compiles=False, exports=False, random=True,
    ),
    Case(
        "rpn_anchor_target",
        text(python("rpn.anchor_target_layer", "AnchorTargetLayer", "'feat_stride': 16"), "score gt info data",
             "label target inner outer", score=(1, 18, 8, 10), gt=(2, 5), info=(1, 3), data=(1, 3, 128, 160)),
        inputs={"gt": OBJECTS, "info": INFO}, gradient=(), compiles=False, exports=False, random=True,
    ),
    Case("python_euclidean", text(python("pyloss", "EuclideanLossLayer"), "a b", a=(3, 4), b=(3, 4)),
    gradient=("a", "b")),
]  # fmt: skip
