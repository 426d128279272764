"""Cases of the layers of multi-task cascades, of dense conditional random fields, and of DetectNet."""

from __future__ import annotations

import torch

from tests.cases import Case
from tests.cases.pointwise import net
from tests.cases.shape import several

REGIONS = torch.tensor([[0.0, 1, 0, 9, 7], [1, 3, 2, 5, 11], [1, -4, -3, 2, 1]])
LABELS = torch.zeros(1, 1, 4, 16)
LABELS[0, 0, 0, :2] = torch.tensor([2.0, 16])
LABELS[0, 0, 1, :6] = torch.tensor([3.0, 2, 18, 11, 0, 1])
LABELS[0, 0, 2, :6] = torch.tensor([20.0, 9, 9, 12, 0, 1])
FIELDS = "detectnet_groundtruth_param { stride: 4 image_size_x: 24 image_size_y: 16 scale_cvg: 0.6 max_cvg_len: 9 }"

CASES = [
    Case(
        "roi_warping",
        several(
            "ROIWarping",
            "roi_warping_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.5 }",
            (2, 3, 6, 7),
            (3, 5),
        ),
        inputs={"b": REGIONS},
        gradient=("a",),
        compiles=False,
        exports=False,
    ),
    Case("mask_pooling", several("MaskPooling", "", (2, 3, 4, 5), (2, 1, 4, 5))),
    Case(
        "mask_resize",
        net("MaskResize", "mask_resize_param { output_height: 7 output_width: 3 }", (2, 2, 4, 5)),
    ),
    Case(
        "bilinear_interpolation",
        net(
            "BilinearInterpolation", "bilinear_interpolation_param { interpolation_factor: 2 }", (2, 2, 3, 4)
        ),
    ),
    Case(
        "bilinear_interpolation_like",
        several("BilinearInterpolation", "", (1, 2, 3, 4), (1, 1, 5, 2)),
        gradient=("a",),
    ),
    Case(
        "meanfield",
        several(
            "MultiStageMeanfield",
            "multi_stage_meanfield_param { num_iterations: 2 theta_alpha: 4 theta_beta: 1 }",
            (2, 3, 3, 4),
            (2, 3, 3, 4),
            (2, 3, 3, 4),
        ),
        gradient=("a", "b"),
        compiles=False,
        exports=False,
    ),
    Case(
        "dense_crf",
        several(
            "DenseCRF",
            "dense_crf_param { max_iter: 2 pos_w: 3 pos_xy_std: 3 bi_w: 4 bi_xy_std: 20 bi_rgb_std: 1 }",
            (2, 3, 4, 5),
            (2, 1, 1, 2),
            (2, 3, 4, 5),
        ),
        inputs={"b": torch.tensor([4.0, 5, 3, 4]).view(2, 1, 1, 2)},
        gradient=(),
        compiles=False,
        exports=False,
    ),
    Case(
        "dense_crf_log",
        several(
            "DenseCRF",
            "dense_crf_param { pos_w: 3 pos_xy_std: 3 output_probability: false }",
            (1, 2, 3, 3),
            (1, 2),
        ),
        inputs={"b": torch.tensor([[3.0, 3]])},
        gradient=(),
        compiles=False,
        exports=False,
    ),
    Case(
        "detectnet",
        several("DetectNetTransformation", f'top: "grid" {FIELDS}', (1, 3, 12, 20), (1, 1, 4, 16)),
        "TEST",
        inputs={"b": LABELS},
        gradient=(),
        compiles=False,
        exports=False,
    ),
    Case(
        "detectnet_train",
        several(
            "DetectNetTransformation",
            f'top: "grid" {FIELDS} detectnet_augmentation_param {{ rotation_prob: 1 max_rotate_degree: 9 '
            "hue_rotation_prob: 1 desaturation_prob: 1 scale_prob: 1 flip_prob: 1 crop_prob: 1 shift_x: 4 shift_y: 4 }",
            (1, 3, 20, 28),
            (1, 1, 4, 16),
        ),
        inputs={"b": LABELS},
        random=True,
        gradient=(),
        compiles=False,
        exports=False,
    ),
    Case(
        "eltwise_accuracy",
        several("EltwiseAccuracy", "eltwise_accuracy_param { ignore_label: 2 }", (2, 3, 2, 2), (2, 1, 2, 2)),
        "TEST",
        inputs={"b": torch.tensor([0.0, 1, 2, 1, 0, 0, 2, 1]).view(2, 1, 2, 2)},
        gradient=(),
    ),
]
