"""Cases of losses and poolings of single public forks."""

from __future__ import annotations

import torch

from tests.cases import Case
from tests.cases.loss import labels, text
from tests.cases.pointwise import net
from tests.cases.shape import several

WEIGHTS = torch.tensor([[0.5, 2, 1], [1, 0, 3]])

CASES = [
    Case(
        "weighted_euclidean",
        text("WeightedEuclideanLoss", "a b w", a=(2, 3), b=(2, 3), w=(2, 3)),
        inputs={"w": WEIGHTS},
    ),
    Case(
        "weighted_euclidean_one_row",
        text("WeightedEuclideanLoss", "a b w", a=(2, 3), b=(2, 3), w=(1, 3)),
        inputs={"w": WEIGHTS[:1]},
    ),
    Case(
        "weight_euclidean",
        text(
            "WeightEuclideanLoss weight_euclidean_loss_param { main_weight: 2 contour_weight: 0.5 coarse_weight: 3 "
            "normalized: 1 }",
            "a b",
            a=(2, 136),
            b=(2, 136),
        ),
        gradient=("a",),
    ),
    Case(
        "weight_euclidean_box",
        text(
            "WeightEuclideanLoss weight_euclidean_loss_param { normalized: 1 normalized_type: 1 }",
            "a b m",
            a=(2, 136),
            b=(2, 136),
            m=(2, 136),
        ),
        gradient=(),
    ),
    Case("binary_codes", text("K1_EuclideanLoss", "a b", a=(3, 4), b=(3, 4))),
    Case("even_codes", text("K2_EuclideanLoss", "a b", a=(3, 4), b=(3, 4))),
    Case(
        "kernel_loss",
        text("KernelLoss kernel_loss_param { sigma_sq: 2 }", "a b c d", a=(3, 4), b=(3, 4), c=(3,), d=(3,)),
        inputs={"c": labels(0, 1, 2), "d": labels(0, 2, 2)},
    ),
    Case("dice_loss", text("DiceCoefLoss", "a b", a=(1, 2, 3), b=(1, 2, 3))),
    Case("dice_loss_rows", text("DiceCoefLoss", "a b", a=(3, 4), b=(3, 4)), gradient=()),
    Case(
        "rank_hard",
        text(
            "RankHardLoss rank_param { pair_size: 2 neg_num: 6 margin: 3 }",
            a=(6, 4),
            label=(6,),
            bottoms="a label",
        ),
        inputs={"label": labels(0, 0, 1, 1, 2, 2)},
        compiles=False,
        exports=False,
    ),
    Case(
        "rank_hard_drawn",
        text(
            "RankHardLoss rank_param { pair_size: 2 neg_num: 2 hard_ratio: 0.5 rand_ratio: 0.5 margin: 3 }",
            a=(6, 4),
            label=(6,),
            bottoms="a label",
        ),
        inputs={"label": labels(0, 0, 1, 1, 2, 2)},
        random=True,
        compiles=False,
        exports=False,
    ),
    Case(
        "compact_bilinear",
        several("CompactBilinear", "compact_bilinear_param { num_output: 8 }", (2, 3, 2, 2), (2, 5, 2, 2)),
    ),
    Case(
        "compact_bilinear_places",
        several(
            "CompactBilinear",
            "compact_bilinear_param { num_output: 6 sum_pool: false }",
            (1, 4, 2, 3),
            (1, 4, 2, 3),
        ),
    ),
    Case("signed_sqrt", net("SignedSqrt")),
    Case("l2_normalize", net("L2Normalize")),
    Case("norm_of_rows", net("Norm")),
    Case("mergecrop", several("MergeCrop", "", (1, 2, 3, 2), (1, 3, 5, 5)), gradient=("a",)),
    Case(
        "mergecrop_add",
        several(
            "MergeCrop", "mergecrop_param { operation: ADD backward: [1, 1] }", (1, 2, 3, 2), (1, 2, 5, 5)
        ),
    ),
    Case("selu", net("SELU")),
    Case("selu_fork", net("SeLu")),
    Case("selu_name", net("Selu")),
]
