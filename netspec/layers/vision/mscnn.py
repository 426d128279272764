"""Boxes of MS-CNN and Cascade R-CNN: decoded from maps of several scales, suppressed, or moved by regressions.

Shape suffixes: N = images, R = boxes of an image. Sources: Cai et al. 2016 (MS-CNN), box_output_layer.cpp; Cai and
Vasconcelos 2018 (Cascade R-CNN), box_group_output_layer.cpp and decode_bbox_layer.cpp.
"""

from __future__ import annotations

from math import log, prod
from typing import NamedTuple

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, at_least, between, exactly, register
from netspec.layers.vision.boxes import suppress
from netspec.schema.spec import TRAIN

NOTHING = (0.0, 1.0, 1.0, 10.0, 10.0)
"""The region where no box is found."""


class Scale(NamedTuple):
    """The boxes that one map stands for: their size before it is changed, and pixels of the picture a cell."""

    width: float
    height: float
    stride: float


def statistics(layer: Layer) -> tuple[Tensor, Tensor]:
    """Means and deviations (4,) of the coded boxes, as bbox_reg_param says; 0 and 1 without."""
    p = layer.spec.message.bbox_reg_param
    if not p.bbox_mean or not p.bbox_std:
        return torch.zeros(4), torch.ones(4)
    if len(p.bbox_mean) != 4 or len(p.bbox_std) != 4 or min(p.bbox_std) <= 0:
        layer.fail("needs 4 means and 4 deviations above 0", "bbox_reg_param")
    return torch.tensor(list(p.bbox_mean)), torch.tensor(list(p.bbox_std))


class Decoder(Layer):
    """What BoxOutput and BoxGroupOutput share: boxes of maps become regions."""

    family, roles = "detection", ("offsets",)
    products, mixes = 0, True
    bottoms, tops, differentiable = at_least(1), between(1, 2), False
    extra: float
    """By how much a side is longer than the difference of its corners."""

    def boxes(self, coded_N4HW: Tensor, scale: Scale) -> Tensor:
        """Corners (N, H * W, 4) of the boxes that a map codes, clipped to the picture on the upper left."""
        p = self.param
        mean, deviation = (value.to(coded_N4HW) for value in statistics(self))
        x = coded_N4HW * deviation[:, None, None] + mean[:, None, None]
        shift = x[:, :2].clamp(-1 / p.field_xyr, 1 / p.field_xyr)
        size = x[:, 2:].clamp(-log(p.field_whr), log(p.field_whr)).exp()
        rows, columns = x.shape[2:]
        down, right = (torch.arange(n, device=x.device).to(x) + 0.5 for n in (rows, columns))
        cell = torch.stack((right.expand(rows, -1), down[:, None].expand(-1, columns))) * scale.stride
        side = x.new_tensor([scale.width, scale.height])[:, None, None]
        centre, half = cell + shift * side, size * side / 2
        low, high = centre - half, centre + half
        limit = x.new_tensor([columns, rows])[:, None, None] * scale.stride
        low = low.clamp(min=0)
        return torch.cat((low, self.upper(low, high, limit, 2 * half)), 1).flatten(2).transpose(1, 2)

    def upper(self, low: Tensor, high: Tensor, limit: Tensor, size: Tensor) -> Tensor:
        """The lower right corners (N, 2, H, W), clipped to the picture."""
        raise NotImplementedError

    def count(self, bottoms: tuple[Tensor, ...]) -> tuple[int, int]:
        """How many images there are, and boxes in each."""
        raise NotImplementedError

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        images, boxes = self.count(bottoms)
        most = min(self.param.max_post_nms_num or boxes, self.param.max_nms_num or boxes, boxes)
        return tuple(
            bottoms[0].new_empty((max(images * most, 1), width)) for width in (5, 6)[: len(self.spec.tops)]
        )

    def regions(self, candidates: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
        """The tops: from boxes (R, 4) and scores (R,) of each image, in any order."""
        p, rows = self.param, []
        for n, (boxes_R4, score_R) in enumerate(candidates):
            sides = boxes_R4[:, 2:] - boxes_R4[:, :2] + self.extra
            good = (score_R >= p.fg_thr) & (sides >= p.min_size).all(1)
            boxes_R4, score_R = boxes_R4[good], score_R[good]
            order = score_R.argsort(descending=True, stable=True)[: p.max_nms_num or None]
            kept = suppress(
                boxes_R4[order].detach().cpu().numpy(), p.iou_thr, most=p.max_post_nms_num or None,
                pixels=bool(self.extra),
            )  # fmt: skip
            chosen = order[kept]
            image = torch.full_like(score_R[chosen], n)[:, None]
            rows.append(torch.cat((image, boxes_R4[chosen], score_R[chosen][:, None]), 1))
        all_R6 = torch.cat(rows)
        if not len(all_R6):
            all_R6 = all_R6.new_zeros(1, 6)
            return (all_R6.new_tensor([NOTHING]), all_R6)[: len(self.spec.tops)]
        return (all_R6[:, :5], all_R6)[: len(self.spec.tops)]

    def check_type(self) -> None:
        if self.param.nms_type != "IOU":
            self.fail(f"nms_type can be 'IOU' only, found {self.param.nms_type!r}", "nms_type")


@register("BoxOutput")
class BoxOutput(Decoder):
    """Rows (image, x1, y1, x2, y2) of the boxes that stay after suppression; top 2: with their scores behind.

    Shapes: maps (N, C + 4, H, W), scores of C classes, background first, then the box; one field_h, field_w and
    downsample_rate a map; tops (R, 5), (R, 6), R depending on the data. A box lies at its cell's middle moved by at
    most 1 / field_xyr of the field, and is field_whr times as large at most; its score is the best class's less the
    background's, and fg_thr and min_size are the least. Nothing found: one row (0, 1, 1, 10, 10), and zeros. Runs
    eagerly; no gradient. Raises SpecError for maps and fields that do not fit.
    """

    param_field = "box_output_param"
    extra = 0.0

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        self.check_type()
        for name in ("field_h", "field_w", "downsample_rate"):
            count = len(getattr(p, name))
            self.require(count == len(shapes), name, f"{count} {name} values for {len(shapes)} bottoms")
        for i, shape in enumerate(shapes):
            if len(shape) != 4 or shape[:2] != shapes[0][:2] or shape[1] < 6:
                self.fail(
                    f"needs a map (N, classes + 4, H, W) as the first bottom's, found {shape}", "bottom", i
                )
        self.scales = [Scale(*values) for values in zip(p.field_w, p.field_h, p.downsample_rate, strict=True)]

    def count(self, bottoms: tuple[Tensor, ...]) -> tuple[int, int]:
        return bottoms[0].shape[0], sum(prod(x.shape[2:]) for x in bottoms)

    def upper(self, low: Tensor, high: Tensor, limit: Tensor, size: Tensor) -> Tensor:
        return low + torch.minimum(size, limit - low)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        boxes, scores = [], []
        for x, scale in zip(bottoms, self.scales, strict=True):
            boxes.append(self.boxes(x[:, -4:], scale))
            scores.append((x[:, 1:-4].amax(1) - x[:, 0]).flatten(1))
        return self.regions(list(zip(torch.cat(boxes, 1), torch.cat(scores, 1), strict=True)))


@register("BoxGroupOutput")
class BoxGroupOutput(Decoder):
    """Rows (image, x1, y1, x2, y2) of the boxes that stay after suppression; top 2: with their scores behind.

    Shapes: pairs of maps, probabilities (N * G, C, H, W), background first, and boxes (N * G, 4, H, W), G the number of
    fields of that pair's box_group_param; tops (R, 5), (R, 6), R depending on the data. As BoxOutput, but that a score
    is 1 less the background's, and corners are pixels that belong to the box. Runs eagerly; no gradient. Raises
    SpecError for maps and groups that do not fit.
    """

    bottoms = at_least(2)
    param_field = "box_group_output_param"
    extra = 1.0

    @classmethod
    def role(cls, i: int, count: int) -> str:
        return "offsets" if i % 2 else "scores"

    def setup(self, *shapes: Shape) -> None:
        self.check_type()
        groups = self.param.box_group_param
        text = f"{len(groups)} box_group_param for {len(shapes)} bottoms; needs one for each pair"
        self.require(2 * len(groups) == len(shapes), "box_group_param", text)
        for i, group in enumerate(groups):
            count = len(group.field_w)
            self.require(
                0 < count == len(group.field_h), ("box_group_param", i), "needs as many field_w as field_h"
            )
            scores, boxes = shapes[2 * i : 2 * i + 2]
            if (
                len(boxes) != 4
                or boxes[1] != 4
                or boxes[0] % count
                or scores[0] != boxes[0]
                or scores[2:] != boxes[2:]
            ):
                self.fail(
                    f"needs maps (N * {count}, 4, H, W) with their scores, found {boxes}", "bottom", 2 * i + 1
                )

    def count(self, bottoms: tuple[Tensor, ...]) -> tuple[int, int]:
        pairs = zip(bottoms[1::2], self.param.box_group_param, strict=True)
        images = bottoms[1].shape[0] // len(self.param.box_group_param[0].field_w)
        return images, sum(len(group.field_w) * prod(x.shape[2:]) for x, group in pairs)

    def upper(self, low: Tensor, high: Tensor, limit: Tensor, size: Tensor) -> Tensor:
        return torch.minimum(high - 1, limit)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        boxes, scores = [], []
        for i, group in enumerate(self.param.box_group_param):
            probability, coded = bottoms[2 * i : 2 * i + 2]
            count = len(group.field_w)
            for k, (width, height) in enumerate(zip(group.field_w, group.field_h, strict=True)):
                boxes.append(self.boxes(coded[k::count], Scale(width, height, group.stride)))
                scores.append(1 - probability[k::count, 0].flatten(1))
        return self.regions(list(zip(torch.cat(boxes, 1), torch.cat(scores, 1), strict=True)))


@register("DecodeBBox")
class DecodeBBox(Layer):
    """Regions moved by what was regressed for them: rows (image, x1, y1, x2, y2).

    Shapes: moves (R, 8), of which the last four count, (dx, dy, log dw, log dh) relative to the region, regions (R, 5),
    and in TRAIN matched objects (R, n) whose last column is their overlap; top (K, 5). In TRAIN boxes whose corners
    change places are left out, and those that overlap their object by gt_iou_thr or more; K then depends on the data,
    and is 1 at least. No gradient; runs eagerly. Raises SpecError for bottoms that do not fit.
    """

    family, roles = "detection", ("offsets", "regions", "boxes")
    products, mixes = 0, True
    bottoms, tops, differentiable = between(2, 3), exactly(1), False
    param_field = "decode_bbox_param"

    def setup(self, *shapes: Shape) -> None:
        for i, width in enumerate((8, 5)):
            if len(shapes[i]) < 2 or shapes[i][1] != width or shapes[i][0] != shapes[1][0]:
                self.fail(
                    f"needs rows of {width} numbers, one for each region, found {shapes[i]}", "bottom", i
                )

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (bottoms[1].new_empty(bottoms[1].shape[:2]),)

    def forward(self, *bottoms: Tensor) -> Tensor:
        mean, deviation = (value.to(bottoms[0]) for value in statistics(self))
        moves_R4 = bottoms[0].flatten(1)[:, 4:] * deviation + mean
        regions_R5 = bottoms[1].flatten(1)
        size = regions_R5[:, 3:] - regions_R5[:, 1:3] + 1
        centre = regions_R5[:, 1:3] + size / 2 + moves_R4[:, :2] * size
        half = (moves_R4[:, 2:].exp() * size - 1) / 2
        moved_R5 = torch.cat((regions_R5[:, :1], centre - 0.5 - half, centre - 0.5 + half), 1)
        if self.phase != TRAIN:
            return moved_R5
        good_R = (moved_R5[:, 1:3] <= moved_R5[:, 3:]).all(1)
        if len(bottoms) == 3:
            good_R &= bottoms[2].flatten(1)[:, -1] < self.param.gt_iou_thr
        return moved_R5[good_R] if good_R.any() else moved_R5[:1]
