"""Accuracy: how often the label is among the k best scores."""

from __future__ import annotations

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, between, exactly, register
from netspec.layers.loss.labels import check_labels, classes, rows
from netspec.schema.spec import LayerSpec


@register("Accuracy")
class Accuracy(Layer):
    """accuracy = share of positions whose label is among the top_k scores; second top: for each class.

    Shapes: scores (..., C at accuracy_param.axis, ...), label with one value for every other position; tops
    () and (C,). A label that is NaN or ignore_label takes no part; where nothing does, the value is 0. A
    score that ties with the label's counts as better, and so does NaN, so a NaN prediction is never right.
    strict: as the fork, of tied scores the larger class index wins, and with no position the accuracy is NaN.
    No gradient. Raises SpecError when labels do not fit or top_k exceeds the number of classes. Source:
    Caffe, accuracy_layer.cpp.
    """

    family, roles = "accuracy", ("scores", "label")
    bottoms, tops, differentiable = exactly(2), between(1, 2), False
    param_field = "accuracy_param"

    def setup(self, *shapes: Shape) -> None:
        self.class_axis = self.axis(self.param.axis, len(shapes[0]), "axis")
        check_labels(self, shapes[0], shapes[1], self.class_axis)
        number = shapes[0][self.class_axis]
        self.ignore = self.param.ignore_label if self.param.HasField("ignore_label") else None
        if not 1 <= self.param.top_k <= number:
            self.fail(
                f"top_k {self.param.top_k} must lie between 1 and the {number} classes",
                "top_k",
            )

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        x_OCI = rows(bottoms[0], self.class_axis)
        label_OI = bottoms[1].reshape(x_OCI.shape[0], x_OCI.shape[2])
        index_OI, valid_OI = classes(label_OI, self.ignore)
        own_O1I = x_OCI.gather(1, index_OI.unsqueeze(1))
        if self.strict:
            later = torch.arange(x_OCI.shape[1], device=x_OCI.device).view(-1, 1) > index_OI.unsqueeze(1)
            better_OI = ((x_OCI > own_O1I) | ((x_OCI == own_O1I) & later)).sum(1)
        else:
            better_OI = (~(x_OCI < own_O1I)).sum(1) - 1  # the label's own score is counted, and taken off
        hit_OI = (valid_OI & (better_OI < self.param.top_k)).to(x_OCI.dtype)
        total = valid_OI.sum()
        accuracy = hit_OI.sum() / (total if self.strict else total.clamp(min=1))
        if len(self.spec.tops) == 1:
            return (accuracy,)
        zeros = torch.zeros_like(x_OCI[0, :, 0])
        hits = zeros.scatter_add(0, index_OI.flatten(), hit_OI.flatten())
        totals = zeros.scatter_add(0, index_OI.flatten(), valid_OI.to(x_OCI.dtype).flatten())
        return accuracy, hits / totals.clamp(min=1)


@register("SegAccuracy")
class SegAccuracy(Layer):
    """(accuracy, mean recall of the classes that occur, mean overlap of all classes) of classified pixels.

    Shapes: scores (N, C, H, W), label (N, 1, H, W) or as many values; top (1, 1, 1, 3). The overlap of a class is
    the pixels that have it in both over those that have it in either, 1 where none has. Of tied scores the
    larger class index wins; NaN counts as the largest. Pixels of an ignore_label take no part, nor do those
    with a label that is NaN or no class, which stop the fork; where no pixel is left, the accuracy is NaN and
    the recall 0. With `reset: false` all batches so far are counted. No gradient. Raises SpecError when labels
    do not fit. Source: DeepLab, seg_accuracy_layer.cpp.
    """

    family, roles = "accuracy", ("scores", "label")
    bottoms, differentiable = exactly(2), False
    param_field = "seg_accuracy_param"

    def setup(self, *shapes: Shape) -> None:
        if len(shapes[0]) != 4:
            self.fail(f"needs scores (N, C, H, W), found shape {shapes[0]}", "bottom", 0)
        check_labels(self, shapes[0], shapes[1], 1)
        number = shapes[0][1]
        self.ignore = tuple(sorted({label for label in self.param.ignore_label if 0 <= label < number}))
        if not self.param.reset:
            self.register_buffer("counts", torch.zeros(number, number))

    def forward(self, *bottoms: Tensor) -> Tensor:
        number = bottoms[0].shape[1]
        guess = number - 1 - bottoms[0].detach().flip(1).argmax(1).flatten()
        label, valid = classes(bottoms[1].flatten())
        valid = valid & (label >= 0) & (label < number)
        for ignored in self.ignore:
            valid = valid & (label != ignored)
        counts = bottoms[0].new_zeros(number * number)
        place = torch.where(valid, label * number + guess, 0)
        counts = counts.scatter_add(0, place, valid.to(counts.dtype)).reshape(number, number)
        if not self.param.reset:
            counts = counts + self.get_buffer("counts")
            self.get_buffer("counts").copy_(counts)
        right, actual, guessed = counts.diagonal(), counts.sum(1), counts.sum(0)
        occurs = actual > 0
        recall = torch.where(occurs, right / actual.clamp(min=1), 0).sum() / occurs.sum().clamp(min=1)
        either = actual + guessed - right
        overlap = torch.where(either > 0, right / either.clamp(min=1), 1).mean()
        return torch.stack([right.sum() / counts.sum(), recall, overlap]).reshape(1, 1, 1, 3)


@register("EltwiseAccuracy")
class EltwiseAccuracy(Accuracy):
    """accuracy = share of pixels whose label is among the top_k classes.

    Shapes: scores (N, C, H, W), label (N, 1, H, W); top (). As Accuracy, with its own parameter. Source: Noh, Hong and
    Han 2015 (DeconvNet), eltwise_accuracy_layer.cpp.
    """

    tops = exactly(1)

    def __init__(self, spec: LayerSpec, phase: str):
        super().__init__(spec, phase)
        given = spec.message.eltwise_accuracy_param
        self.param = type(spec.message.accuracy_param)(top_k=given.top_k)
        if given.HasField("ignore_label"):
            self.param.ignore_label = given.ignore_label
