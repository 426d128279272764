"""Cases of the losses of BVLC Caffe."""

from __future__ import annotations

import torch

from tests.cases import Case


def text(layer: str, bottoms: str = "x label", tops: str = "loss", **shapes: tuple[int, ...]) -> str:
    """Input layers of the given shapes, then one layer; `layer` is its type and further fields."""
    kind, _, fields = layer.partition(" ")
    lines = [
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        + " ".join(f"dim: {size}" for size in shape)
        + " } } }"
        for name, shape in shapes.items()
    ]
    blobs = " ".join(f'bottom: "{b}"' for b in bottoms.split()) + "".join(
        f' top: "{t}"' for t in tops.split()
    )
    return "\n".join([*lines, f'layer {{ name: "it" type: "{kind}" {blobs} {fields} }}'])


def labels(*values: float, shape: tuple[int, ...] = (-1,)) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(shape)


NAN = float("nan")
FOUR = labels(0, 2, 1, 2)
GAINS = torch.tensor([[1.0, 0.2, 0.0], [0.3, 0.9, 0.1], [0.0, 0.4, 1.2]])

CASES = [
    Case(
        "softmax_loss_three_tops",
        text("SoftmaxWithLoss loss_param { ignore_label: 1 }", tops="loss prob each", x=(4, 3), label=(4,)),
        inputs={"label": FOUR},
    ),
    Case("softmax_loss", text("SoftmaxWithLoss", x=(4, 3), label=(4,)), inputs={"label": FOUR}),
    Case(
        "softmax_loss_automatic_top",
        text("SoftmaxWithLoss", tops="", x=(4, 3), label=(4, 1, 1, 1)),
        inputs={"label": FOUR.reshape(4, 1, 1, 1)},
    ),
    Case(
        "softmax_loss_spatial",
        text(
            "SoftmaxWithLoss loss_param { ignore_label: 1 } loss_weight: 2",
            x=(2, 3, 2, 2),
            label=(2, 1, 2, 2),
        ),
        inputs={"label": labels(0, 1, 2, NAN, 1, 1, 2, 0, shape=(2, 1, 2, 2))},
    ),
    Case(
        "softmax_loss_axis",
        text(
            "SoftmaxWithLoss softmax_param { axis: -1 } loss_param { normalize: false }",
            tops="loss p",
            x=(2, 2, 3),
            label=(2, 2),
        ),
        inputs={"label": FOUR.reshape(2, 2)},
    ),
    *(
        Case(
            f"softmax_loss_{mode.lower()}",
            text(
                f"SoftmaxWithLoss loss_param {{ ignore_label: 2 normalization: {mode} }}",
                x=(4, 3),
                label=(4,),
            ),
            inputs={"label": FOUR},
        )
        for mode in ("FULL", "BATCH_SIZE", "NONE")
    ),
    Case(
        "sigmoid_loss",
        text("SigmoidCrossEntropyLoss", x=(3, 4), label=(3, 4)),
        inputs={"label": torch.arange(12.0).reshape(3, 4) / 11},
    ),
    Case(
        "sigmoid_loss_ignore",
        text(
            "SigmoidCrossEntropyLoss loss_param { ignore_label: -1 normalization: VALID }",
            x=(2, 3),
            label=(2, 3),
        ),
        inputs={"label": labels(0, 1, -1, 0.4, NAN, -1, shape=(2, 3))},
    ),
    Case("euclidean_loss", text("EuclideanLoss", x=(3, 2, 2), label=(3, 4))),
    Case("hinge_loss", text("HingeLoss", x=(4, 3), label=(4,)), inputs={"label": FOUR}),
    Case(
        "hinge_loss_l2",
        text("HingeLoss hinge_loss_param { norm: L2 }", x=(4, 3, 1, 1), label=(4, 1)),
        inputs={"label": labels(0, NAN, 2, 1, shape=(4, 1))},
    ),
    # Caffe's gradient of a dissimilar pair is off by a factor d / (d + 1e-4), hence the distances and
    # tolerance.
    Case(
        "contrastive_loss",
        text(
            "ContrastiveLoss contrastive_loss_param { margin: 9 }",
            bottoms="x b y",
            x=(4, 3),
            b=(4, 3),
            y=(4,),
        ),
        inputs={"y": labels(1, 0, 0, NAN), "b": torch.full((4, 3), 3.0)},
        atol=1e-3,
    ),
    Case(
        "contrastive_loss_legacy",
        text(
            "ContrastiveLoss contrastive_loss_param { margin: 3 legacy_version: true }",
            bottoms="x b y",
            x=(4, 3),
            b=(4, 3),
            y=(4, 1, 1, 1),
        ),
        inputs={"y": labels(1, 0, 0, 1, shape=(4, 1, 1, 1))},
    ),
    Case(
        "multinomial_loss",
        text("MultinomialLogisticLoss", x=(4, 3), label=(4,)),
        inputs={"label": FOUR, "x": torch.rand((4, 3), generator=torch.Generator().manual_seed(1)) + 0.1},
        gradient=("x",),
    ),
    Case(
        "infogain_loss",
        text(
            "InfogainLoss loss_param { ignore_label: 0 }",
            bottoms="x label H",
            tops="loss p",
            x=(2, 3, 2),
            label=(2, 2),
            H=(1, 1, 3, 3),
        ),
        inputs={"label": FOUR.reshape(2, 2), "H": GAINS.reshape(1, 1, 3, 3)},
    ),
    Case(
        "infogain_loss_strict",
        text("InfogainLoss strict: true", bottoms="x label H", x=(4, 3), label=(4,), H=(3, 3)),
        inputs={
            "label": FOUR,
            "H": GAINS,
            "x": torch.rand((4, 3), generator=torch.Generator().manual_seed(1)) + 0.1,
        },
        gradient=("x",),
    ),
    Case(
        "softmax_loss_class_weights",
        text(
            "SoftmaxWithLoss loss_param { weight_by_label_freqs: true class_weighting: [0.5, 1, 2] }",
            x=(4, 3),
            label=(4,),
        ),
        inputs={"label": FOUR},
    ),
    Case("smooth_l1_loss", text("SmoothL1Loss", x=(3, 4), label=(3, 4))),
    Case(
        "smooth_l1_loss_weights",
        text(
            "SmoothL1Loss smooth_l1_loss_param { sigma: 2 }",
            "x b in out",
            x=(2, 4, 2),
            b=(2, 4, 2),
            **{"in": (2, 4, 2), "out": (2, 4, 2)},
        ),
        inputs={
            "in": torch.arange(16.0).reshape(2, 4, 2) % 3,
            "out": torch.arange(16.0).reshape(2, 4, 2) % 5,
        },
    ),
    Case("l1_loss", text("L1Loss", x=(2, 3, 2), label=(2, 3, 2))),
    Case("l1_loss_one_bottom", text("L1Loss l1_loss_param { plateau: 0.5 }", "x", x=(2, 3))),
    Case(
        "l1_loss_per_location",
        text(
            "L1Loss l1_loss_param { l2_per_location: true l2_prescale_by_channels: true "
            "normalize_by_num_entries: true }",
            x=(2, 2, 2, 2),
            label=(2, 2, 2, 2),
        ),
        inputs={
            "label": torch.where(torch.arange(16) % 7 == 3, NAN, torch.arange(16) / 9).reshape(2, 2, 2, 2)
        },
    ),
    Case(
        "balanced_sigmoid_loss",
        text("SigmoidCrossEntropyBalanceLoss", x=(2, 1, 2, 3), label=(2, 1, 2, 3)),
        inputs={"label": labels(0, 1, 2, 0, 0, 1, 0, 0, NAN, 0, 0, 0, shape=(2, 1, 2, 3))},
    ),
    Case(
        "softmax_loss_ohem",
        text("SoftmaxWithLossOHEM loss_param { ignore_label: 1 }", tops="loss p each", x=(4, 3), label=(4,)),
        inputs={"label": FOUR},
    ),
    Case(
        "smooth_l1_loss_ohem",
        text(
            "SmoothL1LossOHEM loss_param { normalization: PRE_FIXED pre_fixed_normalizer: 8 }",
            "x b w",
            "loss each",
            x=(4, 3),
            b=(4, 3),
            w=(4, 3),
        ),
        inputs={"w": torch.arange(12.0).reshape(4, 3) % 2},
    ),
    Case(
        "box_annotator",
        text(
            "BoxAnnotatorOHEM box_annotator_ohem_param { roi_per_img: 2 }",
            "rois losses label w",
            "labels weights",
            rois=(5, 5),
            losses=(5, 1, 1, 1),
            label=(5,),
            w=(5, 8),
        ),
        inputs={"rois": torch.tensor([0.0, 1, 0, 0, 0]).unsqueeze(1).repeat(1, 5)},
        gradient=(),
    ),
    Case(
        "center_loss",
        text(
            'CenterLoss center_loss_param { num_output: 3 center_filler { type: "gaussian" } } param { lr_mult: 0 }',
            x=(4, 2, 2),
            label=(4,),
        ),
        inputs={"label": FOUR},
    ),
    Case(
        "center_loss_learned",
        text(
            'CenterLoss center_loss_param { num_output: 3 center_filler { type: "gaussian" } }',
            x=(4, 2),
            label=(4, 1),
        ),
        inputs={"label": FOUR.reshape(4, 1)},
        gradient=(),
    ),
]
