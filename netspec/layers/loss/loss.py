"""Losses of BVLC Caffe. All give a scalar of shape (); the executor multiplies by loss_weight."""

from __future__ import annotations

from math import log, prod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as sigmoid_cross_entropy
from torch.nn.functional import log_softmax, one_hot

from netspec.layers.base import Layer, Shape, between, exactly, register
from netspec.layers.loss.labels import (
    Normalization,
    check_labels,
    check_same,
    classes,
    floor_through,
    ignored,
    normalization,
    rows,
    value_with_gradient_of,
)

FLT_MIN = 1.1754943508222875e-38
"""Smallest normal float32; Caffe's floor under the probability in SoftmaxWithLoss."""
LOG_THRESHOLD = 1e-20
"""Caffe's floor under probabilities in the multinomial and infogain losses (loss_layer.hpp)."""


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(Layer):
    """loss = -sum log softmax(x)[label] / normaliser, in nats; optional tops: softmax(x), the loss of each position.

    Shapes: scores (..., C at softmax_param.axis, ...), label with one value for every other position, tops (),
    the scores' shape, and the same with one class (as R-FCN has it; 0 where a position does not count). A third
    bottom, as MS-CNN has it, weighs each label: VALID divides by the sum of the weights, and 0 takes no part.
    loss_param: ignore_label; normalization VALID (default: counted labels, at least
    1), FULL, BATCH_SIZE, NONE, PRE_FIXED; weight_by_label_freqs multiplies each label's loss by its
    class_weighting. A label that is NaN or ignore_label takes no part, whatever its scores hold, NaN
    included; elsewhere a NaN score makes the loss NaN. The probability is floored at the smallest normal
    float32, so one row costs at most 87.3. Raises SpecError when labels and scores do not fit; IndexError for
    a label outside 0..C-1 (on a GPU, where that cannot be raised without waiting, a device assertion).
    Source: Caffe, softmax_loss_layer.cpp.
    """

    family = "loss"
    roles: ClassVar[tuple[str, ...]] = ("scores", "label", "weights")
    is_softmax = True
    bottoms, tops, is_loss = between(2, 3), between(1, 3), True
    param_field = "softmax_param"

    def setup(self, *shapes: Shape) -> None:
        self.class_axis = self.axis(self.param.axis, len(shapes[0]), "axis")
        check_labels(self, shapes[0], shapes[1], self.class_axis)
        if len(shapes) == 3 and prod(shapes[2]) != prod(shapes[1]):
            self.fail(f"needs a weight for each label {shapes[1]}, found {shapes[2]}", "bottom", 2)
        self.ignore, self.normalized = ignored(self), normalization(self, "VALID")
        p, number = self.spec.message.loss_param, shapes[0][self.class_axis]
        self.weighted = p.weight_by_label_freqs
        if self.weighted:
            self.require(
                len(p.class_weighting) == number,
                ("loss_param", "class_weighting"),
                f"needs a weight for each of {number} classes, found {len(p.class_weighting)}",
            )
            self.register_buffer("weights", torch.tensor(list(p.class_weighting)))

    def losses(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """(loss of each position, whether it counts), both (O, I)."""
        x_OCI = rows(x, self.class_axis)
        index_OI, valid_OI = classes(label.reshape(x_OCI.shape[0], x_OCI.shape[2]), self.ignore)
        logp_OCI = log_softmax(torch.where(valid_OI.unsqueeze(1), x_OCI, 0.0), 1)
        logp_OI = floor_through(logp_OCI.gather(1, index_OI.unsqueeze(1)).squeeze(1), log(FLT_MIN))
        if self.weighted:
            logp_OI = logp_OI * self.get_buffer("weights").to(logp_OI.dtype)[index_OI]
        return torch.where(valid_OI, -logp_OI, 0.0), valid_OI

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        x = bottoms[0]
        if len(bottoms) == 3:
            weight, label = bottoms[2].detach().flatten(), bottoms[1].flatten()
            losses_OI, valid_OI = self.losses(x, torch.where(weight == 0, torch.nan, label.to(weight)))
            weight_OI = weight.reshape(losses_OI.shape)
            losses_OI, counted_OI = losses_OI * weight_OI, valid_OI * weight_OI
        else:
            losses_OI, counted_OI = self.losses(x, bottoms[1])
        loss = self.normalized(losses_OI, counted_OI, losses_OI.shape[0])
        positions = losses_OI.reshape(*x.shape[: self.class_axis], 1, *x.shape[self.class_axis + 1 :])
        return (loss, x.softmax(self.class_axis), positions)[: len(self.spec.tops)]


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(Layer):
    """loss = sum(-t log sigmoid(x) - (1 - t) log(1 - sigmoid(x))) / normaliser, in nats.

    Shapes: logits and targets alike (targets are any real numbers), top (). loss_param: normalization
    BATCH_SIZE (default), FULL, VALID, NONE; ignore_label is compared with the target cut to an integer, so
    ignoring 0 also ignores 0.3. An ignored or NaN target takes no part, whatever its logit holds. strict: as
    the fork, no ignore_label and always BATCH_SIZE. Raises SpecError when the bottoms differ in size. Source:
    Caffe, sigmoid_cross_entropy_loss_layer.cpp.
    """

    family, roles = "loss", ("scores", "binary label")
    alike = True
    bottoms, is_loss = exactly(2), True

    def setup(self, *shapes: Shape) -> None:
        check_same(self, shapes[0], shapes[1])
        self.ignore = None if self.strict else ignored(self)
        self.normalized = Normalization("BATCH_SIZE") if self.strict else normalization(self, "BATCH_SIZE")

    def forward(self, *bottoms: Tensor) -> Tensor:
        x, target = bottoms[0], bottoms[1].detach().reshape(bottoms[0].shape)
        valid = ~target.isnan()
        if self.ignore is not None:
            valid = valid & (target.trunc() != self.ignore)
        losses = sigmoid_cross_entropy(
            torch.where(valid, x, 0.0), torch.where(valid, target, 0.0), reduction="none"
        )
        return self.normalized(torch.where(valid, losses, 0.0), valid, x.shape[0])


@register("EuclideanLoss")
class EuclideanLoss(Layer):
    """loss = sum (a - b)^2 / (2 N), N the first dimension; both bottoms get a gradient.

    Shapes: a and b alike, top (). NaN makes the loss NaN. Raises SpecError when the bottoms differ in size.
    Source: Caffe, euclidean_loss_layer.cpp.
    """

    family, roles = "loss", ("values", "target")
    alike = True
    bottoms, is_loss = exactly(2), True

    def setup(self, *shapes: Shape) -> None:
        check_same(self, shapes[0], shapes[1])

    def forward(self, *bottoms: Tensor) -> Tensor:
        a, b = bottoms
        return (a - b.reshape(a.shape)).square().sum() / (2 * a.shape[0])


@register("HingeLoss")
class HingeLoss(Layer):
    """loss = sum max(0, 1 + s x) / N (norm L1) or its squares (L2), s = -1 at the label's class and +1
    elsewhere.

    Shapes: scores (N, ...) read as (N, K), label N values, top (). A row with a NaN label takes no part but
    counts in N. Raises SpecError when there is not one label per row. Source: Caffe, hinge_loss_layer.cpp.
    """

    family, roles = "loss", ("scores", "row label")
    bottoms, is_loss = exactly(2), True
    param_field = "hinge_loss_param"

    def setup(self, *shapes: Shape) -> None:
        check_labels(self, (shapes[0][0], prod(shapes[0][1:])), shapes[1], 1)

    def forward(self, *bottoms: Tensor) -> Tensor:
        x, (index, valid) = bottoms[0].flatten(1), classes(bottoms[1].reshape(-1))
        x = torch.where(valid.unsqueeze(1), x, 0.0)
        sign = 1 - 2 * one_hot(index, x.shape[1]).to(x.dtype)
        margins = (1 + sign * x).clamp(min=0)
        losses = margins.square() if self.param.norm == self.param.L2 else margins
        return torch.where(valid.unsqueeze(1), losses, 0.0).sum() / x.shape[0]


@register("ContrastiveLoss")
class ContrastiveLoss(Layer):
    """loss = sum (y d^2 + (1 - y) max(0, margin - d)^2) / (2 N), d = |a - b|; legacy_version: max(0, margin -
    d^2).

    Shapes: a, b (N, C), similarity y N values (cut to an integer; non-zero means similar), top (). The
    gradient of a dissimilar pair divides by d + 1e-4, as Caffe's, so it is 0 and not NaN at d = 0. A pair
    with NaN similarity takes no part but counts in N. Raises SpecError when shapes differ. Source: Hadsell,
    Chopra, LeCun 2006; Caffe, contrastive_loss_layer.cpp.
    """

    family, roles = "loss", ("features", "features", "row label")
    bottoms, is_loss = exactly(3), True
    param_field = "contrastive_loss_param"

    def setup(self, *shapes: Shape) -> None:
        check_same(self, shapes[0], shapes[1])
        if prod(shapes[2]) != shapes[0][0]:
            self.fail(
                f"needs one similarity for each of {shapes[0][0]} pairs, found shape {shapes[2]}", "bottom", 2
            )

    def forward(self, *bottoms: Tensor) -> Tensor:
        a, b = bottoms[0].flatten(1), bottoms[1].flatten(1)
        index, valid = classes(bottoms[2].reshape(-1))
        square = torch.where(valid.unsqueeze(1), a - b, 0.0).square().sum(1)
        if self.param.legacy_version:
            apart = (self.param.margin - square).clamp(min=0)
        else:
            distance = square.detach().sqrt()
            gap = (self.param.margin - distance).clamp(min=0)
            apart = value_with_gradient_of(gap.square(), -gap / (distance + 1e-4) * square)
        losses = torch.where(index != 0, square, apart)
        return torch.where(valid, losses, 0.0).sum() / (2 * a.shape[0])


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(Layer):
    """loss = -sum log max(p[label], 1e-20) / N in nats, p being probabilities.

    Shapes: probabilities (N, ...) read as (N, K), label N values, top (). The gradient is -1/max(p, 1e-20)
    also below the floor. A row with a NaN label takes no part but counts in N. Raises SpecError when there is
    not one label per row. Source: Caffe, multinomial_logistic_loss_layer.cpp.
    """

    family, roles = "loss", ("scores", "row label")
    bottoms, is_loss = exactly(2), True

    def setup(self, *shapes: Shape) -> None:
        check_labels(self, (shapes[0][0], prod(shapes[0][1:])), shapes[1], 1)

    def forward(self, *bottoms: Tensor) -> Tensor:
        p, (index, valid) = bottoms[0].flatten(1), classes(bottoms[1].reshape(-1))
        picked = torch.where(valid, p.gather(1, index.unsqueeze(1)).squeeze(1), 1.0)
        return -floor_through(picked, LOG_THRESHOLD).log().sum() / p.shape[0]
