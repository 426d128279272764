"""Cases of Accuracy."""

from __future__ import annotations

import torch

from tests.cases import Case
from tests.cases.loss import FOUR, NAN, labels, text

TIES = torch.tensor([[1.0, 1, 0], [0, 2, 2], [3, 3, 3], [0, 1, 5]])

CASES = [
    Case(
        "accuracy",
        text("Accuracy", tops="acc", x=(4, 3), label=(4,)),
        phase="TEST",
        inputs={"x": TIES, "label": FOUR},
        gradient=(),
    ),
    Case(
        "accuracy_strict",
        text("Accuracy strict: true", tops="acc each", x=(4, 3), label=(4,)),
        phase="TEST",
        inputs={"x": TIES, "label": FOUR},
        gradient=(),
    ),
    Case(
        "accuracy_spatial",
        text(
            "Accuracy accuracy_param { top_k: 2 ignore_label: 1 }",
            tops="acc each",
            x=(2, 3, 1, 3),
            label=(2, 1, 1, 3),
        ),
        phase="TEST",
        inputs={"label": labels(0, 1, 2, 2, NAN, 0, shape=(2, 1, 1, 3))},
        gradient=(),
    ),
    Case(
        "accuracy_axis",
        text("Accuracy accuracy_param { axis: -1 }", tops="acc", x=(2, 2, 3), label=(2, 2)),
        inputs={"label": FOUR.reshape(2, 2)},
        gradient=(),
    ),
    Case(
        "seg_accuracy",
        text(
            "SegAccuracy seg_accuracy_param { ignore_label: 255 ignore_label: 7 }",
            tops="acc",
            x=(1, 3, 2, 4),
            label=(1, 1, 2, 4),
        ),
        phase="TEST",
        inputs={"label": labels(0, 1, 2, 0, 255, 7, 1, 1, shape=(1, 1, 2, 4))},
        gradient=(),
    ),
    Case(
        "seg_accuracy_of_all_batches",
        text(
            "SegAccuracy seg_accuracy_param { reset: false }", tops="acc", x=(2, 2, 1, 2), label=(2, 1, 1, 2)
        ),
        phase="TEST",
        inputs={"label": labels(0, 1, NAN, 0, shape=(2, 1, 1, 2))},
        gradient=(),
    ),
]
