"""Regions of Cascade R-CNN and MS-CNN: what they should be, how they are judged, which go on, what is found.

Shape suffixes: R = regions, G = objects. Sources: Cai et al. 2016 (MS-CNN), Cai and Vasconcelos 2018 (Cascade R-CNN):
the layers of the same names.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, at_least, between, exactly, register
from netspec.layers.vision.boxes import suppress
from netspec.layers.vision.mscnn import statistics
from netspec.layers.vision.mscnn_accuracy import mean
from netspec.layers.vision.mscnn_loss import drawn, shared
from netspec.schema.spec import LayerSpec

KNOWN = 0.975
"""Regions that overlap their object by more are the object itself."""


@register("BboxAccuracy")
class BboxAccuracy(Layer):
    """mean overlap of moved regions with their objects; top 2: of the regions before.

    Shapes: moves (R, 4 C), regions (R, 5), matched objects (R, 6) as (class, x1, y1, x2, y2, overlap); tops
    (1, 1, 1, 1). Regions of class 0, and those that overlap their object by more than 0.975, take no part; -1 where
    none does. With `bbox_reg_param { cls_aware: false }` all classes have the second box. No gradient. Raises SpecError
    when sizes do not fit. Source: bbox_accuracy_layer.cpp.
    """

    family, roles = "accuracy", ("offsets", "regions", "boxes")
    products, mixes = 0, True
    bottoms, tops, differentiable = exactly(3), between(1, 2), False

    def setup(self, *shapes: Shape) -> None:
        self.aware = bool(self.spec.message.bbox_reg_param.cls_aware)
        for i, width in enumerate((4 if self.aware else 8, 5, 6)):
            size = torch.Size(shapes[i][1:]).numel()
            if shapes[i][0] != shapes[0][0] or (size % width if not i and self.aware else size != width):
                self.fail(
                    f"needs rows of {width} numbers, one for each region, found {shapes[i]}", "bottom", i
                )
        self.boxes = torch.Size(shapes[0][1:]).numel() // 4
        self.statistics = statistics(self)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        moves, regions, objects = (x.flatten(1) for x in bottoms)
        label = objects[:, 0].long()
        index = (label if self.aware else label.clamp(max=1)).clamp(0, self.boxes - 1)
        average, deviation = (value.to(moves) for value in self.statistics)
        code = moves.reshape(len(moves), -1, 4).gather(1, index.view(-1, 1, 1).expand(-1, 1, 4)).squeeze(1)
        code = code * deviation + average
        before, truth = (torch.cat((x[:, 1:3], x[:, 3:5] - x[:, 1:3] + 1), 1) for x in (regions, objects))
        size = before[:, 2:] * code[:, 2:].exp()
        middle = before[:, :2] + before[:, 2:] * (0.5 + code[:, :2])
        after = torch.cat((middle - size / 2, size), 1)
        counts = (label > 0) & (objects[:, 5] <= KNOWN)
        overlaps = [mean(torch.where(counts, shared(box, truth), 0.0), counts) for box in (after, before)]
        return tuple(value.view(1, 1, 1, 1) for value in overlaps[: len(self.spec.tops)])


@register("ProposalTarget")
class ProposalTarget(Layer):
    """Regions, their classes, moves by class with inner and outer weights, their objects; top 7: weights of classes.

    Shapes: regions (R, 5) as (image, x1, y1, x2, y2), objects (G, 7 or 8) as (image, x1, y1, x2, y2, class, ignored);
    tops (K, 5), (K, 1), three of (K, 4 C), (K, 6) as (class, x1, y1, x2, y2, overlap), and (K, 1), K at most batch_size
    (-1: all) and depending on the data, C classes, or 2 with `bbox_reg_param { cls_aware: false }`. The objects are
    regions too (append_gtbox). A region is of its object's class where it overlaps it by fg_thr or more (fg_fraction of
    K at most; ignored objects count neither way), background from bg_thr_lw to bg_thr_hg; too few are filled up from
    the others (pickup_discard). No region at all: one of random place without a move. No gradient; runs eagerly,
    random numbers by torch's generator. Raises SpecError when sizes do not fit. Source: proposal_target_layer.cpp of
    Cascade R-CNN; MS-CNN's fills K up with random regions.
    """

    family, roles = "detection", ("regions", "boxes")
    products, mixes = 0, True
    bottoms, tops, differentiable = exactly(2), between(6, 7), False
    param_field = "proposal_target_param"

    @classmethod
    def needs(cls, spec: LayerSpec, i: int, known: Sequence[Shape | None], image: Shape) -> Shape | None:
        return (2, 8) if i else None

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        for i, widths in enumerate(((5,), (7, 8))):
            if len(shapes[i]) < 2 or prod(shapes[i][1:]) not in widths:
                self.fail(
                    f"needs rows of {' or '.join(map(str, widths))} numbers, found {shapes[i]}", "bottom", i
                )
        self.require(p.cls_num > 0, "cls_num", "needs cls_num > 0")
        self.require(p.fg_thr >= p.bg_thr_hg, "fg_thr", "must be at least bg_thr_hg")
        self.aware = bool(self.spec.message.bbox_reg_param.cls_aware)
        self.width = 4 * int(p.cls_num) if self.aware else 8

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        rows = bottoms[0].shape[0] if self.param.batch_size == -1 else self.param.batch_size
        widths = (5, 1, self.width, self.width, self.width, 6, 1)[: len(self.spec.tops)]
        return tuple(bottoms[0].new_empty((int(rows), width)) for width in widths)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        p = self.param
        regions, objects = bottoms[0].flatten(1), bottoms[1].flatten(1)
        objects = objects[objects[:, 0] != -1]
        if p.append_gtbox:
            regions = torch.cat((regions, objects[:, :5]))
        sized_R4, sized_G4 = (
            torch.cat((x[:, 1:3], x[:, 3:5] - x[:, 1:3] + 1), 1) for x in (regions, objects)
        )
        overlap_RG = shared(sized_R4[:, None], sized_G4[None])
        overlap_RG = torch.where(regions[:, None, 0] == objects[None, :, 0], overlap_RG, -1.0)
        if len(objects):
            best_R, match_R = overlap_RG.max(1)
        else:
            best_R, match_R = regions.new_zeros(len(regions)), torch.zeros(len(regions), dtype=torch.long)
        best_R = best_R.clamp(min=0)
        chosen, number = self.drawn(best_R, objects, match_R)
        if not len(chosen):
            chosen, regions, best_R, match_R, sized_R4 = self.anywhere(regions)
        label = regions.new_zeros(len(chosen))
        if number:
            label[:number] = objects[match_R[chosen[:number]], 5]
        return self.targets(
            regions[chosen], label, best_R[chosen], sized_R4[chosen], sized_G4, objects, match_R[chosen]
        )

    def drawn(self, best_R: Tensor, objects: Tensor, match_R: Tensor) -> tuple[Tensor, int]:
        """(indices of regions, those of objects first; how many of these)."""
        p = self.param
        near = best_R >= p.fg_thr
        ignored = objects[match_R, 6] != 0 if len(objects) else torch.zeros_like(near)
        objects_i = (near & ~ignored).nonzero().flatten()
        middle = ~near & (best_R >= p.bg_thr_lw) & (best_R < p.bg_thr_hg)
        ground = middle.nonzero().flatten()
        rest = (~near & ~middle).nonzero().flatten()
        total = len(objects_i) + len(ground) if p.batch_size == -1 else int(p.batch_size)
        wanted = len(objects_i) if p.batch_size == -1 else min(round(p.fg_fraction * total), len(objects_i))
        ones = objects_i[drawn(len(objects_i), wanted)]
        zeros = ground[drawn(len(ground), total - wanted)]
        if p.pickup_discard and len(zeros) == len(ground):
            zeros = torch.cat((zeros, rest[: total - wanted - len(zeros)]))
        return torch.cat((ones, zeros)), wanted

    def anywhere(self, like: Tensor) -> tuple[Tensor, ...]:
        """A region at random, as if it were all."""
        p = self.param
        place = [int(torch.randint(max(int(size) - 32, 1), ())) for size in (p.img_width, p.img_height)]
        size = [
            32 + int(torch.randint(max(int(s) - v - 32, 1), ()))
            for s, v in zip((p.img_width, p.img_height), place, strict=True)
        ]
        row = like.new_tensor([[0, *place, place[0] + size[0] - 1, place[1] + size[1] - 1]])
        nothing = torch.zeros(1, dtype=torch.long)
        return nothing, row, like.new_zeros(1), nothing, like.new_tensor([[*place, *size]])

    def targets(
        self,
        rows: Tensor,
        label: Tensor,
        best: Tensor,
        mine: Tensor,
        sized_G4: Tensor,
        objects: Tensor,
        match: Tensor,
    ) -> tuple[Tensor, ...]:
        """The tops."""
        p, there = self.param, label > 0
        objects_K5 = rows.new_zeros(len(rows), 6)
        code = rows.new_zeros(len(rows), 4)
        if len(objects):
            truth = sized_G4[match]
            middle = (truth[:, :2] + truth[:, 2:] / 2 - mine[:, :2] - mine[:, 2:] / 2) / mine[:, 2:]
            average, deviation = (value.to(rows) for value in statistics(self))
            code = (torch.cat((middle, (truth[:, 2:] / mine[:, 2:]).log()), 1) - average) / deviation
            code = torch.where(there[:, None], code, 0.0)
            objects_K5 = torch.cat((label[:, None], objects[match, 1:5], best[:, None]), 1) * there[:, None]
        index = label.long() if self.aware else label.long().clamp(max=1)
        place = 4 * index[:, None] + torch.arange(4, device=rows.device)
        good = there & (best >= p.bbox_thr_lw) & (best <= p.bbox_thr_hg)
        wide = rows.new_zeros(len(rows), self.width)
        targets = wide.scatter(1, place, code)
        inner = wide.scatter(1, place, good[:, None].to(rows).expand(-1, 4))
        tops = (
            rows,
            label[:, None],
            targets,
            inner,
            inner.clone(),
            objects_K5,
            self.weights(there, best)[:, None],
        )
        return tops[: len(self.spec.tops)]

    def weights(self, there: Tensor, best: Tensor) -> Tensor:
        """What each region's class counts: objects and background as fg_fraction says."""
        p = self.param
        weight = torch.where(there, best, 1.0) if p.iou_weighted else torch.ones_like(best)
        here, ground = weight[there].sum(), weight[~there].sum()
        if float(here) == 0:
            return weight
        factor = torch.where(there, p.fg_fraction / here, (1 - p.fg_fraction) / ground.clamp(min=1e-20))
        return weight * factor * len(best)


@register("ScaleRoute")
class ScaleRoute(Layer):
    """The rows of regions whose size, the root of their area, lies from low_scale to below high_scale.

    Shapes: regions (R, 5) and further bottoms with R rows; tops with the rows that are left, at least one: where none
    is, that nearest the middle of both scales. R depends on the data. No gradient; runs eagerly. Raises SpecError for
    other shapes. Source: scale_route_layer.cpp of Cascade R-CNN.
    """

    family, roles = "detection", ("regions", "values")
    products, mixes = 0, True
    bottoms, tops, differentiable = at_least(1), at_least(1), False
    paired = True
    param_field = "scale_route_param"

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        if len(shapes[0]) < 2 or shapes[0][1] != 5:
            self.fail(f"needs regions (R, 5), found {shapes[0]}", "bottom", 0)
        for i, shape in enumerate(shapes):
            self.require(shape[0] == shapes[0][0], ("bottom", i), f"needs {shapes[0][0]} rows, found {shape}")
        self.low = float(p.low_scale) if p.HasField("low_scale") else 0.0
        self.high = float(p.high_scale) if p.HasField("high_scale") else float("inf")
        self.require(self.low <= self.high, "low_scale", "must not be above high_scale")

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(x) for x in bottoms)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        regions = bottoms[0].flatten(1)
        size = (regions[:, 3:5] - regions[:, 1:3] + 1).clamp(min=0).prod(1).sqrt()
        chosen = ((size >= self.low) & (size < self.high)).nonzero().flatten()
        if not len(chosen):
            ends = [value for value in (self.low, self.high) if 0 < value < float("inf")]
            middle = prod(ends) ** (1 / len(ends)) if ends else 256.0
            chosen = (size / middle).log().abs().argmin().view(1)
        return tuple(x[chosen] for x in bottoms)


@register("HardMining")
class HardMining(Layer):
    """The rows of the num_roi_per_image regions of each image with the greatest score.

    Shapes: scores (R,), regions (R, 5), further bottoms with R rows; tops as the bottoms behind the first, with
    num_image num_roi_per_image rows in their order (fewer where there are fewer regions; an image with too few is made
    up for by others' best). No gradient; runs eagerly. Raises SpecError for other shapes. Source: hard_mining_layer.cpp
    of Cascade R-CNN.
    """

    family, roles = "detection", ("values", "regions", "values")
    products, mixes = 0, True
    bottoms, tops, differentiable = at_least(2), at_least(1), False
    param_field = "hard_mining_param"

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        self.require(len(self.spec.tops) == len(shapes) - 1, ("top", 0), f"needs {len(shapes) - 1} tops")
        if len(shapes[1]) < 2 or shapes[1][1] != 5:
            self.fail(f"needs regions (R, 5), found {shapes[1]}", "bottom", 1)
        for i, shape in enumerate(shapes):
            self.require(shape[0] == shapes[1][0], ("bottom", i), f"needs {shapes[1][0]} rows, found {shape}")
        for name in ("num_image", "num_roi_per_image"):
            self.require(getattr(p, name) > 0, name, f"needs {name} > 0")

    def count(self, rows: int) -> int:
        return min(int(self.param.num_image * self.param.num_roi_per_image), rows)

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.new_empty((self.count(x.shape[0]), *x.shape[1:])) for x in bottoms[1:])

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        score, image = bottoms[0].flatten(), bottoms[1].flatten(1)[:, 0].long()
        kept, left = [], []
        for n in range(self.param.num_image):
            mine = (image == n).nonzero().flatten()
            mine = mine[score[mine].argsort(descending=True, stable=True)]
            kept.append(mine[: self.param.num_roi_per_image])
            left.append(mine[self.param.num_roi_per_image :])
        rest = torch.cat(left)
        rest = rest[score[rest].argsort(descending=True, stable=True)]
        chosen = torch.cat(kept)
        chosen = torch.cat((chosen, rest[: max(self.count(len(score)) - len(chosen), 0)])).sort().values
        return tuple(x[chosen] for x in bottoms[1:])


@register("FrcnnOutput")
class FrcnnOutput(Layer):
    """Rows (image, x1, y1, x2, y2, class, probability) of the boxes of one picture that stay after suppression.

    Shapes: probabilities (R, C), background first, moves (R, 4 C), regions (R, 5 or 6), the picture's height and width
    (1, 2); top (K, 7), K depending on the data, behind a first row of the image's number and -1. A region is moved by
    each class's numbers (by the second four with `bbox_reg_param { cls_aware: false }`) and clipped to the picture;
    boxes of probability conf_thr or more are suppressed class by class (overlap above iou_thr), the max_det_num best
    stay. save_output_param has no effect. No gradient; runs eagerly. Raises SpecError when sizes do not fit. Source:
    frcnn_output_layer.cpp of Cascade R-CNN.
    """

    family, roles = "detection", ("scores", "offsets", "regions", "picture size")
    products, mixes = 0, True
    bottoms, differentiable = exactly(4), False
    param_field = "frcnn_output_param"

    @classmethod
    def needs(cls, spec: LayerSpec, i: int, known: Sequence[Shape | None], image: Shape) -> Shape | None:
        return (1, 2) if i == 3 else None

    def setup(self, *shapes: Shape) -> None:
        self.aware = bool(self.spec.message.bbox_reg_param.cls_aware)
        rows, classes = shapes[0][0], prod(shapes[0][1:])
        wanted = ((classes,), (4 * classes if self.aware else 8,), (5, 6), (2,))
        for i, (shape, widths) in enumerate(zip(shapes, wanted, strict=True)):
            if prod(shape[1:]) not in widths or shape[0] != (1 if i == 3 else rows):
                self.fail(
                    f"needs rows of {' or '.join(map(str, widths))} numbers, found {shape}", "bottom", i
                )
        self.require(self.param.nms_type == "IOU", "nms_type", "can be 'IOU' only")

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        rows, classes = bottoms[0].shape[0], bottoms[0].flatten(1).shape[1]
        most = min(self.param.max_det_num or rows * classes, rows * (classes - 1))
        return (bottoms[0].new_empty((most + 1, 7)),)

    def forward(self, *bottoms: Tensor) -> Tensor:
        p = self.param
        probability, moves, regions = (x.flatten(1) for x in bottoms[:3])
        height, width = bottoms[3].flatten().tolist()
        average, deviation = (value.to(moves) for value in statistics(self))
        code = moves.reshape(len(moves), -1, 4) * deviation + average
        size = (regions[:, 3:5] - regions[:, 1:3] + 1)[:, None]
        middle = regions[:, None, 1:3] + size / 2 + code[..., :2] * size
        side = size * code[..., 2:].exp()
        low = (middle - side / 2).clamp(min=0)
        high = (middle + side / 2 - 1).minimum(moves.new_tensor([width, height]))
        boxes = torch.cat((low, high), -1)
        rows = []
        for k in range(1, probability.shape[1]):
            mine = (probability[:, k] >= p.conf_thr).nonzero().flatten()
            mine = mine[probability[mine, k].argsort(descending=True, stable=True)]
            box = boxes[mine, k if self.aware else 1]
            kept = suppress(box.detach().cpu().numpy(), p.iou_thr, pixels=True)
            score = probability[mine, k][kept, None]
            rows.append(torch.cat((score * 0, box[kept], torch.full_like(score, k), score), 1))
        detections = torch.cat(rows) if rows else probability.new_zeros(0, 7)
        if p.max_det_num and len(detections) > p.max_det_num:
            best = detections[:, 6].argsort(descending=True, stable=True)[: p.max_det_num]
            detections = detections[best.sort().values]
        first = detections.new_full((1, 7), -1.0)
        first[0, 0] = 0
        return torch.cat((first, detections))
