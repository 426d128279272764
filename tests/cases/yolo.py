"""Cases of the boxes of YOLO."""

from __future__ import annotations

from tests.cases import Case
from tests.cases.shape import several

V2 = "num_classes: 3 num_box: 2 biases: [1, 1.5, 2, 0.7]"
V3 = (
    "num_classes: 3 num_box: 2 biases: [20, 30, 50, 40, 90, 60, 120, 30] mask: [2, 3, 0, 1] anchors_scale: [32, 16] "
    "mask_group_num: 2"
)
ALL = "nms_threshold: 1.1 confidence_threshold: 0"
"""Every box stays."""

CASES = [
    Case(
        "yolo_output",
        several("YoloDetectionOutput", f"yolo_detection_output_param {{ {V2} {ALL} }}", (2, 16, 4, 4)),
        gradient=(),
        compiles=False,
        exports=False,
    ),
    Case(
        "yolo3_output",
        several(
            "Yolov3DetectionOutput",
            f"yolov3_detection_output_param {{ {V3} {ALL} }}",
            (1, 16, 2, 2),
            (1, 16, 4, 4),
        ),
        gradient=(),
        compiles=False,
        exports=False,
    ),
]
