"""Cases of the detection layers. Those whose size depends on the data are shown where everything is kept."""

from __future__ import annotations

import torch

from tests.cases import Case
from tests.cases.loss import text

GENERATOR = torch.Generator().manual_seed(11)


def random_boxes(number: int) -> torch.Tensor:
    """Corners (number, 4) of boxes inside the unit square."""
    points = torch.rand((number, 2, 2), generator=GENERATOR)
    return torch.cat((points.amin(1), points.amax(1)), 1)


def priors(number: int) -> torch.Tensor:
    variances = torch.tensor([0.1, 0.1, 0.2, 0.2]).repeat(number)
    return torch.stack((random_boxes(number).flatten(), variances)).unsqueeze(0)


def objects(*rows: tuple[int, int, int]) -> torch.Tensor:
    """Objects (1, 1, G, 8) from (image, label, difficult)."""
    heads = torch.tensor([[image, label, 0] for image, label, _ in rows])
    difficult = torch.tensor([[row[2]] for row in rows])
    return torch.cat((heads, random_boxes(len(rows)), difficult), 1).float()[None, None]


BATCH = objects((0, 1, 0), (2, 2, 0), (0, 2, 1), (-1, 1, 0), (2, 2, 0))
DETECTIONS = torch.cat(
    (
        torch.tensor([[0.0, 1], [0, 1], [0, 2], [2, 2], [2, 1]]),
        torch.rand((5, 1), generator=GENERATOR),
        random_boxes(5),
    ),
    1,
)[None, None]


def multibox(fields: str, locations: int = 1, classes: int = 3) -> str:
    return text(
        f"MultiBoxLoss multibox_loss_param {{ num_classes: {classes} {fields} }}",
        "loc conf prior gt",
        loc=(3, 12 * locations * 4),
        conf=(3, 12 * classes),
        prior=(1, 2, 48),
        gt=(1, 1, 5, 8),
    )


MULTIBOX = {
    "default": "",
    "center_size": "code_type: CENTER_SIZE neg_overlap: 0.4 overlap_threshold: 0.3 loc_weight: 2",
    "bipartite": "match_type: BIPARTITE conf_loss_type: LOGISTIC loc_loss_type: L2 use_difficult_gt: false",
    "no_mining": "mining_type: NONE code_type: CORNER_SIZE encode_variance_in_target: true",
    "hard_example": "mining_type: HARD_EXAMPLE sample_size: 5 ignore_cross_boundary_bbox: true",
    "predicted": "use_prior_for_matching: false bp_inside: true do_neg_mining: true",
}

CASES = [
    Case(
        "prior_box",
        text(
            "PriorBox prior_box_param { min_size: 4 min_size: 6 max_size: 8 max_size: 9 aspect_ratio: 2 "
            "clip: true variance: [0.1, 0.1, 0.2, 0.2] }",
            "x data",
            "prior",
            x=(2, 1, 3, 2),
            data=(2, 3, 12, 10),
        ),
        gradient=(),
    ),
    Case(
        "prior_box_steps",
        text(
            "PriorBox prior_box_param { min_size: 4 aspect_ratio: [1, 3, 3] flip: false step: 5 "
            "img_h: 20 img_w: 30 offset: 0.25 variance: 0.3 }",
            "x data",
            "prior",
            x=(1, 1, 2, 2),
            data=(1, 3, 12, 10),
        ),
        gradient=(),
    ),
    Case(
        "prior_box_denser",
        text(
            "PriorBox prior_box_param { min_size: 4 aspect_ratio: 2 flip: false denser_prior_boxes: true }",
            "x data",
            "prior",
            x=(1, 1, 2, 2),
            data=(1, 3, 12, 10),
        ),
        gradient=(),
    ),
    Case(
        "detection_output_refined",
        text(
            "DetectionOutput detection_output_param { num_classes: 3 code_type: CENTER_SIZE objectness_score: 0.3 "
            "nms_param { nms_threshold: 1 } }",
            "loc conf prior object first",
            "found",
            loc=(2, 24),
            conf=(2, 18),
            prior=(1, 2, 24),
            object=(2, 12),
            first=(2, 24),
        ),
        inputs={"prior": priors(6)},
        phase="TEST",
        gradient=(),
        compiles=False,
        exports=False,
    ),
    Case(
        "multibox_loss_refined",
        text(
            "MultiBoxLoss multibox_loss_param { num_classes: 3 code_type: CENTER_SIZE objectness_score: 0.1 }",
            "loc conf prior gt object first",
            loc=(3, 48),
            conf=(3, 36),
            prior=(1, 2, 48),
            gt=(1, 1, 5, 8),
            object=(3, 24),
            first=(3, 48),
        ),
        inputs={"prior": priors(12), "gt": BATCH},
        gradient=("loc", "conf"),
    ),
    Case(
        "detection_output",
        text(
            "DetectionOutput detection_output_param { num_classes: 3 code_type: CENTER_SIZE "
            "nms_param { nms_threshold: 1 } }",
            "loc conf prior",
            "found",
            loc=(2, 24),
            conf=(2, 18),
            prior=(1, 2, 24),
        ),
        inputs={"prior": priors(6)},
        phase="TEST",
        gradient=(),
        compiles=False,
        exports=False,
    ),
    Case(
        "detection_evaluate",
        text(
            "DetectionEvaluate detection_evaluate_param { num_classes: 3 overlap_threshold: 0.2 }",
            "found gt",
            "verdict",
            found=(1, 1, 5, 7),
            gt=(1, 1, 5, 8),
        ),
        inputs={"found": DETECTIONS, "gt": BATCH},
        phase="TEST",
        gradient=(),
        compiles=False,
        exports=False,
    ),
    *(
        Case(
            f"multibox_loss_{name}",
            multibox(fields),
            inputs={"prior": priors(12), "gt": BATCH},
            gradient=("loc", "conf"),
        )
        for name, fields in MULTIBOX.items()
    ),
    Case(
        "multibox_loss_box_per_class",
        multibox("share_location: false mining_type: NONE", locations=3),
        inputs={"prior": priors(12), "gt": BATCH},
        gradient=("loc", "conf"),
    ),
    Case(
        "proposal",
        text(
            "Proposal proposal_param { ratio: [0.5, 1] scale: 2 base_size: 4 feat_stride: 4 min_size: 0 "
            "nms_thresh: 1 }",
            "score move info",
            "rois scores",
            score=(2, 4, 2, 3),
            move=(2, 8, 2, 3),
            info=(2, 3),
        ),
        inputs={"info": torch.tensor([[8.0, 12, 1], [9, 13, 1]])},
        phase="TEST",
        gradient=(),
        compiles=False,
        exports=False,
    ),
]
