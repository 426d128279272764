"""EvalDetection: the evaluation of YOLO's versions 1 and 2, as public Caffes of YOLO compute it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, exactly, register
from netspec.layers.vision.yolo_boxes import (
    ANNOTATED,
    FACTS,
    ROW,
    corners,
    holds_objects,
    objects,
    overlap,
    same_rows,
)
from netspec.schema.spec import LayerSpec

LEAST_SCORE = 0.005
"""Boxes of YOLOv2 below this are not evaluated."""


@register("EvalDetection")
class EvalDetection(Layer):
    """rows of objects a class, then (class, score, right, wrong) of each box, of each image.

    Shapes: YOLOv1's scores and labels (see DetectionLoss), or with `biases` YOLOv2's map and objects (see RegionLoss);
    top (N, num_class + 4 boxes), boxes by class, then by falling score, 0 behind the last. A box's class is its most
    probable one; its score that probability (PROB), its confidence (OBJ) or their product (MULTIPLY). A box that
    overlaps a better one of any class by `nms` or more is left out (nms below 0: none is; YOLOv2: scores below 0.005
    are). A box is right that overlaps an object of its class by `threshold`, of which no better box took it; difficult
    objects count neither way. No gradient; runs eagerly. Raises SpecError when sizes do not fit. Source:
    eval_detection_layer.cpp of caffe-yolo and caffe-yolov2.
    """

    family, roles = "accuracy", ("values", "boxes")
    products = 0
    bottoms, differentiable = exactly(2), False
    param_field = "eval_detection_param"

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        cells, biases = p.side**2, len(p.biases)
        count = cells * (p.num_object * (5 + p.num_class) if biases else p.num_class + 5 * p.num_object)
        if torch.Size(shapes[0][1:]).numel() != count:
            self.fail(f"needs {count} numbers for each image, found {shapes[0]}", "bottom", 0)
        if not biases and torch.Size(shapes[1][1:]).numel() != FACTS * cells:
            self.fail(f"needs labels (N, {FACTS * cells}), found {shapes[1]}", "bottom", 1)
        if not (holds_objects if biases else same_rows)(shapes[0][0], shapes[1]):
            text = (
                f"needs objects (1, 1, G, {ANNOTATED}) or (N, {ROW} G)"
                if biases
                else "needs labels of N images"
            )
            self.fail(f"{text}, N = {shapes[0][0]}, found {shapes[1]}", "bottom", 1)
        self.require(
            not biases or biases >= 2 * p.num_object, "biases", f"needs {2 * p.num_object}, found {biases}"
        )

    @classmethod
    def needs(cls, spec: LayerSpec, i: int, known: Sequence[Shape | None], image: Shape) -> Shape | None:
        p, first = spec.message.eval_detection_param, known[0]
        if not i or first is None:
            return None
        return (1, 1, 4, ANNOTATED) if p.biases else (first[0], FACTS * p.side**2)

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (bottoms[0].new_empty((bottoms[0].shape[0], self.width())),)

    def width(self) -> int:
        return int(self.param.num_class + 4 * self.param.side**2 * self.param.num_object)

    def forward(self, *bottoms: Tensor) -> Tensor:
        p, n = self.param, bottoms[0].shape[0]
        second = bool(p.biases)
        boxes, shares, confidence = (self.second if second else self.first)(bottoms[0].detach())
        if second:
            known = [[[*row, 0.0] for row in mine] for mine in objects(bottoms[1], n)]
        else:
            known = self.first_objects(bottoms[1])
        probability, label = shares.max(-1)
        score = {p.OBJ: confidence, p.PROB: probability}.get(p.score_type, confidence * probability)
        top = bottoms[0].new_zeros((n, self.width()))
        for image in range(n):
            self.judge(top[image], boxes[image], label[image].tolist(), score[image], known[image])
        return top

    def first(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(boxes (N, P, 4), classes' shares (N, P, C), confidences (N, P)) of YOLOv1, cell after cell."""
        p, side = self.param, int(self.param.side)
        x = x.reshape(x.shape[0], -1, side**2)
        c, b = int(p.num_class), int(p.num_object)
        box = x[:, c + b :].reshape(x.shape[0], b, 4, -1).permute(0, 3, 1, 2)  # N, L, B, 4
        middle, size = box[..., :2], box[..., 2:]
        if p.constriant:
            middle = (corners(side, x).unsqueeze(1) + middle) / side
        if p.sqrt:
            size = size.square()
        shares = x[:, :c].transpose(1, 2).unsqueeze(2).expand(-1, -1, b, -1)
        return (
            torch.cat((middle, size), -1).flatten(1, 2),
            shares.flatten(1, 2),
            x[:, c : c + b].transpose(1, 2).flatten(1),
        )

    def second(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same of YOLOv2."""
        p, side = self.param, int(self.param.side)
        y = x.reshape(x.shape[0], p.num_object, 5 + p.num_class, -1).permute(0, 3, 1, 2)
        anchors = y.new_tensor(list(p.biases)[: 2 * p.num_object]).view(-1, 2)
        middle = (corners(side, y).unsqueeze(1) + y[..., :2].sigmoid()) / side
        size = y[..., 2:4].exp() * anchors / side
        return (
            torch.cat((middle, size), -1).flatten(1, 2),
            y[..., 5:].softmax(-1).flatten(1, 2),
            y[..., 4].sigmoid().flatten(1),
        )

    def first_objects(self, labels: Tensor) -> list[list[list[float]]]:
        """(class, x, y, width, height, difficult) of the objects of each image."""
        cells, per_image = int(self.param.side) ** 2, []
        for row in labels.reshape(labels.shape[0], -1):
            boxes = row[3 * cells :].reshape(cells, 4).tolist()
            difficult, there, classes = row[: 3 * cells].reshape(3, cells).tolist()
            per_image.append([[classes[i], *boxes[i], difficult[i]] for i in range(cells) if there[i] > 0])
        return per_image

    def judge(
        self, top: Tensor, boxes: Tensor, label: list[int], score: Tensor, known: list[list[float]]
    ) -> None:
        """Write one image's row."""
        p = self.param
        for row in known:
            if 0 <= row[0] < p.num_class and row[5] != 1:
                top[int(row[0])] += 1
        order = score.argsort(descending=True, stable=True).tolist()
        if p.nms >= 0:
            kept: list[int] = []
            for k in order:
                if all(float(overlap(boxes[k], boxes[other])) < p.nms for other in kept):
                    kept.append(k)
            order = kept
        if p.biases:
            order = [k for k in order if float(score[k]) >= LEAST_SCORE]
        taken: set[int] = set()
        at = int(p.num_class)
        for k in sorted(order, key=lambda k: label[k]):
            mine = [(i, row) for i, row in enumerate(known) if int(row[0]) == label[k]]
            shared = [float(overlap(boxes[k], boxes.new_tensor(row[1:5]))) for _, row in mine]
            best = max(range(len(mine)), key=shared.__getitem__, default=None)
            right, wrong = 0.0, 1.0
            if best is not None and shared[best] >= p.threshold:
                i, row = mine[best]
                if row[5] == 1:
                    right, wrong = 0.0, 0.0
                elif i not in taken:
                    right, wrong = 1.0, 0.0
                    taken.add(i)
            top[at : at + 4] = top.new_tensor([float(label[k]), float(score[k]), right, wrong])
            at += 4
