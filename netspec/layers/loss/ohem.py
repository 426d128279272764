"""Online hard example mining of R-FCN: losses that also give the loss of each region, and the choice of the
hardest."""

from __future__ import annotations

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, between, exactly, register
from netspec.layers.loss.fork_loss import smooth_l1, weigh
from netspec.layers.loss.labels import check_same, normalization
from netspec.layers.loss.loss import SoftmaxWithLoss


@register("SoftmaxWithLossOHEM")
class SoftmaxWithLossOHEM(SoftmaxWithLoss):
    """loss = -sum log softmax(x)[label] / normaliser in nats; tops 2 and 3: softmax(x), and the loss of each
    position.

    Shapes: scores (..., C at softmax_param.axis, ...), label with one value for every other position; tops
    (), the scores' shape, and the label positions (N, 1, ...). loss_param and NaN as in SoftmaxWithLoss; a
    position that does not count has loss 0. Raises SpecError when labels do not fit. Source: Dai et al. 2016
    (R-FCN), softmax_loss_ohem.
    """

    bottoms = exactly(2)
    roles = ("scores", "label")


@register("SmoothL1LossOHEM")
class SmoothL1LossOHEM(Layer):
    """loss = sum s(w (a - b)) / normaliser, s(d) = 0.5 d^2 where |d| < 1, else |d| - 0.5; top 2: the loss of
    each region.

    Shapes: prediction a, target b, optional weights w, (N, C, ...) alike; tops () and (N, 1, ...).
    loss_param: normalization VALID (default) and FULL divide by the number of positions, BATCH_SIZE by N,
    PRE_FIXED by pre_fixed_normalizer. Where w is 0, a and b have no effect, NaN included. Raises SpecError
    when sizes differ. Source: Dai et al. 2016 (R-FCN), smooth_L1_loss_ohem.
    """

    family, roles = "loss", ("values", "target", "weights")
    alike = True
    bottoms, tops, is_loss = between(2, 3), between(1, 2), True

    def setup(self, *shapes: Shape) -> None:
        if len(shapes[0]) < 2:
            self.fail(f"needs a blob (N, C, ...), found {shapes[0]}", "bottom", 0)
        for i, shape in enumerate(shapes[1:], 1):
            check_same(self, shapes[0], shape, i)
        self.normalized = normalization(self, "VALID")

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        a = bottoms[0]
        d = a - bottoms[1].reshape(a.shape)
        if len(bottoms) == 3:
            d = weigh(d, bottoms[2])
        regions = smooth_l1(d).sum(1, keepdim=True)
        loss = self.normalized(regions, torch.ones_like(regions, dtype=torch.bool), a.shape[0])
        return (loss, regions)[: len(self.spec.tops)]


@register("BoxAnnotatorOHEM")
class BoxAnnotatorOHEM(Layer):
    """Keep labels and box weights of the roi_per_img regions of each image with the greatest loss; hide the
    others.

    Shapes: regions (R, 5) as (image, x1, y1, x2, y2), their losses and labels with R values each, box weights
    (R, ...); tops: labels, ignore_label where hidden, and box weights, 0 where hidden. Of equal losses the
    earlier region comes first; NaN losses come first of all. No gradient. Raises SpecError when sizes differ.
    Source: Dai et al. 2016 (R-FCN), box_annotator_ohem.
    """

    family, roles = "detection", ("regions", "values", "label", "weights")
    products = 0
    bottoms, tops, differentiable = exactly(4), exactly(2), False
    param_field = "box_annotator_ohem_param"

    def setup(self, *shapes: Shape) -> None:
        regions = shapes[0][0]
        for i, shape in enumerate(shapes[1:], 1):
            if shape[0] != regions or (i < 3 and torch.Size(shape).numel() != regions):
                self.fail(f"needs one entry for each of {regions} regions, found shape {shape}", "bottom", i)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        regions, losses, labels, weights = bottoms
        image_R = regions.reshape(regions.shape[0], -1)[:, 0]
        hardest = losses.reshape(-1).argsort(descending=True, stable=True)
        by_image = hardest[image_R[hardest].argsort(stable=True)]  # image after image, in each by loss
        sorted_image = image_R[by_image]
        place = torch.arange(by_image.shape[0], device=image_R.device)
        rank = place - torch.searchsorted(sorted_image, sorted_image)
        kept = torch.zeros_like(place, dtype=torch.bool).scatter(0, by_image, rank < self.param.roi_per_img)
        shown = kept.reshape(labels.shape)
        column = kept.reshape(-1, *[1] * (weights.dim() - 1))
        return torch.where(shown, labels, self.param.ignore_label), torch.where(column, weights, 0.0)
