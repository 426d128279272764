"""Checks that the labels of a batch are classes of the scores."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from netspec.errors import SpecError
from netspec.net.net import Net

LABELS = ("label", "row label")
"""Roles of bottoms that hold numbers of classes."""


def check_labels(net: Net, batch: Sequence[Tensor]) -> None:
    """Refuse a batch with a label beyond the classes of the scores beside it.

    batch: the net's inputs; in place of an input, all values that it will ever have. Labels that are missing (NaN),
    below 0 or ignored are not checked.
    Raises SpecError at the label of each layer that reads it: "labels reach 9, the scores have 5 classes".
    """
    values, problems = dict(zip(net.graph.inputs, batch, strict=True)), []
    for step in net.graph.steps:
        count = len(step.reads)
        if not step.kind.is_loss or count < 2 or step.kind.role(0, count) != "scores":
            continue
        scores = net.shapes[step.reads[0]]
        for i, slot in enumerate(step.reads):
            if step.kind.role(i, count) not in LABELS or slot not in values or len(scores) < 2:
                continue
            label = values[slot].detach().flatten()
            label = label[~label.isnan()]
            loss = step.layer.message.loss_param
            label = label[label != loss.ignore_label] if loss.HasField("ignore_label") else label
            classes = scores[step.kind.classes_along(step.layer) % len(scores)]
            if len(label) and int(label.max()) >= classes:
                text = f"labels reach {int(label.max())}, the scores have {classes} classes"
                problems.append(step.layer.problem(f"{text}; is num_output right?", "bottom", i))
    if problems:
        raise SpecError(problems)
