"""The boxes that YOLO's versions 2 and 3 find, as MobileNet-YOLO's Caffe reads them from feature maps."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, at_least, register
from netspec.layers.vision.boxes import suppress

# Shape suffixes: N = images, P = boxes of one image.


class YoloOutput(Layer):
    """What both versions share: cells' numbers as boxes, and which of all boxes stay."""

    family, roles = "detection", ("image",)
    products = 0
    bottoms, differentiable = at_least(1), False
    every_class = False
    """Each class of a box counts by itself, not its best alone."""
    sizes: list[list[tuple[float, float]]]
    """Width and height of each box of a cell, in maps, for each bottom."""

    def read_shapes(self, shapes: tuple[Shape, ...]) -> None:
        p = self.param
        self.require(p.num_classes and p.num_box, str(self.param_field), "needs num_classes and num_box > 0")
        channels = p.num_box * (5 + p.num_classes)
        for i, shape in enumerate(shapes):
            if len(shape) != 4 or shape[1] != channels or shape[2] != shape[3] or shape[0] != shapes[0][0]:
                self.fail(f"needs a square map (N, {channels}, H, H), found {shape}", "bottom", i)

    def pairs(self) -> list[tuple[float, float]]:
        """`biases` as widths and heights."""
        values = list(self.param.biases)
        if not values or len(values) % 2:
            self.fail(f"needs biases in pairs, found {len(values)}", str(self.param_field), "biases")
        return list(zip(values[::2], values[1::2], strict=True))

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        boxes = sum(self.param.num_box * x.shape[2] * x.shape[3] for x in bottoms)
        labels = self.param.num_classes if self.every_class else 1
        return (bottoms[0].new_empty((1, 1, bottoms[0].shape[0] * boxes * labels, 7)),)

    def candidates(self, confidence_PC: Tensor) -> Tensor:
        """Which (box, class) are confident enough."""
        raise NotImplementedError

    def confidences(self, object_P: Tensor, class_PC: Tensor) -> Tensor:
        """The confidence of each class of each box."""
        raise NotImplementedError

    def forward(self, *bottoms: Tensor) -> Tensor:
        images = bottoms[0].shape[0]
        parts = [self.boxes(x, sizes) for x, sizes in zip(bottoms, self.sizes, strict=True)]
        boxes_NP4, confidence_NPC = (torch.cat(part, 1).cpu() for part in zip(*parts, strict=True))
        rows = [row for n in range(images) for row in self.image_rows(n, boxes_NP4[n], confidence_NPC[n])]
        if not rows:
            rows = [[n] + [-1.0] * 6 for n in range(images)]
        return bottoms[0].new_tensor(rows).reshape(1, 1, -1, 7)

    def boxes(self, x: Tensor, sizes: list[tuple[float, float]]) -> tuple[Tensor, Tensor]:
        """(corners (N, P, 4), confidences (N, P, C)) of a map, cell after cell, in the order of its boxes."""
        n, _, side, _ = x.shape
        cells = x.view(n, self.param.num_box, -1, side * side).permute(0, 3, 1, 2)  # N, cell, box, number
        place = torch.arange(side, device=x.device, dtype=x.dtype)
        corner = torch.stack((place.repeat(side), place.repeat_interleave(side)), 1).unsqueeze(1)
        middle = (corner + cells[..., :2].sigmoid()) / side
        half = cells[..., 2:4].exp() * x.new_tensor(sizes) / 2
        confidence = self.confidences(cells[..., 4].sigmoid(), cells[..., 5:])
        return torch.cat((middle - half, middle + half), -1).flatten(1, 2), confidence.flatten(1, 2)

    def image_rows(self, n: int, boxes_P4: Tensor, confidence_PC: Tensor) -> list[list[float]]:
        """The rows of image n, by falling confidence."""
        box, label = self.candidates(confidence_PC).nonzero(as_tuple=True)
        confidence = confidence_PC[box, label]
        order = confidence.argsort(descending=True, stable=True)
        box, label, confidence = box[order], label[order], confidence[order]
        boxes = boxes_P4[box].numpy()
        # A box goes that overlaps a better one, of any class, by the threshold or more.
        least = np.nextafter(boxes.dtype.type(self.param.nms_threshold), boxes.dtype.type(-1))
        kept = suppress(boxes, float(least))
        return [[float(n), float(label[i] + 1), float(confidence[i]), *boxes[i].tolist()] for i in kept]


@register("YoloDetectionOutput")
class YoloDetectionOutput(YoloOutput):
    """Rows (image, label, confidence, xmin, ymin, xmax, ymax) of YOLOv2's boxes that stay after suppression.

    Shapes: maps (N, num_box (5 + num_classes), H, H), a cell's numbers x, y, w, h, object and the classes' scores,
    box after box; top (1, 1, K, 7), K depending on the data, by image, then by falling confidence. Corners in [0, 1],
    not cut: the middle is (column + sigmoid x, row + sigmoid y) / H, the size exp(w, h) biases / H. The confidence of
    a box's best class, sigmoid(object) softmax(classes), must reach confidence_threshold; labels count from 1. A box
    that overlaps a better one of its image, of any class, by nms_threshold or more goes (the original mixes the
    images of a batch, and numbers them 0). Nothing found: one row per image, -1 behind its number. A NaN confidence
    is never found. Runs eagerly; no gradient. Raises SpecError when sizes do not fit. Source: Redmon and Farhadi 2017;
    yolo_detection_output_layer.cpp of MobileNet-YOLO.
    """

    param_field = "yolo_detection_output_param"

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        self.read_shapes(shapes)
        self.require(p.coords == 4, "coords", f"coords can be 4 only, found {p.coords}")
        pairs = self.pairs()
        self.require(len(pairs) >= p.num_box, "biases", f"needs biases for {p.num_box} boxes")
        self.sizes = [[(w / shape[2], h / shape[2]) for w, h in pairs[: p.num_box]] for shape in shapes]

    def confidences(self, object_P: Tensor, class_PC: Tensor) -> Tensor:
        return object_P.unsqueeze(-1) * class_PC.softmax(-1)

    def candidates(self, confidence_PC: Tensor) -> Tensor:
        best = torch.zeros_like(confidence_PC, dtype=torch.bool)
        best.scatter_(1, confidence_PC.argmax(1, keepdim=True), True)
        return best & (confidence_PC >= float(self.param.confidence_threshold))


@register("Yolov3DetectionOutput")
class Yolov3DetectionOutput(YoloOutput):
    """Rows (image, label, confidence, xmin, ymin, xmax, ymax) of YOLOv3's boxes that stay after suppression.

    Shapes: maps (N, num_box (5 + num_classes), H, H) of any H; top (1, 1, K, 7), K depending on the data. As
    YoloDetectionOutput, but for the size, exp(w, h) biases / (H anchors_scale) with the biases that `mask` names for
    the map, and the confidences, sigmoid(object) sigmoid(class): every class above confidence_threshold counts by
    itself. NaN and errors as there. Source: Redmon and Farhadi 2018; yolov3_detection_output_layer.cpp of
    MobileNet-YOLO.
    """

    param_field = "yolov3_detection_output_param"
    every_class = True

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        self.read_shapes(shapes)
        if p.mask_group_num != len(shapes):
            self.fail(f"mask_group_num {p.mask_group_num} for {len(shapes)} bottoms", "mask_group_num")
        if len(p.anchors_scale) < len(shapes) or 0 in p.anchors_scale:
            self.fail(f"needs {len(shapes)} anchors_scale > 0", "anchors_scale")
        pairs, each = self.pairs(), len(p.mask) // len(shapes)
        if each < p.num_box or max(p.mask, default=0) >= len(pairs):
            self.fail(
                f"needs {p.num_box} numbers below {len(pairs)} for each bottom, found {list(p.mask)}",
                "mask",
            )
        self.sizes = []
        for i, (shape, scale) in enumerate(zip(shapes, p.anchors_scale, strict=False)):
            mine = [pairs[k] for k in p.mask[i * each : i * each + p.num_box]]
            self.sizes.append([(w / (shape[2] * scale), h / (shape[2] * scale)) for w, h in mine])

    def confidences(self, object_P: Tensor, class_PC: Tensor) -> Tensor:
        return object_P.unsqueeze(-1) * class_PC.sigmoid()

    def candidates(self, confidence_PC: Tensor) -> Tensor:
        return confidence_PC > float(self.param.confidence_threshold)
