"""Cases of losses and layers of single forks: focal, triplets, adaptation, CTC, locally connected, activations."""

from __future__ import annotations

import torch

from tests.cases import Case
from tests.cases.loss import FOUR, NAN, labels, text
from tests.cases.pointwise import HOLES, net

LINE = torch.linspace(-5, 5, 24).view(2, 3, 4) + 0.03
ROWS = labels(0, 2, 3, 0, 1, 1, 0, 0, shape=(2, 4))
"""Labels of two sequences; 0 is the blank, and lies behind and between."""
COLUMNS = labels(1, 0, 2, 2, -1, 1, NAN, -1, shape=(4, 2))
"""Labels of two sequences, that end at the first negative."""
BEGINS = labels(0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, shape=(6, 2))


def ctc(kind: str, options: str = "", bottoms: str = "x label", **shapes: tuple[int, ...]) -> str:
    return text(f"{kind} ctc_loss_param {{ {options} }}", bottoms=bottoms, x=(6, 2, 4), **shapes)


CASES = [
    Case("focal_loss", text("FocalLoss", x=(4, 3), label=(4,)), inputs={"label": FOUR}),
    Case(
        "focal_loss_spatial",
        text(
            "FocalLoss loss_param { ignore_label: 1 normalize: false } focal_loss_param { gamma: 1.5 alpha: 0.75 }",
            tops="loss p",
            x=(2, 3, 2, 2),
            label=(2, 2, 2),
        ),
        inputs={"label": labels(0, 1, 2, NAN, 1, 1, 2, 0, shape=(2, 2, 2))},
    ),
    Case(
        "focal_loss_balance",
        text(
            "SoftmaxFocalLoss focal_loss_param { alpha: [0.1, 0.5, 2] alpha_balance: true axis: -1 }",
            x=(2, 2, 3),
            label=(2, 2),
        ),
        inputs={"label": FOUR.reshape(2, 2)},
    ),
    Case(
        "focal_loss_targets",
        text(
            "FocalLoss loss_param { ignore_label: -1 } focal_loss_param { alpha: 0.3 }",
            x=(2, 3),
            label=(2, 3),
        ),
        inputs={"label": labels(0, 1, -1, 1, NAN, 0, shape=(2, 3))},
    ),
    Case(
        "triplet_loss",
        text("TripletLoss triplet_loss_param { margin: 2 }", "a p n", a=(5, 3), p=(5, 3), n=(5, 3)),
    ),
    Case("gradient_reversal", net("GradientReversal"), gradient=()),
    Case("gradient_scaler", net("GradientScaler", "gradient_scaler_param { max_iter: 10 }"), gradient=()),
    Case(
        "gradient_scaler_factor", net("GradientScaler", "gradient_scaler_param { scale_factor: 1 }"), "TEST"
    ),
    Case(
        "local",
        net(
            "Local",
            'local_param { num_output: 2 kernel_size: 3 stride: 2 pad: 1 weight_filler { type: "gaussian" } '
            'bias_filler { type: "uniform" } }',
            (2, 2, 4, 5),
        ),
    ),
    Case(
        "locally_connected",
        net(
            "LocallyConnected",
            "locally_connected_param { num_output: 2 kernel_size: 2 bias_term: false "
            'weight_filler { type: "gaussian" } }',
            (2, 1, 3, 3),
        ),
    ),
    # All but CTCLoss with two bottoms give the gradient of the sum of the sequences' losses.
    Case(
        "ctc_rows",
        ctc("CtcLoss", "alphabet_size: 4 time_step: 6", label=(2, 4)),
        inputs={"label": ROWS},
        gradient=(),
    ),
    Case("ctc_averaged", ctc("CTCLoss", label=(2, 4)), inputs={"label": ROWS}),
    Case(
        "ctc_indicators",
        ctc("CTCLoss", bottoms="x begin label", begin=(6, 2), label=(4, 2)),
        inputs={"begin": BEGINS, "label": COLUMNS},
        gradient=(),
    ),
    Case(
        "ctc_lengths",
        ctc("WarpCTCLoss", "blank_index: 3", "x steps number label", steps=(2,), number=(2,), label=(4, 2)),
        inputs={"steps": labels(6, 3), "number": labels(2, 1), "label": COLUMNS.abs()},
        gradient=(),
    ),
    Case("mish", net("Mish")),
    Case("hard_swish", net("HardSwish"), inputs={"x": LINE}, gradient=("x",)),
    Case("hswish", net("HSwish"), inputs={"x": LINE}, gradient=("x",)),
    Case("hsigmoid", net("HSigmoid"), inputs={"x": LINE}, gradient=("x",)),
    Case(
        "hard_sigmoid",
        net("HardSigmoid", "hard_sigmoid_param { alpha: 0.3 }"),
        inputs={"x": LINE},
        gradient=("x",),
    ),
    Case("hard_sigmoid_plain", net("HardSigmoid", "", (1, 4)), inputs=HOLES, gradient=()),
    Case("crelu", net("CReLU", "crelu_param { negative_slope: 0.1 }")),
    Case("crelu_axis", net("CReLU", "crelu_param { concat_axis: -1 }", (1, 4)), inputs=HOLES, gradient=()),
]
