"""What the maps of MS-CNN and Cascade R-CNN learn from, and how they are judged.

Shape suffixes: N = maps (images, times boxes of a cell), H, W = cells. A label of a map holds (class, centre x, y,
width, height in pixels, overlap) for each cell. Sources: Cai et al. 2016 (MS-CNN), Cai and
Vasconcelos 2018 (Cascade R-CNN): the layers of the same names.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from netspec.layers.base import Layer, Shape, exactly, register
from netspec.layers.loss.fork_loss import smooth_l1
from netspec.layers.loss.labels import floor_through
from netspec.layers.loss.loss import FLT_MIN
from netspec.layers.vision.mscnn import statistics
from netspec.schema.spec import LayerSpec

FACTS = 6
"""Numbers of a cell's label."""


def shared(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4) as corner and size, broadcast; 0 where they do not meet."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    common = (high - low).clamp(min=0).prod(-1)
    union = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - common
    return torch.where(common > 0, common / torch.where(common > 0, union, 1.0), 0.0)


def drawn(count: int, most: int) -> Tensor:
    """`most` of the numbers below `count`, at random, by torch's generator."""
    return torch.randperm(count)[:most]


class MapLayer(Layer):
    """What the losses and accuracies of maps share: classes, boxes and labels of each cell, and sizes of boxes."""

    def fields(self, maps: int, like: Tensor) -> Tensor:
        """Width and height (N, 2, 1, 1) of the boxes of each map before they change."""
        sizes = like.new_tensor(self.sizes).repeat(maps // len(self.sizes), 1)
        return sizes[:, :, None, None]

    def middles(self, like: Tensor) -> Tensor:
        """The middle (2, H, W) of each cell in pixels."""
        rows, columns = like.shape[2:]
        down, right = (torch.arange(n, device=like.device, dtype=like.dtype) + 0.5 for n in (rows, columns))
        return torch.stack((right.expand(rows, -1), down[:, None].expand(-1, columns))) * self.step()

    def step(self) -> float:
        return float(self.param.stride)

    def classes(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(class of each cell (N, H, W), which cells are not ignored)."""
        label = labels[:, 0].long()
        if self.param.objectness:
            label = label.clamp(max=1)
        counts = torch.ones_like(label, dtype=torch.bool) if self.ignore is None else label != self.ignore
        return label, counts

    def limits(self) -> tuple[float, float, float, float]:
        """(least and greatest shift, least and greatest log of the size), as coded."""
        p, (mean, deviation) = self.param, self.statistics
        out = []
        for most, (i, j) in ((1 / p.field_xyr, (0, 1)), (log(p.field_whr), (2, 3))):
            middle, scale = float(mean[i] + mean[j]) / 2, float(deviation[i] * deviation[j]) ** 0.5
            out += [(-most - middle) / scale, (most - middle) / scale]
        return out[0], out[1], out[2], out[3]

    def bounded(self, coded: Tensor) -> Tensor:
        """Codes within their limits."""
        low, high, small, large = self.limits()
        return torch.cat((coded[:, :2].clamp(low, high), coded[:, 2:].clamp(small, large)), 1)

    def check_maps(self, scores: Shape, boxes: Shape, labels: Shape) -> None:
        """Refuse maps and labels that do not fit; note what loss_param and bbox_reg_param say."""
        p, loss = self.param, self.spec.message.loss_param
        self.ignore = int(loss.ignore_label) if loss.HasField("ignore_label") else None
        self.statistics = statistics(self)
        wide, high = ([v] if isinstance(v, int) else list(v) for v in (p.field_w, p.field_h))
        self.sizes = list(zip(wide, high, strict=False))
        if scores[1] != p.cls_num or boxes[1] != 4:
            self.fail(
                f"needs cls_num {p.cls_num} scores and 4 numbers of a box, found {scores} and {boxes}",
                "cls_num",
            )
        if len(labels) != 4 or labels[1] != FACTS or (labels[0], *labels[2:]) != (scores[0], *scores[2:]):
            text = f"needs labels (N, {FACTS}, H, W) with a place for each of {scores}, found {labels}"
            self.fail(text, "bottom", len(self.spec.bottoms) - 1)
        self.require(not p.objectness or p.cls_num == 2, "objectness", "needs cls_num: 2")
        for name in ("field_w", "field_h"):
            self.require(getattr(p, name), name, f"needs {name}")


class MapLoss(MapLayer):
    """loss, and its part of the boxes, of maps whose cells each may stand for an object."""

    family = "loss"
    is_loss = True

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (bottoms[0].new_empty((1, 1, 1, 2)),)

    def total(self, scores: Tensor, boxes: Tensor, labels: Tensor, images: int) -> Tensor:
        """The top (1, 1, 1, 2); `images` of the same number of maps each choose their cells together."""
        p, labels = self.param, labels.detach()
        label, counts = self.classes(labels)
        raw, overlap = labels[:, 0].long(), labels[:, 5]
        with torch.no_grad():
            kept = self.chosen(scores, raw, (raw == 0) & (overlap < p.bg_threshold), images)
            weight = self.weights(raw, overlap, kept)
        kept = kept & counts
        logp = log_softmax(scores, 1).gather(1, label.clamp(0, p.cls_num - 1).unsqueeze(1)).squeeze(1)
        losses = -floor_through(logp, log(FLT_MIN)) * weight
        class_loss = torch.where(kept, losses, 0.0).sum() / kept.sum().clamp(min=1)
        there = (kept & (raw != 0)).unsqueeze(1)
        field, middle = self.fields(len(scores), scores), self.middles(scores)
        mean, deviation = (value.to(scores)[:, None, None] for value in self.statistics)
        aim = torch.cat(((labels[:, 1:3] - middle) / field, (labels[:, 3:5].clamp(min=2) / field).log()), 1)
        aim = torch.where(there, (aim - mean) / deviation, 0.0)
        within = self.within(boxes)
        difference = torch.where(there, within - aim, 0.0)
        box_loss = smooth_l1(difference) if self.smooth() else 0.5 * difference.square()
        box_loss = getattr(p, "lambda") * box_loss.sum() / (4 * there.sum()).clamp(min=1)
        return torch.stack((class_loss + box_loss, box_loss.detach())).view(1, 1, 1, 2)

    def within(self, boxes: Tensor) -> Tensor:
        """Codes within their limits, which do not stop the gradient."""
        return boxes + (self.bounded(boxes) - boxes).detach()

    def smooth(self) -> bool:
        raise NotImplementedError

    def chosen(self, scores: Tensor, raw: Tensor, negative: Tensor, images: int) -> Tensor:
        """Which cells (N, H, W) count."""
        raise NotImplementedError

    def weights(self, raw: Tensor, overlap: Tensor, kept: Tensor) -> Tensor:
        """What each cell's class counts."""
        p = self.param
        weight = torch.ones_like(overlap)
        if getattr(p, "iou_weighted", False):
            weight = torch.where(raw != 0, overlap, weight)
        if p.pos_neg_weighted:
            share, count = 1 / (1 + p.bg_multiple), kept.sum()
            here, nothing = (torch.where(kept & m, weight, 0.0).sum() for m in (raw != 0, raw == 0))
            factors = (share * count / here, (1 - share) * count / nothing)
            ours, others = (torch.where(torch.isfinite(f), f, 1.0) for f in factors)
            factor = torch.where(raw != 0, ours, others)
            weight = weight * torch.where(self.weighs(here, nothing, raw), factor, 1.0)
        return weight

    def weighs(self, here: Tensor, nothing: Tensor, raw: Tensor) -> Tensor:
        """Which cells are weighed by the number of their kind."""
        return torch.where(raw != 0, here != 0, nothing != 0)


class ScaleLoss(MapLoss):
    """MS-CNN: loss = cross entropy of the cells' classes + lambda times the loss of the boxes of cells with an object.

    Shapes: map (N, cls_num + 4, H, W), scores, background first, then the coded box, labels (N, 6, H, W); top
    (1, 1, 1, 2): the loss, and its part of the boxes, which has no gradient of its own. All cells with an object count,
    of those without one that overlap any by less than bg_threshold as sample_mode says: "random" (bg_multiple as many,
    drawn with replacement), "bootstrap" (those of greatest score for a class), "mixture" (half of each), else all.
    pos_neg_weighted: both kinds count as 1 to bg_multiple. Boxes: bb_smooth, else half the square, in codes over their
    deviation, within 1 / field_xyr and field_whr. Runs eagerly; random numbers by torch's generator. Raises SpecError
    when sizes do not fit. Source: detection_loss_layer.cpp of MS-CNN.
    """

    roles = ("image", "boxes")
    bottoms = exactly(2)
    param_field = "detection_loss_param"

    @classmethod
    def needs(cls, spec: LayerSpec, i: int, known: Sequence[Shape | None], image: Shape) -> Shape | None:
        first = known[0]
        return (first[0], FACTS, *first[2:]) if i and first is not None else None

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        if len(shape) != 4 or shape[1] != p.cls_num + 4:
            self.fail(f"needs a map (N, {p.cls_num + 4}, H, W), found {shape}", "bottom", 0)
        self.require(p.coord_num == 4, "coord_num", "can be 4 only")
        self.check_maps((shape[0], int(p.cls_num), *shape[2:]), (shape[0], 4, *shape[2:]), shapes[1])
        self.require(p.downsample_rate > 0, "downsample_rate", "needs downsample_rate > 0")

    def step(self) -> float:
        return float(self.param.downsample_rate)

    def smooth(self) -> bool:
        return bool(self.param.bb_smooth)

    def forward(self, *bottoms: Tensor) -> Tensor:
        classes = int(self.param.cls_num)
        return self.total(bottoms[0][:, :classes], bottoms[0][:, classes:], bottoms[1], len(bottoms[0]))

    def chosen(self, scores: Tensor, raw: Tensor, negative: Tensor, images: int) -> Tensor:
        p, mode = self.param, self.param.sample_mode
        share = 0.5 if mode == "mixture" else 1.0
        kept = torch.zeros_like(negative) if mode in ("random", "bootstrap", "mixture") else negative.clone()
        for n in range(images):
            flat = kept[n].view(-1)
            if mode in ("random", "mixture"):
                number = max(int(int((raw[n] != 0).sum()) * p.bg_multiple * share), 4 * (p.cls_num - 1))
                place = torch.randint(flat.numel(), (number,)).to(flat.device)
                flat[place[negative[n].view(-1)[place]]] = True
            if mode in ("bootstrap", "mixture"):
                candidates = negative[n].view(-1).nonzero().flatten()
                for k in range(1, p.cls_num):
                    members = raw[n].clamp(max=1) if p.objectness else raw[n]
                    number = max(4, int(int((members == k).sum()) * p.bg_multiple * share))
                    order = scores[n, k].view(-1)[candidates].argsort(descending=True, stable=True)
                    flat[candidates[order[:number]]] = True
        return kept | (raw != 0)

    def weighs(self, here: Tensor, nothing: Tensor, raw: Tensor) -> Tensor:
        return (here != 0).expand_as(raw)  # the original asks for objects in both cases


@register("DetectionGroupLoss")
class GroupLoss(MapLoss):
    """Cascade R-CNN: loss = cross entropy of the cells' classes + lambda times the loss of the boxes of objects.

    Shapes: scores (N K, cls_num, H, W), coded boxes (N K, 4, H, W), labels (N K, 6, H, W), K the number of fields; top
    (1, 1, 1, 2) as DetectionLoss of MS-CNN. The maps of an image choose their cells together: all with an object, of
    others that overlap any by less than bg_threshold bg_multiple as many (min_num_neg at least), or with batch_size so
    many in all; by neg_mining_type at "random", of greatest neg_ranking_type ("bootstrap"), or half and half
    ("mixture"). Runs eagerly; random numbers by torch's generator. Raises SpecError when sizes do not fit. Source:
    detection_group_loss_layer.cpp of Cascade R-CNN.
    """

    roles = ("scores", "offsets", "boxes")
    bottoms = exactly(3)
    param_field = "detection_group_loss_param"

    @classmethod
    def needs(cls, spec: LayerSpec, i: int, known: Sequence[Shape | None], image: Shape) -> Shape | None:
        first = known[0]
        return (first[0], FACTS, *first[2:]) if i == 2 and first is not None else None

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        check_groups(self, shapes)
        for name, values in (
            ("neg_mining_type", ("random", "bootstrap", "mixture")),
            ("neg_ranking_type", ("conf_loss", "conf_prob")),
            ("bbox_loss_type", ("Smooth_L1", "Euclidean_L2")),
        ):
            self.require(getattr(p, name) in values, name, f"can be one of {', '.join(values)}")
        self.require(p.batch_size > 0 or p.batch_size == -1, "batch_size", "must be > 0, or -1")

    def smooth(self) -> bool:
        return bool(self.param.bbox_loss_type == "Smooth_L1")

    def within(self, boxes: Tensor) -> Tensor:
        p = self.param
        return super().within(boxes) if p.HasField("field_xyr") and p.HasField("field_whr") else boxes

    def forward(self, *bottoms: Tensor) -> Tensor:
        scores, boxes, labels = bottoms
        return self.total(scores, boxes, labels, len(scores) // len(self.param.field_w))

    def chosen(self, scores: Tensor, raw: Tensor, negative: Tensor, images: int) -> Tensor:
        p = self.param
        hard = -log_softmax(scores, 1)[:, 0]
        if p.neg_ranking_type == "conf_prob":
            hard = 1 - scores.softmax(1)[:, 0]
        kept = torch.zeros_like(negative)
        for mine, objects, others, rank in zip(
            *(x.reshape(images, -1) for x in (kept, raw > 0, negative, hard)), strict=True
        ):
            positive, nothing = objects.nonzero().flatten(), others.nonzero().flatten()
            if p.batch_size == -1:
                wanted = len(positive)
                rest = max(wanted * p.bg_multiple, p.min_num_neg)
            else:
                wanted = min(round(p.batch_size / (1.0 + p.bg_multiple)), len(positive))
                rest = p.batch_size - wanted
            mine[positive[drawn(len(positive), wanted).to(positive.device)]] = True
            mine[self.negatives(nothing, rank, min(int(rest), len(nothing)))] = True
        return kept

    def negatives(self, nothing: Tensor, rank: Tensor, number: int) -> Tensor:
        """`number` of the cells without an object."""
        mode = self.param.neg_mining_type
        first = {"random": 0, "bootstrap": number, "mixture": round(number * 0.5)}[mode]
        order = nothing[rank[nothing].argsort(descending=True, stable=True)]
        rest = order[first:]
        return torch.cat((order[:first], rest[drawn(len(rest), number - first).to(rest.device)]))


def check_groups(layer: MapLayer, shapes: tuple[Shape, ...]) -> None:
    """Refuse maps that do not fit the fields."""
    p = layer.param
    for i, shape in enumerate(shapes):
        if len(shape) != 4 or (shape[0], *shape[2:]) != (shapes[0][0], *shapes[0][2:]):
            layer.fail(f"needs maps (N, C, H, W) of one size, found {shape}", "bottom", i)
    layer.check_maps(*shapes)
    layer.require(len(p.field_w) == len(p.field_h), "field_w", "needs as many field_w as field_h")
    groups = len(p.field_w)
    if shapes[0][0] % groups:
        layer.fail(f"{shapes[0][0]} maps are no multiple of {groups} fields", "bottom", 0)
    layer.require(p.stride > 0, "stride", "needs stride > 0")
