"""How the maps of MS-CNN and Cascade R-CNN are judged; see `mscnn_loss` for their labels.

Shape suffixes: N = maps (images, times boxes of a cell), H, W = cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor

from netspec.layers.base import Shape, between, exactly, register
from netspec.layers.vision.mscnn_loss import GroupLoss, MapLayer, ScaleLoss, check_groups, shared
from netspec.schema.spec import LayerSpec


class MapAccuracy(MapLayer):
    """What the accuracies of maps share."""

    family, products, mixes = "accuracy", 0, True
    differentiable = False
    tops = between(1, 2)

    def judged(self, scores: Tensor, boxes: Tensor, labels: Tensor, top_k: int) -> tuple[Tensor, ...]:
        p = self.param
        label, counts = self.classes(labels)
        raw, overlap = labels[:, 0].long(), labels[:, 5]
        asked = counts & ~((label == 0) & (overlap >= p.bg_threshold))
        own = scores.gather(1, label.clamp(0, p.cls_num - 1).unsqueeze(1))
        later = torch.arange(p.cls_num, device=scores.device).view(1, -1, 1, 1) > label.unsqueeze(1)
        better = ((scores > own) | ((scores == own) & later)).sum(1)
        right = (better < top_k) & asked
        shares = [mean(right, asked), mean(right & (label != 0), asked & (label != 0))]
        field = self.fields(len(scores), scores)
        code = self.decoded(boxes)
        size = code[:, 2:].exp() * field
        place = code[:, :2] * field + self.middles(scores) - size / 2
        truth = torch.cat((labels[:, 1:3] - labels[:, 3:5] / 2, labels[:, 3:5]), 1)
        value = shared(torch.cat((place, size), 1).permute(0, 2, 3, 1), truth.permute(0, 2, 3, 1))
        there = counts & (raw != 0)
        mean_overlap = mean(torch.where(there, value, 0.0), there)
        return (torch.stack(shares).view(1, 1, 1, 2), mean_overlap.view(1, 1, 1, 1))[: len(self.spec.tops)]

    def decoded(self, boxes: Tensor) -> Tensor:
        """Codes without their statistics, within the limits."""
        p = self.param
        mean_, deviation = (value.to(boxes)[:, None, None] for value in self.statistics)
        code = boxes * deviation + mean_
        shift, size = 1 / p.field_xyr, log(p.field_whr)
        return torch.cat((code[:, :2].clamp(-shift, shift), code[:, 2:].clamp(-size, size)), 1)


def mean(value: Tensor, where: Tensor) -> Tensor:
    """The mean of the values that count; -1 where there are none."""
    count = where.sum()
    return torch.where(count > 0, value.float().sum() / count.clamp(min=1), -1.0)


@register("DetectionAccuracy")
class DetectionAccuracy(MapAccuracy):
    """(share of cells whose class is among the top_k, the same of cells with an object); top 2: their boxes' overlap.

    Shapes: map and labels as MS-CNN's DetectionLoss; tops (1, 1, 1, 2) and (1, 1, 1, 1). Cells without an object that
    overlap one by bg_threshold or more take no part; -1 where none does. Of equal scores the larger class wins. No
    gradient. Raises SpecError when sizes do not fit. Source: detection_accuracy_layer.cpp of MS-CNN.
    """

    roles = ("image", "boxes")
    bottoms = exactly(2)
    param_field = "detection_accuracy_param"

    @classmethod
    def needs(cls, spec: LayerSpec, i: int, known: Sequence[Shape | None], image: Shape) -> Shape | None:
        return ScaleLoss.needs(spec, i, known, image)

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        if len(shape) != 4 or shape[1] != p.cls_num + 4:
            self.fail(f"needs a map (N, {p.cls_num + 4}, H, W), found {shape}", "bottom", 0)
        self.check_maps((shape[0], int(p.cls_num), *shape[2:]), (shape[0], 4, *shape[2:]), shapes[1])
        self.require(1 <= p.top_k <= p.cls_num, "top_k", f"must lie between 1 and {p.cls_num}")

    def step(self) -> float:
        return float(self.param.downsample_rate)

    def decoded(self, boxes: Tensor) -> Tensor:
        p = self.param
        shift, size = 1 / p.field_xyr, log(p.field_whr)
        return torch.cat((boxes[:, :2].clamp(-shift, shift), boxes[:, 2:].clamp(-size, size)), 1)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        classes = int(self.param.cls_num)
        x, labels = bottoms
        return self.judged(x[:, :classes], x[:, classes:], labels, int(self.param.top_k))


@register("DetectionGroupAccuracy")
class GroupAccuracy(MapAccuracy):
    """(share of cells whose class is right, the same of cells with an object); top 2: their boxes' overlap.

    Shapes: scores, boxes and labels as DetectionGroupLoss; tops (1, 1, 1, 2) and (1, 1, 1, 1). As DetectionAccuracy. No
    gradient. Raises SpecError when sizes do not fit. Source: detection_group_accuracy_layer.cpp of Cascade R-CNN.
    """

    roles = ("scores", "offsets", "boxes")
    bottoms = exactly(3)
    param_field = "detection_group_accuracy_param"

    @classmethod
    def needs(cls, spec: LayerSpec, i: int, known: Sequence[Shape | None], image: Shape) -> Shape | None:
        return GroupLoss.needs(spec, i, known, image)

    def setup(self, *shapes: Shape) -> None:
        check_groups(self, shapes)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        scores, boxes, labels = bottoms
        return self.judged(scores, boxes, labels, 1)
