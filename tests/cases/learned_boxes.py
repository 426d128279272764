"""Cases of what detectors learn from and how they are judged: YOLO, MS-CNN and Cascade R-CNN."""

from __future__ import annotations

import torch

from tests.cases import Case
from tests.cases.shape import several

SIDE, CLASSES, BOXES = 3, 2, 2
CELLS = torch.zeros(2, 7, 9)
CELLS[:, 2] = -1
for _n, _cell, _class, _hard, _box in (
    (0, 4, 1, 0, (0.5, 0.45, 0.4, 0.3)),
    (0, 6, 0, 1, (0.2, 0.9, 0.3, 0.2)),
    (1, 2, 1, 0, (0.9, 0.1, 0.2, 0.6)),
):
    CELLS[_n, :3, _cell] = torch.tensor([_hard, 1.0, _class])
    CELLS[_n, 3:].view(-1)[4 * _cell : 4 * _cell + 4] = torch.tensor(_box)
CELLS = CELLS.view(2, -1)
"""Labels of YOLOv1 with two objects in the first image and one in the second."""

OBJECTS = torch.tensor(
    [
        [0, 2, 0, 0.1, 0.2, 0.5, 0.6, 0],
        [0, 1, 0, 0.6, 0.6, 0.9, 0.8, 0],
        [1, 2, 0, 0.3, 0.1, 0.9, 0.9, 0],
        [-1, -1, -1, -1, -1, -1, -1, -1],
    ]
).view(1, 1, 4, 8)
"""Rows of AnnotatedData."""
ROWS = torch.tensor(
    [[1, 0.3, 0.4, 0.4, 0.4, 0, 0.75, 0.7, 0.3, 0.2, 0, 0, 0, 0, 0], [1, 0.6, 0.5, 0.6, 0.8, *[0] * 10]]
)
"""The same objects as rows (class, x, y, width, height)."""
V2 = "num_class: 2 num: 2 biases: [1, 1.5, 2, 0.7]"
V3 = "num_class: 2 num: 2 biases: [20, 30, 50, 40, 90, 60, 30, 30] mask: [1, 3] anchors_scale: 32"

MAPS = torch.zeros(2, 6, 3, 4)
MAPS[0, :, 1, 2] = torch.tensor([1.0, 17, 11, 22, 14, 0.8])
MAPS[0, :, 0, 0] = torch.tensor([0.0, 0, 0, 0, 0, 0.7])
MAPS[1, :, 2, 0] = torch.tensor([2.0, 5, 20, 12, 30, 0.6])
"""Labels of two maps, one object each, and a cell too near one to be background."""
GROUPED = "cls_num: 3 field_w: [20, 14] field_h: [16, 30] stride: 8"
REGIONS = torch.tensor([[0.0, 2, 3, 20, 30], [0, 40, 8, 70, 40], [0, 10, 10, 18, 16], [0, 3, 2, 22, 28]])
TRUTH = torch.tensor([[0.0, 3, 3, 21, 29, 2, 0], [0, 41, 9, 71, 42, 1, 0], [-1, 0, 0, 0, 0, 0, 0]])
MATCHED = torch.tensor(
    [[2.0, 3, 3, 21, 29, 0.9], [1, 41, 9, 71, 42, 0.8], [0, 0, 0, 0, 0, 0], [2, 3, 2, 22, 28, 1]]
)
EAGER = {"compiles": False, "exports": False}


def both(kind: str, options: str, *shapes: tuple[int, ...], tops: str = "") -> str:
    """Like `several`, with more tops."""
    return several(kind, " ".join(f'top: "{top}"' for top in tops.split()) + " " + options, *shapes)


CASES = [
    Case(
        "yolo1_loss",
        several(
            "DetectionLoss",
            "detection_loss_param { side: 3 num_class: 2 num_object: 2 constriant: true }",
            (2, 108),
            (2, 63),
        ),
        inputs={"b": CELLS},
        gradient=(),
    ),
    Case(
        "yolo1_loss_plain",
        several(
            "DetectionLoss",
            "detection_loss_param { side: 3 num_class: 2 num_object: 2 sqrt: false }",
            (2, 108),
            (2, 63),
        ),
        inputs={"b": CELLS},
        gradient=(),
    ),
    Case(
        "yolo2_loss",
        several(
            "RegionLoss",
            f"region_loss_param {{ {V2} coord_scale: 2 thresh: 0.1 }}",
            (2, 14, 3, 3),
            (1, 1, 4, 8),
        ),
        inputs={"b": OBJECTS},
        gradient=(),
        **EAGER,
    ),
    Case(
        "yolo2_loss_rows",
        several(
            "RegionLoss",
            f"region_loss_param {{ {V2} rescore: 0 bias_match: 0 object_scale: 5 }}",
            (2, 14, 3, 3),
            (2, 15),
        ),
        inputs={"b": ROWS},
        gradient=(),
        **EAGER,
    ),
    Case(
        "yolo3_loss",
        several("Yolov3", f"yolov3_param {{ {V3} }}", (2, 14, 3, 3), (1, 1, 4, 8)),
        inputs={"b": OBJECTS},
        gradient=(),
        **EAGER,
    ),
    Case(
        "yolo3_loss_slope",
        several(
            "Yolov3",
            f"yolov3_param {{ {V3} use_logic_gradient: true object_scale: 3 }}",
            (2, 14, 3, 3),
            (2, 15),
        ),
        inputs={"b": ROWS},
        gradient=(),
        **EAGER,
    ),
    Case(
        "yolo1_evaluation",
        several(
            "EvalDetection",
            "eval_detection_param { side: 3 num_class: 2 num_object: 2 nms: 0.5 }",
            (2, 108),
            (2, 63),
        ),
        "TEST",
        inputs={"b": CELLS},
        gradient=(),
        **EAGER,
    ),
    Case(
        "yolo2_evaluation",
        several(
            "EvalDetection",
            "eval_detection_param { side: 3 num_class: 2 num_object: 2 biases: [1, 1.5, 2, 0.7] }",
            (2, 14, 3, 3),
            (2, 15),
        ),
        "TEST",
        inputs={"b": ROWS},
        gradient=(),
        **EAGER,
    ),
    Case(
        "mscnn_loss",
        several(
            "DetectionLoss",
            'detection_loss_param { cls_num: 3 field_w: 20 field_h: 16 downsample_rate: 8 sample_mode: "bootstrap" '
            "lambda: 0.7 pos_neg_weighted: true iou_weighted: true field_whr: 8 field_xyr: 0.2 }",
            (2, 7, 3, 4),
            (2, 6, 3, 4),
        ),
        inputs={"b": MAPS},
        gradient=(),
        **EAGER,
    ),
    Case(
        "mscnn_loss_all",
        several(
            "DetectionLoss",
            'detection_loss_param { cls_num: 3 field_w: 20 field_h: 16 downsample_rate: 8 sample_mode: "all" '
            "bb_smooth: false field_whr: 8 field_xyr: 0.2 }",
            (2, 7, 3, 4),
            (2, 6, 3, 4),
        ),
        inputs={"b": MAPS},
        gradient=(),
        **EAGER,
    ),
    Case(
        "mscnn_loss_random",
        several(
            "DetectionLoss",
            "detection_loss_param { cls_num: 3 field_w: 20 field_h: 16 downsample_rate: 8 }",
            (2, 7, 3, 4),
            (2, 6, 3, 4),
        ),
        inputs={"b": MAPS},
        random=True,
        **EAGER,
    ),
    Case(
        "group_loss",
        several(
            "DetectionGroupLoss",
            f'detection_group_loss_param {{ {GROUPED} neg_mining_type: "bootstrap" bg_multiple: 2 }}',
            (2, 3, 3, 4),
            (2, 4, 3, 4),
            (2, 6, 3, 4),
        ),
        inputs={"c": MAPS},
        gradient=(),
        **EAGER,
    ),
    Case(
        "group_loss_mixture",
        several(
            "DetectionGroupLoss",
            f'detection_group_loss_param {{ {GROUPED} neg_mining_type: "mixture" batch_size: 9 pos_neg_weighted: true '
            'neg_ranking_type: "conf_prob" bbox_loss_type: "Euclidean_L2" }',
            (2, 3, 3, 4),
            (2, 4, 3, 4),
            (2, 6, 3, 4),
        ),
        inputs={"c": MAPS},
        random=True,
        **EAGER,
    ),
    Case(
        "mscnn_accuracy",
        both(
            "DetectionAccuracy",
            "detection_accuracy_param { cls_num: 3 field_w: 20 field_h: 16 downsample_rate: 8 }",
            (2, 7, 3, 4),
            (2, 6, 3, 4),
            tops="iou",
        ),
        "TEST",
        inputs={"b": MAPS},
        gradient=(),
    ),
    Case(
        "group_accuracy",
        several(
            "DetectionGroupAccuracy",
            f"detection_group_accuracy_param {{ {GROUPED} }}",
            (2, 3, 3, 4),
            (2, 4, 3, 4),
            (2, 6, 3, 4),
        ),
        "TEST",
        inputs={"c": MAPS},
        gradient=(),
    ),
    Case(
        "box_accuracy",
        both(
            "BboxAccuracy",
            "bbox_reg_param { bbox_mean: [0, 0, 0, 0] bbox_std: [0.1, 0.1, 0.2, 0.2] }",
            (4, 12),
            (4, 5),
            (4, 6),
            tops="before",
        ),
        "TEST",
        inputs={"b": REGIONS, "c": MATCHED},
        gradient=(),
    ),
    Case(
        "proposal_target",
        both(
            "ProposalTarget",
            "proposal_target_param { cls_num: 3 batch_size: -1 bg_thr_lw: 0 append_gtbox: false "
            "img_width: 90 img_height: 60 }",
            (4, 5),
            (3, 7),
            tops="c d e f g h",
        ),
        inputs={"a": REGIONS, "b": TRUTH},
        random=True,
        gradient=(),
        **EAGER,
    ),
    Case(
        "scale_route",
        both("ScaleRoute", "scale_route_param { low_scale: 1 }", (4, 5), (4, 3), tops="z"),
        inputs={"a": REGIONS},
        random=True,
        gradient=(),
        **EAGER,
    ),
    Case(
        "hard_mining",
        several("HardMining", "hard_mining_param { num_image: 1 num_roi_per_image: 2 }", (4,), (4, 5)),
        inputs={"b": REGIONS},
        gradient=(),
        **EAGER,
    ),
    Case(
        "frcnn_output",
        several(
            "FrcnnOutput", "frcnn_output_param { iou_thr: 1 conf_thr: -100 }", (4, 3), (4, 12), (4, 5), (1, 2)
        ),
        "TEST",
        inputs={"c": REGIONS, "d": torch.tensor([[60.0, 90]])},
        gradient=(),
        **EAGER,
    ),
]
