"""Layers of our own for Python modules that public nets name: nothing of theirs is imported.

Sources: py-faster-rcnn (Ren et al. 2015), lib/rpn and lib/roi_data_layer; Long et al. 2015 (FCN), voc_layers.py; Caffe,
examples/pycaffe/layers/pyloss.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import yaml
from torch import Tensor

from netspec.errors import SpecError
from netspec.layers.base import Layer, Shape, between, exactly
from netspec.layers.data import ShapedData
from netspec.layers.loss.loss import EuclideanLoss
from netspec.layers.python_layer import stands_for
from netspec.layers.vision.proposal import Proposal, anchors
from netspec.schema.spec import TRAIN, LayerSpec

# Shape suffixes: A = anchors of one cell, R = regions or anchors of an image, G = its objects.

SCALES, RATIOS, SIDE = (8, 16, 32), (0.5, 1, 2), 16
"""Anchors of py-faster-rcnn (generate_anchors.py)."""
MOST = {True: (12000, 2000), False: (6000, 300)}
"""Proposals before and after suppression, in TRAIN and else (config.py)."""
MOST_NUMBER, MOST_LIST = 1e6, 1000
"""Bounds of what a `param_str` may say."""
OVERLAP, LEAST_SIZE = 0.7, 16
ANCHORS, ANCHOR_SHARE, POSITIVE, NEGATIVE = 256, 0.5, 0.7, 0.3
"""Anchors that train the proposals of an image: how many, the share of objects, and from which overlaps."""
REGIONS, REGION_SHARE, OBJECT, GROUND = 128, 0.25, 0.5, (0.1, 0.5)
"""Regions that train the detector: how many, the share of objects, and by which overlaps."""
DEVIATIONS = (0.1, 0.1, 0.2, 0.2)
"""Deviations of the regions' moves, by which they are divided."""


def settings(spec: LayerSpec) -> dict[str, Any]:
    """The `param_str` of a Python layer, read as YAML; {} where it is none."""
    try:
        fields = yaml.safe_load(spec.message.python_param.param_str or "{}")
    except (yaml.YAMLError, ValueError, RecursionError):  # a date that is none, a text without end
        return {}
    if isinstance(fields, str):  # such as 'feat_stride': 16 without a space
        return {}
    return fields if isinstance(fields, dict) else {}


def number(spec: LayerSpec, name: str, default: float) -> float:
    """A number of the `param_str`; SpecError where it is none."""
    value = settings(spec).get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < MOST_NUMBER:
        raise SpecError([spec.problem(f"{name} of its param_str is no number", "python_param", "param_str")])
    return value


def positive(spec: LayerSpec, name: str, default: Sequence[float]) -> list[float]:
    """A list of positive numbers of the `param_str`; SpecError where it is none."""
    values = settings(spec).get(name, default)
    if (
        not isinstance(values, list | tuple)
        or not all(isinstance(value, int | float) and 0 < value < MOST_NUMBER for value in values[:MOST_LIST])
        or not 0 < len(values) <= MOST_LIST
    ):
        text = f"{name} of its param_str is no list of positive numbers"
        raise SpecError([spec.problem(text, "python_param", "param_str")])
    return [float(value) for value in values]


@stands_for("rpn.proposal_layer", "ProposalLayer")
class RpnProposal(Proposal):
    """Rows (image, x1, y1, x2, y2) of the regions that stay after suppression; optional top 2: their scores.

    As Proposal, with what `param_str` says (feat_stride, scales, ratios) and the numbers of proposals of
    py-faster-rcnn: 12,000 and 2,000 in TRAIN, 6,000 and 300 else. Raises SpecError as Proposal does.
    """

    def __init__(self, spec: LayerSpec, phase: str):
        super().__init__(spec, phase)
        before, after = MOST[phase == TRAIN]
        self.param = type(spec.message.proposal_param)(
            feat_stride=int(number(spec, "feat_stride", SIDE)),
            base_size=SIDE,
            scale=positive(spec, "scales", SCALES),
            ratio=positive(spec, "ratios", RATIOS),
            pre_nms_topn=before,
            post_nms_topn=after,
            nms_thresh=OVERLAP,
            min_size=LEAST_SIZE,
        )


def sides(boxes: Tensor) -> Tensor:
    """Width and height (..., 2) of boxes whose corners are pixels that belong to them."""
    return boxes[..., 2:4] - boxes[..., :2] + 1


def overlaps(boxes_R4: Tensor, objects_G4: Tensor) -> Tensor:
    """Intersection over union (R, G), in whole pixels."""
    low = torch.maximum(boxes_R4[:, None, :2], objects_G4[None, :, :2])
    high = torch.minimum(boxes_R4[:, None, 2:4], objects_G4[None, :, 2:4])
    shared = (high - low + 1).clamp(min=0).prod(-1)
    return shared / (sides(boxes_R4).prod(-1)[:, None] + sides(objects_G4).prod(-1)[None] - shared)


def moves(boxes_R4: Tensor, targets_R4: Tensor) -> Tensor:
    """(dx, dy, log dw, log dh) that take boxes to targets, relative to the boxes' size."""
    size, wanted = sides(boxes_R4), sides(targets_R4)
    centre, aim = boxes_R4[:, :2] + size / 2, targets_R4[:, :2] + wanted / 2
    return torch.cat(((aim - centre) / size, (wanted / size).log()), 1)


def drawn(where: Tensor, most: int) -> Tensor:
    """At most `most` of the indices at which `where` (R,) holds, at random, by torch's generator."""
    indices = where.nonzero().flatten()
    return indices[torch.randperm(len(indices))[:most]]


@stands_for("rpn.anchor_target_layer", "AnchorTargetLayer")
class RpnAnchorTarget(Layer):
    """labels, moves, and their inner and outer weights for each anchor: what the proposals of one image should be.

    Shapes: scores (1, c, H, W), objects (G, 5) as (x1, y1, x2, y2, class), picture size (1, 3), and the picture, whose
    values do not matter; tops (1, 1, A H, W) and three of (1, 4A, H, W). An anchor inside the picture is 1 where it
    overlaps an object by 0.7 or more, or most of all, 0 where by less than 0.3, else -1; of those 256 are drawn, half
    of them 1 at most. Inner weights are 1 for objects, outer ones one over the number drawn. No gradient; runs eagerly,
    random numbers by torch's generator. Source: py-faster-rcnn, anchor_target_layer.py.
    """

    family, roles = "detection", ("scores", "boxes", "picture size", "image")
    products, mixes = 0, True
    bottoms, tops, differentiable = between(3, 4), exactly(4), False

    def setup(self, *shapes: Shape) -> None:
        self.stride = float(number(self.spec, "feat_stride", SIDE))
        self.border = float(number(self.spec, "allowed_border", 0))
        boxes = anchors(SIDE, positive(self.spec, "ratios", RATIOS), positive(self.spec, "scales", SCALES))
        self.register_buffer("anchors", boxes, persistent=False)
        if len(shapes[0]) != 4 or shapes[0][0] != 1:
            self.fail(f"needs the scores of one image (1, c, H, W), found {shapes[0]}", "bottom", 0)
        if len(shapes[1]) < 2 or shapes[1][1] != 5:
            self.fail(f"needs objects (G, 5), found {shapes[1]}", "bottom", 1)
        self.require(shapes[1][0] > 0, ("bottom", 1), f"needs one object at least, found {shapes[1]}")
        self.require(prod(shapes[2]) > 1, ("bottom", 2), f"needs height and width (1, 3), found {shapes[2]}")

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        rows, columns = bottoms[0].shape[2:]
        count = len(self.get_buffer("anchors"))
        maps = [bottoms[0].new_empty((1, 4 * count, rows, columns)) for _ in range(3)]
        return (bottoms[0].new_empty((1, 1, count * rows, columns)), *maps)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        scores, objects_G5, info = bottoms[:3]
        rows, columns = scores.shape[2:]
        y, x = (torch.arange(n, device=scores.device) * self.stride for n in (rows, columns))
        shift = torch.stack((x.expand(rows, -1), y.unsqueeze(1).expand(-1, columns)), -1).repeat(1, 1, 2)
        boxes_R4 = (shift.unsqueeze(2) + self.get_buffer("anchors")).reshape(-1, 4).to(scores.dtype)
        height, width = info.flatten()[:2]
        low, high = boxes_R4[:, :2], boxes_R4[:, 2:]
        inside_R = (low >= -self.border).all(1)
        inside_R &= (high[:, 0] < width + self.border) & (high[:, 1] < height + self.border)
        objects_G4 = objects_G5.flatten(1)[:, :4]
        overlap_RG = torch.where(inside_R[:, None], overlaps(boxes_R4, objects_G4), -1.0)
        best_R, object_R = overlap_RG.max(1)
        labels_R = torch.where(inside_R & (best_R < NEGATIVE), 0.0, -1.0)
        most_G = overlap_RG.amax(0)
        labels_R[((overlap_RG == most_G) & (most_G > 0)).any(1) | (best_R >= POSITIVE)] = 1
        labels_R = self.thinned(labels_R)
        targets_R4 = torch.where(inside_R[:, None], moves(boxes_R4, objects_G4[object_R]), 0.0)
        inner_R4 = (labels_R == 1).to(scores.dtype)[:, None].expand(-1, 4)
        outer_R4 = (labels_R >= 0).to(scores.dtype)[:, None].expand(-1, 4) / (labels_R >= 0).sum().clamp(
            min=1
        )
        maps = [m.reshape(1, rows, columns, -1).permute(0, 3, 1, 2) for m in (targets_R4, inner_R4, outer_R4)]
        labels = labels_R.reshape(1, rows, columns, -1).permute(0, 3, 1, 2).reshape(1, 1, -1, columns)
        return (labels, *maps)

    def thinned(self, labels_R: Tensor) -> Tensor:
        """The labels with -1 for those that are not drawn."""
        kept = torch.full_like(labels_R, -1)
        ones = drawn(labels_R == 1, int(ANCHORS * ANCHOR_SHARE))
        kept[ones] = 1
        kept[drawn(labels_R == 0, ANCHORS - len(ones))] = 0
        return kept


@stands_for("rpn.proposal_target_layer", "ProposalTargetLayer")
class RpnProposalTarget(Layer):
    """rois, their classes, and the moves by class with inner and outer weights: what the detector of one image learns.

    Shapes: regions (R, 5), objects (G, 5) as (x1, y1, x2, y2, class); tops (K, 5), (K, 1) and three of (K, 4 C), C the
    `num_classes` of `param_str`, K at most 128 and depending on the data. The objects are regions too. A region is of
    the class of the object it overlaps most if by 0.5 or more (a quarter of K at most), background if by 0.1 to 0.5.
    Moves are divided by 0.1, 0.1, 0.2, 0.2. No gradient; runs eagerly, random numbers by torch's generator. Raises
    SpecError without num_classes. Source: py-faster-rcnn, proposal_target_layer.py.
    """

    family, roles = "detection", ("regions", "boxes")
    products, mixes = 0, True
    bottoms, tops, differentiable = exactly(2), exactly(5), False

    def setup(self, *shapes: Shape) -> None:
        self.classes = int(number(self.spec, "num_classes", 0))
        if self.classes < 1:
            self.fail("needs num_classes in its param_str", "python_param", "param_str")
        for i, shape in enumerate(shapes):
            if len(shape) < 2 or shape[1] != 5:
                self.fail(f"needs rows of 5 numbers, found {shape}", "bottom", i)

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        wide = [bottoms[0].new_empty((REGIONS, 4 * self.classes)) for _ in range(3)]
        return (bottoms[0].new_empty((REGIONS, 5)), bottoms[0].new_empty((REGIONS, 1)), *wide)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        regions, objects_G5 = bottoms[0].flatten(1), bottoms[1].flatten(1)
        own = torch.cat((objects_G5.new_zeros(len(objects_G5), 1), objects_G5[:, :4]), 1)
        regions = torch.cat((regions, own))
        best_R, object_R = overlaps(regions[:, 1:], objects_G5).max(1)
        ones = drawn(best_R >= OBJECT, round(REGIONS * REGION_SHARE))
        ground = drawn((best_R >= GROUND[0]) & (best_R < GROUND[1]), REGIONS - len(ones))
        chosen = torch.cat((ones, ground))
        labels = objects_G5[object_R[chosen], 4].clone()
        labels[len(ones) :] = 0
        wanted = moves(regions[chosen, 1:], objects_G5[object_R[chosen]]) / regions.new_tensor(DEVIATIONS)
        place = 4 * labels.long()[:, None] + torch.arange(4, device=labels.device)
        there = (labels > 0).to(wanted.dtype)[:, None].expand(-1, 4)
        nothing = wanted.new_zeros(len(chosen), 4 * self.classes)
        targets, inner = (nothing.scatter(1, place, value) for value in (wanted * there, there))
        return regions[chosen], labels[:, None], targets, inner, inner.clone()


@stands_for("roi_data_layer.layer", "RoIDataLayer")
class RoiData(ShapedData):
    """data, im_info, gt_boxes (with proposals) or data, rois, labels, bbox_targets, bbox_inside_weights,
    bbox_outside_weights: Fast R-CNN's minibatches.

    Its pictures come from a `roidb` that the training program makes, so it is shaped, and not run. Source:
    py-faster-rcnn, roi_data_layer/layer.py.
    """

    tops = between(1, 6)
    lacks = "its data is made by the program that the Python module belongs to"

    @classmethod
    def likely_shapes(cls, spec: LayerSpec, image: Shape) -> list[Shape] | None:
        wide = 4 * int(number(spec, "num_classes", 21))
        known: dict[str, Shape] = {
            "im_info": (1, 3), "gt_boxes": (2, 5), "rois": (REGIONS, 5), "labels": (REGIONS,),
            "bbox_targets": (REGIONS, wide), "bbox_inside_weights": (REGIONS, wide),
            "bbox_outside_weights": (REGIONS, wide), "bbox_loss_weights": (REGIONS, wide),
        }  # fmt: skip
        return [known.get(top, (1, 3, 600, 1000)) for top in spec.tops]


@stands_for("voc_layers", "VOCSegDataLayer")
@stands_for("voc_layers", "SBDDSegDataLayer")
class SegData(ShapedData):
    """data, label = a picture of VOC or SBDD, whole, with the classes of its pixels.

    Pictures have many sizes, so it is shaped, and not run. Source: Long, Shelhamer and Darrell 2015, voc_layers.py.
    """

    tops = exactly(2)
    lacks = "its pictures have many sizes"

    @classmethod
    def likely_shapes(cls, spec: LayerSpec, image: Shape) -> list[Shape] | None:
        height, width = image[2:]
        return [(1, 3, height, width), (1, 1, height, width)]


@stands_for("pyloss", "EuclideanLossLayer")
class PyEuclideanLoss(EuclideanLoss):
    """loss = sum (a - b)^2 / (2 N), N the first dimension; it counts only with a `loss_weight`, as Python layers do.

    Shapes: a and b alike, top (). Source: Caffe, examples/pycaffe/layers/pyloss.py.
    """

    family = "other"
    is_loss = False


__all__: Sequence[str] = ("RpnAnchorTarget", "RpnProposal", "RpnProposalTarget")
