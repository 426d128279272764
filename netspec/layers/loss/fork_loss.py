"""Losses of public forks of Caffe: smooth L1 (Fast R-CNN, SSD), L1 (FlowNet), balanced sigmoid (HED), triplets and
centres (faces)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as sigmoid_cross_entropy

from netspec.layers.base import Layer, Shape, between, exactly, register
from netspec.layers.loss.labels import check_same, from_start


def smooth_l1(d: Tensor, sigma: float = 1.0) -> Tensor:
    """0.5 (sigma d)^2 where |d| < 1 / sigma^2, else |d| - 0.5 / sigma^2."""
    corner = 1 / sigma**2
    return torch.where(d.abs() < corner, 0.5 / corner * d * d, d.abs() - 0.5 * corner)


def weigh(d: Tensor, weight: Tensor) -> Tensor:
    """weight * d, and 0 where the weight is 0 even if d is NaN."""
    weight = weight.detach().reshape(d.shape)
    return weight * torch.where(weight == 0, 0.0, d)


@register("SmoothL1Loss")
class SmoothL1Loss(Layer):
    """loss = sum out * s(in * (a - b)) / N, s(d) = 0.5 (sigma d)^2 where |d| < 1/sigma^2, else |d| -
    0.5/sigma^2.

    Shapes: prediction a, target b, optional inside and outside weights, all alike; top (); N is the first
    dimension. Both a and b get a gradient. Where the inside weight is 0, a and b have no effect, NaN
    included; other NaN make the loss NaN. Raises SpecError when sigma is not positive or sizes differ.
    Source: Girshick 2015 (Fast R-CNN), smooth_L1_loss_layer; SSD's has the inside weights only.
    """

    family, roles = "loss", ("values", "target", "weights")
    alike = True
    bottoms, is_loss = between(2, 4), True
    param_field = "smooth_l1_loss_param"

    def setup(self, *shapes: Shape) -> None:
        for i, shape in enumerate(shapes[1:], 1):
            check_same(self, shapes[0], shape, i)
        self.positive("sigma")

    def forward(self, *bottoms: Tensor) -> Tensor:
        a = bottoms[0]
        d = a - bottoms[1].reshape(a.shape)
        if len(bottoms) > 2:
            d = weigh(d, bottoms[2])
        losses = smooth_l1(d, self.param.sigma)
        if len(bottoms) > 3:
            losses = weigh(losses, bottoms[3])
        return losses.sum() / a.shape[0]


@register("L1Loss")
class L1Loss(Layer):
    """loss = sum |a - b| / N; l2_per_location: sum over pixels of sqrt(sum over channels of (a - b)^2 +
    epsilon) / N.

    Shapes: a, optional b (absent: 0), (N, C, ...) alike; top (). normalize_by_num_entries divides by the
    number of entries that are not NaN, over C, in place of N. l2_prescale_by_channels divides the sum under
    the root by C. Differences below `plateau` cost nothing. An entry that is NaN in a or b takes no part.
    Raises SpecError when sizes differ or l2_per_location has no channel axis. Source: FlowNet (Dosovitskiy et
    al. 2015), l1_loss_layer.
    """

    family, roles = "loss", ("values", "target")
    alike = True
    bottoms, is_loss = between(1, 2), True
    param_field = "l1_loss_param"

    def setup(self, *shapes: Shape) -> None:
        if len(shapes) == 2:
            check_same(self, shapes[0], shapes[1])
        if len(shapes[0]) < 2 and (self.param.l2_per_location or self.param.normalize_by_num_entries):
            self.fail(f"needs a blob (N, C, ...), found {shapes[0]}", "bottom", 0)

    def forward(self, *bottoms: Tensor) -> Tensor:
        p, d = self.param, bottoms[0]
        if len(bottoms) == 2:
            d = d - bottoms[1].reshape(d.shape)
        seen = ~d.isnan()
        d = torch.where(seen, d, 0.0)
        if p.l2_per_location:
            square = d.square().sum(1) / (d.shape[1] if p.l2_prescale_by_channels else 1)
            counts = seen.any(1) & (square >= p.plateau**2)
            losses = torch.where(counts, (torch.where(counts, square, 1.0) + p.epsilon).sqrt(), 0.0)
        else:
            losses = torch.where(d.abs() >= p.plateau, d.abs(), 0.0)
        if p.normalize_by_num_entries:
            return losses.sum() * d.shape[1] / seen.sum().clamp(min=1)
        return losses.sum() / d.shape[0]


@register("SigmoidCrossEntropyBalanceLoss")
class SigmoidCrossEntropyBalanceLoss(Layer):
    """loss = sum of sigmoid cross entropies / N in nats, those of 1s weighed by the image's share of 0s and
    vice versa.

    Shapes: logits and targets alike, (N, ...), top (). Per image, with P targets equal to 1 and Q equal to 0,
    the losses of the former are multiplied by Q / (P + Q), of the latter by P / (P + Q). Entries with any
    other target, NaN included, take no part. Raises SpecError when the bottoms differ in size. Source: Xie
    and Tu 2015 (HED), sigmoid_cross_entropy_loss_layer.
    """

    family, roles = "loss", ("scores", "binary label")
    alike = True
    bottoms, is_loss = exactly(2), True

    def setup(self, *shapes: Shape) -> None:
        check_same(self, shapes[0], shapes[1])

    def forward(self, *bottoms: Tensor) -> Tensor:
        x, target = bottoms[0].flatten(1), bottoms[1].detach().flatten(1)
        positive, negative = target == 1, target == 0
        counted = positive | negative
        total = counted.sum(1, keepdim=True).clamp(min=1)
        share = torch.where(positive, negative.sum(1, keepdim=True), positive.sum(1, keepdim=True)) / total
        safe = torch.where(counted, x, 0.0)
        losses = sigmoid_cross_entropy(safe, positive.to(x.dtype), reduction="none") * share.to(x.dtype)
        return torch.where(counted, losses, 0.0).sum() / x.shape[0]


@register("TripletLoss")
class TripletLoss(Layer):
    """loss = sum max(0, margin + |a - p|^2 - |a - n|^2) / (2 N), over rows a, p of one class and n of another.

    Shapes: anchors a, positives p, negatives n (N, ...) alike, top (). All three get a gradient. NaN makes the loss
    NaN. Raises SpecError when sizes differ. Source: Schroff et al. 2015; triplet_loss_layer.cpp of face forks, that
    with three bottoms (forks that find triplets by labels, or weigh them, have a layer of the same name).
    """

    family, roles = "loss", ("features",)
    alike = True
    bottoms, is_loss = exactly(3), True
    param_field = "triplet_loss_param"

    def setup(self, *shapes: Shape) -> None:
        for i, shape in enumerate(shapes[1:], 1):
            check_same(self, shapes[0], shape, i)

    def forward(self, *bottoms: Tensor) -> Tensor:
        a, p, n = (x.reshape(len(bottoms[0]), -1) for x in bottoms)
        near, far = (a - p).square().sum(1), (a - n).square().sum(1)
        return (float(self.param.margin) + near - far).clamp(min=0).sum() / (2 * len(a))


def distance(x_NK: Tensor, centers_CK: Tensor, label_N: Tensor) -> Tensor:
    """sum |x - c|^2 / (2 N)."""
    return (x_NK - centers_CK[label_N]).square().sum() / (2 * x_NK.shape[0])


@torch.library.custom_op("netspec::to_centers", mutates_args=())
def to_centers(x_NK: Tensor, centers_CK: Tensor, label_N: Tensor) -> Tensor:
    """`distance` whose gradient of the centres is the step towards their rows, whatever the loss weighs."""
    return distance(x_NK, centers_CK, label_N)


@to_centers.register_fake
def _(x_NK: Tensor, centers_CK: Tensor, label_N: Tensor) -> Tensor:
    return x_NK.new_empty(())


def remember(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def towards(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    """The gradients of x and of the centres."""
    x_NK, centers_CK, label_N = ctx.saved_tensors
    d_NK = x_NK - centers_CK[label_N]
    zeros = torch.zeros_like(centers_CK)
    rows_C = centers_CK.new_zeros(len(centers_CK)).index_add(0, label_N, x_NK.new_ones(len(x_NK)))
    return grad * d_NK / x_NK.shape[0], -zeros.index_add(0, label_N, d_NK) / (rows_C[:, None] + 1), None


to_centers.register_autograd(towards, setup_context=remember)


@register("CenterLoss")
class CenterLoss(Layer):
    """loss = sum |x - c_label|^2 / (2 N); the centre of a class moves towards the mean of its rows.

    Shapes: features x (N, ...) read as (N, K), label N values, top (); blob centres (num_output, K). x has the
    gradient (x - c) / N. That of a centre with m rows in the batch is sum (c - x) / (m + 1), which the loss
    weight does not scale, as published. NaN makes the loss NaN. Raises SpecError for missing num_output, an
    axis other than 1, or labels that do not fit; IndexError in forward for a label of no class. Source: Wen et
    al. 2016, center_loss_layer.cpp.
    """

    family, roles = "loss", ("features", "row label")
    bottoms, is_loss = exactly(2), True
    param_field = "center_loss_param"

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        self.require(p.num_output, "num_output", "needs num_output > 0, the number of classes")
        if len(shape) < 2 or self.axis(p.axis, len(shape), "axis") != 1:
            self.fail(f"needs features (N, ...) from axis 1 on, found shape {shape}", "axis")
        if prod(shapes[1]) != shape[0]:
            self.fail(f"needs {shape[0]} labels, found shape {shapes[1]}", "bottom", 1)
        self.add_blob((p.num_output, prod(shape[1:])), p.center_filler)

    def forward(self, *bottoms: Tensor) -> Tensor:
        label = from_start(bottoms[1].detach().flatten().long(), self.blob_shapes[0][0])
        # A program that is written for others computes no gradients, and they lack the operator.
        apply = distance if torch.compiler.is_exporting() else to_centers
        return apply(bottoms[0].flatten(1), self.blob(0), label)

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """A square for each feature."""
        return prod(bottoms[0])
