"""SSD's layers around a detector: prior boxes, boxes found, and how many of them are right."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, between, exactly, register
from netspec.layers.vision.boxes import decode, overlap, suppress
from netspec.schema.spec import LayerSpec

# Shape suffixes: N = images, P = priors of one image, C = classes, L = 1 (share_location) or C, K = boxes
# kept.


@register("PriorBox")
class PriorBox(Layer):
    """Top[0, 0] = corners of the prior boxes of every cell of a feature map, in [0, 1]; top[0, 1] = their
    variances.

    Shapes: feature map (N, c, H, W), image (N, c, h, w); top (1, 2, H * W * p * 4), cells row after row and
    in each p boxes: for every min_size the square of that side, the square of side sqrt(min_size * max_size)
    if there is a max_size, then one box of the same area for each aspect ratio but 1. Sizes are pixels of the
    image. With denser_prior_boxes, or in the dialect `textboxes` (which is tried where a net does not fit), each box
    is followed by the same with its centre at the lower end of the cell. Only shapes of the bottoms matter. No
    gradient. Raises SpecError for sizes, ratios, variances or
    steps that are missing or contradict each other. Source: Liu et al. 2016 (SSD), prior_box_layer.
    """

    family, roles = "detection", ("like", "like")
    products = 0
    bottoms, differentiable = exactly(2), False
    param_field = "prior_box_param"

    @classmethod
    def other(cls, spec: LayerSpec) -> str:
        return "" if spec.dialect or spec.message.prior_box_param.denser_prior_boxes else "textboxes"

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        for i, shape in enumerate(shapes):
            self.require(len(shape) == 4, ("bottom", i), f"needs blobs (N, C, H, W), found {shape}")
        self.require(p.min_size and min(p.min_size) > 0, "min_size", "needs min_size > 0")
        self.positive("min_size", "max_size", "variance")
        if p.max_size and len(p.max_size) != len(p.min_size):
            self.fail(f"{len(p.max_size)} max_size values for {len(p.min_size)} min_size values", "max_size")
        for i, (low, high) in enumerate(zip(p.min_size, p.max_size, strict=False)):
            if high <= low:
                self.fail(f"max_size {high:g} must be greater than min_size {low:g}", "max_size", i)
        if len(p.variance) not in (0, 1, 4) or any(v <= 0 for v in p.variance):
            self.fail(f"needs 1 or 4 positive variances, found {list(p.variance)}", "variance")
        self.positive("aspect_ratio")
        self.require(len(p.aspect_ratio) <= 1000, "aspect_ratio", f"has {len(p.aspect_ratio)} aspect ratios")
        given = list(p.variance) or [0.1]
        self.variances = given if len(given) == 4 else given * 4
        self.image = self.pair("img_size", "img_h", "img_w")
        self.step = self.pair("step", "step_h", "step_w")
        self.sizes = [side for i in range(len(p.min_size)) for side in self.sides(i)]
        self.denser = bool(p.denser_prior_boxes) or self.spec.dialect == "textboxes"

    def pair(self, both: str, height: str, width: str) -> tuple[float, float] | None:
        """The value of field `both` for height and width, or those of the two single fields, or None."""
        p = self.param
        given = [name for name in (both, height, width) if p.HasField(name)]
        if not given:
            return None
        if given not in ([both], [height, width]):
            self.fail(f"needs either {both}, or both of {height} and {width}", given[0])
        values = tuple(float(getattr(p, name)) for name in given)
        if min(values) <= 0:
            self.fail(f"{given[0]} must be > 0", given[0])
        return values[0], values[-1]

    def sides(self, i: int) -> list[tuple[float, float]]:
        """Width and height, in pixels, of the boxes that min_size[i] makes."""
        p, ratios = self.param, [1.0]
        for ratio in p.aspect_ratio:
            for value in (ratio, 1 / ratio) if p.flip else (ratio,):
                if all(abs(value - known) >= 1e-6 for known in ratios):
                    ratios.append(value)
        side = p.min_size[i]
        sizes = [(side, side)]
        if p.max_size:
            sizes.append((sqrt(side * p.max_size[i]),) * 2)
        return sizes + [(side * sqrt(ratio), side / sqrt(ratio)) for ratio in ratios[1:]]

    def forward(self, *bottoms: Tensor) -> Tensor:
        features, image = bottoms
        rows, columns = features.shape[2:]
        image_h, image_w = self.image or image.shape[2:]
        step_h, step_w = self.step or (image_h / rows, image_w / columns)
        y = (torch.arange(rows, device=features.device) + self.param.offset) * step_h
        x = (torch.arange(columns, device=features.device) + self.param.offset) * step_w
        centre = torch.stack((x.expand(rows, -1), y.unsqueeze(1).expand(-1, columns)), -1).unsqueeze(2)
        centre = centre.to(features.dtype)
        half = features.new_tensor(self.sizes) / 2
        if self.denser:
            lower = centre + features.new_tensor([0, (1 - self.param.offset) * step_h])
            centre = torch.cat((centre, lower), 2).repeat(1, 1, len(self.sizes), 1)
            half = half.repeat_interleave(2, 0)
        image_size = features.new_tensor([image_w, image_h])
        boxes = torch.cat(((centre - half) / image_size, (centre + half) / image_size), -1)
        if self.param.clip:
            boxes = boxes.clamp(0, 1)
        variance = features.new_tensor(self.variances)
        return torch.stack((boxes.flatten(), variance.repeat(boxes.numel() // 4))).unsqueeze(0)


@register("PriorBoxClustered")
class PriorBoxClustered(PriorBox):
    """Top[0, 0] = corners of boxes of given widths and heights in every cell, in [0, 1]; top[0, 1] = their variances.

    Shapes and fields as PriorBox's, but that the boxes of a cell are `width` by `height` pixels, which clustering
    found, in place of min_size, max_size and aspect_ratio. Source: Intel's training toolbox for Caffe.
    """

    @classmethod
    def other(cls, spec: LayerSpec) -> str:
        return ""

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        self.require(
            len(p.width) == len(p.height) > 0, "width", "needs as many widths as heights, and at least one"
        )
        self.param = type(p)()
        self.param.CopyFrom(p)
        self.param.min_size[:] = [1.0]
        super().setup(*shapes)
        self.param = p
        self.sizes = list(zip(p.width, p.height, strict=True))


def priors_and_variances(prior: Tensor) -> tuple[Tensor, Tensor]:
    """(boxes, variances), both (P, 4), of a PriorBox top."""
    boxes, variances = prior.reshape(2, -1, 4)
    return boxes, variances


@register("DetectionOutput")
class DetectionOutput(Layer):
    """Rows (image, label, confidence, xmin, ymin, xmax, ymax) of the boxes that stay after suppression in
    each class.

    Shapes: locations (N, P * L * 4), confidences (N, P * C), priors (1, 2, P * 4), and one of these: a picture to
    draw into, which has no effect here; or RefineDet's objectness (N, P * 2) and first locations (N, P * 4), by
    which each prior is moved first, and seen as background where its objectness (the second of the two) is below
    objectness_score. Top (1, 1, K, 7), K depending on the data: by image, then by label, then by falling
    confidence. Each class but the
    background's takes its boxes above confidence_threshold, the nms_param.top_k best of them, and keeps those
    that overlap no better one by more than nms_threshold; then keep_top_k per image over all classes. Nothing
    found: one row per image, -1 behind its number. A NaN confidence is never found. Runs eagerly; no
    gradient. save_output_param and visualize write no files here. Raises SpecError when sizes do not fit.
    Source: Liu et al. 2016 (SSD), detection_output_layer.
    """

    family, roles = "detection", ("offsets", "scores", "priors")
    products = 0
    bottoms, differentiable = between(3, 5), False
    param_field = "detection_output_param"

    @classmethod
    def role(cls, i: int, count: int) -> str:
        further = ("image",) if count == 4 else ("scores", "offsets")
        return str((*cls.roles, *further)[i])

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        self.require(p.num_classes, "num_classes", "needs num_classes > 0")
        self.locations = 1 if p.share_location else p.num_classes
        check_sizes(self, shapes, self.locations, p.num_classes)
        if len(shapes) == 5:
            check_sizes(self, (shapes[4], shapes[3], shapes[2]), 1, 2, (4, 3))
        if p.nms_param.nms_threshold < 0 or not 0 < p.nms_param.eta <= 1:
            self.fail("needs nms_threshold >= 0 and 0 < eta <= 1", "nms_param")
        self.top_k = p.nms_param.top_k if p.nms_param.HasField("top_k") and p.nms_param.top_k >= 0 else None

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        images, priors = bottoms[0].shape[0], bottoms[2].shape[2] // 4
        classes = self.param.num_classes - (0 <= self.param.background_label_id < self.param.num_classes)
        most = min(priors, self.top_k if self.top_k is not None else priors) * classes
        if self.param.keep_top_k >= 0:
            most = min(most, self.param.keep_top_k)
        return (bottoms[0].new_empty((1, 1, images * max(most, 1), 7)),)

    def forward(self, *bottoms: Tensor) -> Tensor:
        p, images = self.param, bottoms[0].shape[0]
        prior_P4, variance_P4 = priors_and_variances(bottoms[2])
        variance = None if p.variance_encoded_in_target else variance_P4
        if len(bottoms) == 5:
            prior_P4 = decode(p.code_type, prior_P4, variance, bottoms[4].reshape(images, 1, -1, 4))
        coded_NLP4 = bottoms[0].reshape(images, -1, self.locations, 4).transpose(1, 2)
        boxes_NLP4 = decode(p.code_type, prior_P4, variance, coded_NLP4).cpu()
        scores_NPC = bottoms[1].reshape(images, -1, p.num_classes)
        if len(bottoms) == 5:
            scores_NPC = self.without_background(scores_NPC, bottoms[3])
        scores_NCP = scores_NPC.transpose(1, 2).cpu()
        rows = [row for n in range(images) for row in self.image_rows(n, boxes_NLP4[n], scores_NCP[n])]
        if not rows:
            rows = [torch.tensor([[n] + [-1] * 6], dtype=bottoms[0].dtype) for n in range(images)]
        return torch.cat(rows).reshape(1, 1, -1, 7).to(bottoms[0].device, bottoms[0].dtype)

    def without_background(self, scores_NPC: Tensor, objectness: Tensor) -> Tensor:
        """The scores, 1 for the background alone where the objectness of a prior is too low."""
        empty_NP1 = objectness.reshape(*scores_NPC.shape[:2], 2)[..., 1:] < self.param.objectness_score
        nothing_C = torch.zeros_like(scores_NPC[0, 0])
        if 0 <= self.param.background_label_id < len(nothing_C):
            nothing_C[self.param.background_label_id] = 1
        return torch.where(empty_NP1, nothing_C, scores_NPC)

    def image_rows(self, n: int, boxes_LP4: Tensor, scores_CP: Tensor) -> list[Tensor]:
        """The rows of image n, a tensor for each class that has any."""
        p = self.param
        kept: dict[int, Tensor] = {}
        for label in range(p.num_classes):
            if label != p.background_label_id:
                boxes_P4 = boxes_LP4[0 if self.locations == 1 else label]
                kept[label] = self.class_indices(boxes_P4, scores_CP[label])
        if 0 <= p.keep_top_k < sum(map(len, kept.values())):
            every = torch.cat([scores_CP[label][index] for label, index in kept.items()])
            best = torch.zeros(len(every), dtype=torch.bool)
            best[every.argsort(descending=True, stable=True)[: p.keep_top_k]] = True
            parts = torch.split(best, [len(index) for index in kept.values()])
            kept = {label: index[part] for (label, index), part in zip(kept.items(), parts, strict=True)}
        rows = []
        for label, index in kept.items():
            if len(index):
                head = torch.tensor([n, label], dtype=boxes_LP4.dtype).expand(len(index), 2)
                boxes = boxes_LP4[0 if self.locations == 1 else label][index]
                rows.append(torch.cat((head, scores_CP[label][index].unsqueeze(1), boxes), 1))
        return rows

    def class_indices(self, boxes_P4: Tensor, scores_P: Tensor) -> Tensor:
        """Priors of the boxes that stay in one class, by falling score."""
        p = self.param
        low = p.confidence_threshold if p.HasField("confidence_threshold") else float("-inf")
        order = scores_P.masked_fill(~(scores_P > low), float("-inf")).argsort(descending=True, stable=True)
        order = order[scores_P[order] > low][: self.top_k]
        kept = suppress(boxes_P4[order].numpy(), p.nms_param.nms_threshold, p.nms_param.eta)
        return order[kept]


def check_sizes(
    layer: Layer, shapes: tuple[Shape, ...], locations: int, classes: int, at: tuple[int, int] = (0, 1)
) -> None:
    """Fail unless locations, confidences and priors speak of the same boxes; `at`: the first two's bottoms."""
    location, confidence, prior = shapes[:3]
    if len(prior) != 3 or prior[:2] != (1, 2) or prior[2] % 4:
        layer.fail(f"needs priors of shape (1, 2, 4 * number), found {prior}", "bottom", 2)
    number = prior[2] // 4
    for i, shape, each in zip(at, (location, confidence), (4 * locations, classes), strict=True):
        if torch.Size(shape[1:]).numel() != number * each or shape[0] != location[0]:
            layer.fail(f"needs shape ({location[0]}, {number} priors * {each}), found {shape}", "bottom", i)


@register("DetectionEvaluate")
class DetectionEvaluate(Layer):
    """Rows (-1, label, number of objects, -1, -1) for each class, then (image, label, confidence, right,
    wrong) per box.

    Shapes: detections (1, 1, D, 7) from DetectionOutput, objects (1, 1, G, 8) as (image, label, instance,
    xmin, ymin, xmax, ymax, difficult), image -1 for none; top (1, 1, classes without the background + boxes,
    5), boxes by image, by label, by falling confidence. A box is right when it overlaps its best object of
    that image and label by overlap_threshold and is the first to do so, wrong otherwise; with
    evaluate_difficult_gt false, one whose best object is difficult is neither, and such objects are not
    counted. Boxes are compared in [0, 1] (name_size_file and resize_param are not needed). Runs eagerly; no
    gradient. Raises SpecError when shapes do not fit. Source: SSD, detection_evaluate_layer.
    """

    family, roles = "detection", ("detections", "boxes")
    gathers = True
    products = 0
    bottoms, differentiable = exactly(2), False
    param_field = "detection_evaluate_param"

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        for i, width in enumerate((7, 8)):
            if len(shapes[i]) != 4 or shapes[i][:2] != (1, 1) or shapes[i][3] != width:
                self.fail(f"needs shape (1, 1, number, {width}), found {shapes[i]}", "bottom", i)
        self.positive("num_classes", most=self.MOST_ENTRIES)
        self.require(p.overlap_threshold > 0, "overlap_threshold", "overlap_threshold must be > 0")
        self.labels = [label for label in range(p.num_classes) if label != p.background_label_id]

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (bottoms[0].new_empty((1, 1, len(self.labels) + bottoms[0].shape[2], 5)),)

    def forward(self, *bottoms: Tensor) -> Tensor:
        found_D7, object_G8 = bottoms[0].reshape(-1, 7).cpu(), bottoms[1].reshape(-1, 8).cpu()
        object_G8 = object_G8[object_G8[:, 0] >= 0]
        counted = object_G8 if self.param.evaluate_difficult_gt else object_G8[object_G8[:, 7] == 0]
        rows = [[-1.0, label, int((counted[:, 1] == label).sum()), -1.0, -1.0] for label in self.labels]
        found_D7 = found_D7[found_D7[:, 1] >= 0]
        for image in sorted(set(found_D7[:, 0].tolist())):
            for label in sorted(set(found_D7[found_D7[:, 0] == image, 1].tolist())):
                mine = found_D7[(found_D7[:, 0] == image) & (found_D7[:, 1] == label)]
                mine = mine[mine[:, 2].argsort(descending=True, stable=True)]
                objects = object_G8[(object_G8[:, 0] == image) & (object_G8[:, 1] == label)]
                for box, (right, wrong) in zip(mine, self.judge(mine, objects), strict=True):
                    rows.append([image, label, float(box[2]), right, wrong])
        return bottoms[0].new_tensor(rows).reshape(1, 1, -1, 5)

    def judge(self, boxes: Tensor, objects: Tensor) -> list[tuple[int, int]]:
        """(right, wrong) of each box of one image and label."""
        if not len(objects):
            return [(0, 1)] * len(boxes)
        overlaps, best = overlap(boxes[:, None, 3:7], objects[None, :, 3:7]).max(1)
        taken: set[int] = set()
        verdicts = []
        for value, i in zip(overlaps.tolist(), best.tolist(), strict=True):
            if value < self.param.overlap_threshold:
                verdicts.append((0, 1))
            elif not self.param.evaluate_difficult_gt and objects[i, 7] != 0:
                verdicts.append((0, 0))
            else:
                verdicts.append((0, 1) if i in taken else (1, 0))
                taken.add(i)
        return verdicts
