"""The losses of YOLO's versions 1 to 3, as public Caffes of YOLO compute them.

The gradient of each is the difference that the authors chose, and not the derivative of the number that is shown.
Shape suffixes: N = images, B = boxes of a cell, L = cells of an image, G = objects of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, exactly, register
from netspec.layers.loss.labels import value_with_gradient_of
from netspec.layers.vision.yolo_boxes import (
    ANNOTATED,
    FACTS,
    ROW,
    centred,
    corners,
    holds_objects,
    objects,
    overlap,
)
from netspec.schema.spec import LayerSpec


@register("DetectionLoss")
class DetectionLoss(Layer):
    """YOLOv1: loss = squared errors of classes, confidences and boxes of the cells with an object, over their number.

    Shapes: x (N, side^2 (num_class + 5 num_object)), classes first, then confidences, then boxes, cells last; labels
    (N, 7 side^2) as BoxData makes them; top (). The box of a cell that overlaps its object most (nearest by root mean
    square where none does) learns its box, sides as roots with `sqrt`, centres within the cell with `constriant`, and
    1 as confidence; all others 0, weighed by noobject_scale over their number. Gradient: the differences over N, the
    best box's confidence being compared with its overlap. Without any object those parts are 0 (NaN in the original).
    Raises SpecError when sizes do not fit. Source: Redmon et al. 2016; detection_loss_layer.cpp of caffe-yolo. With
    `cls_num` it is MS-CNN's layer of the same name (`ScaleLoss`).
    """

    family, roles = "loss", ("values", "boxes")
    bottoms, is_loss = exactly(2), True
    param_field = "detection_loss_param"

    @classmethod
    def kind_for(cls, spec: LayerSpec) -> type[Layer]:
        from netspec.layers.vision.mscnn_loss import ScaleLoss

        return ScaleLoss if spec.message.detection_loss_param.HasField("cls_num") else cls

    @classmethod
    def needs(cls, spec: LayerSpec, i: int, known: Sequence[Shape | None], image: Shape) -> Shape | None:
        p, first = spec.message.detection_loss_param, known[0]
        return (
            (first[0], FACTS * p.side**2) if i and first is not None and not p.HasField("cls_num") else None
        )

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        cells = p.side**2
        for i, (name, count) in enumerate(
            (("scores", cells * (p.num_class + 5 * p.num_object)), ("labels", FACTS * cells))
        ):
            if torch.Size(shapes[i][1:]).numel() != count or shapes[i][0] != shapes[0][0]:
                self.fail(f"needs {name} (N, {count}), found {shapes[i]}", "bottom", i)

    def forward(self, *bottoms: Tensor) -> Tensor:
        p, side = self.param, int(self.param.side)
        n, cells = bottoms[0].shape[0], side**2
        x = bottoms[0].reshape(n, -1, cells)
        labels = bottoms[1].detach().reshape(n, -1)
        with torch.no_grad():
            class_NCL, found_NBL, box_NB4L = self.parts(x)
            there_NL = labels[:, cells : 2 * cells] > 0
            index_NL = torch.where(there_NL, labels[:, 2 * cells : 3 * cells], 0).long()
            truth_NL4 = labels[:, 3 * cells :].reshape(n, cells, 4)
            column = torch.arange(cells, device=x.device) % side
            row = torch.arange(cells, device=x.device) // side
            corner_L2 = torch.stack((column, row), 1).to(x)
            overlap_NBL, best_NBL = self.best(box_NB4L.transpose(2, 3), truth_NL4, corner_L2)
            mine_NBL = best_NBL & there_NL.unsqueeze(1)
            aim_NL4 = truth_NL4.clone()
            if p.constriant:
                aim_NL4[..., :2] = aim_NL4[..., :2] * side - corner_L2
            if p.sqrt:
                aim_NL4[..., 2:] = aim_NL4[..., 2:].clamp(min=0).sqrt()
            one_hot_NCL = torch.zeros_like(class_NCL).scatter(1, index_NL.unsqueeze(1), 1.0)
            class_off = torch.where(there_NL.unsqueeze(1), class_NCL - one_hot_NCL, 0.0)
            box_off = torch.where(mine_NBL.unsqueeze(2), box_NB4L - aim_NL4.transpose(1, 2).unsqueeze(1), 0.0)
            none_off, one_off = (
                torch.where(m, f, 0.0) for m, f in ((~mine_NBL, found_NBL), (mine_NBL, found_NBL - 1))
            )
            count = there_NL.sum()
            total = p.class_scale * class_off.square().sum() + p.coord_scale * box_off.square().sum()
            total = (total + p.object_scale * one_off.square().sum()) / count.clamp(min=1)
            others = (mine_NBL.numel() - count).clamp(min=1)
            value = total + p.noobject_scale * none_off.square().sum() / others
            found_off = p.noobject_scale * none_off
            found_off = found_off + p.object_scale * torch.where(mine_NBL, found_NBL - overlap_NBL, 0.0)
            off = torch.cat((p.class_scale * class_off, found_off, p.coord_scale * box_off.flatten(1, 2)), 1)
        return value_with_gradient_of(value, (x * off).sum() / n)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(classes, confidences, boxes) of x (N, numbers, L)."""
        c, b = int(self.param.num_class), int(self.param.num_object)
        return x[:, :c], x[:, c : c + b], x[:, c + b :].reshape(x.shape[0], b, 4, x.shape[2])

    def best(self, box_NBL4: Tensor, truth_NL4: Tensor, corner_L2: Tensor) -> tuple[Tensor, Tensor]:
        """(overlap with the cell's object, whether it is the best of its cell) of each box."""
        middle, size = box_NBL4[..., :2], box_NBL4[..., 2:]
        if self.param.constriant:
            middle = (corner_L2 + middle) / self.param.side
        if self.param.sqrt:
            size = size.square()
        box_NBL4 = torch.cat((middle, size), -1)
        truth = truth_NL4.unsqueeze(1)
        shared_NBL = overlap(box_NBL4, truth)
        error_NBL = (box_NBL4 - truth).square().sum(-1).sqrt()
        nearest = torch.where((error_NBL < 20).any(1), error_NBL.argmin(1), 0)
        best_NL = torch.where((shared_NBL > 0).any(1), shared_NBL.argmax(1), nearest)
        number = torch.arange(box_NBL4.shape[1], device=best_NL.device).view(-1, 1)
        return shared_NBL, number == best_NL.unsqueeze(1)


class AnchorLoss(Layer):
    """What the losses of versions 2 and 3 share: maps of boxes, and the objects of each image."""

    family, roles = "loss", ("image", "boxes")
    bottoms, is_loss = exactly(2), True

    def check(self, shapes: tuple[Shape, ...]) -> None:
        p, shape = self.param, shapes[0]
        channels = p.num * (5 + p.num_class)
        if len(shape) != 4 or shape[1] != channels or shape[2] != shape[3]:
            self.fail(f"needs a square map (N, {channels}, H, H), found {shape}", "bottom", 0)
        self.require(shape[0] > 0, ("bottom", 0), f"needs one image at least, found {shape}")
        if not holds_objects(shape[0], shapes[1]):
            text = f"needs objects (1, 1, G, {ANNOTATED}) or (N, {ROW} G), found {shapes[1]}"
            self.fail(text, "bottom", 1)
        values = list(p.biases)
        self.require(values and len(values) % 2 == 0, "biases", f"needs biases in pairs, found {len(values)}")
        self.anchors = list(zip(values[::2], values[1::2], strict=True))

    @classmethod
    def needs(cls, spec: LayerSpec, i: int, known: Sequence[Shape | None], image: Shape) -> Shape | None:
        return (1, 1, 4, ANNOTATED) if i else None

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (bottoms[0].new_empty(()),)

    def class_of(self, row: Sequence[float]) -> int:
        """An object's class; raises SpecError where there is none of this number."""
        index = int(row[0])
        if not 0 <= index < self.param.num_class:
            self.fail(f"an object has class {index}, num_class is {self.param.num_class}", "num_class")
        return index

    def loss(self, x_NBLc: Tensor, off_NBLc: Tensor, value: Tensor) -> Tensor:
        return value_with_gradient_of(value, (x_NBLc * off_NBLc).sum() / x_NBLc.shape[0])

    def cells(self, x: Tensor) -> Tensor:
        """A map (N, B (5 + C), H, W) as (N, B, L, 5 + C)."""
        return x.reshape(x.shape[0], self.param.num, 5 + self.param.num_class, -1).transpose(2, 3)


@register("RegionLoss")
class RegionLoss(AnchorLoss):
    """YOLOv2: loss = sum of squared differences of boxes, confidences and classes.

    Shapes: map (N, num (5 + num_class), H, H), a box's numbers x, y, w, h, confidence and class scores, objects
    (1, 1, G, 8) as AnnotatedData makes them, classes from 1, or (N, 5 G) rows (class from 0, x, y, width, height) up to
    a row of zeros; top (). A box is ((column + sigmoid x) / H, (row + sigmoid y) / H, exp(w, h) biases / H).
    An object belongs to the box of its cell whose bias (with bias_match false: prediction) overlaps it most: that box
    learns its place (coord_scale), its class by softmax (class_scale), and 1 as confidence, or with `rescore` its
    overlap (object_scale); boxes that overlap no object by more than thresh learn 0 (noobject_scale). The gradient is
    the differences over N, those of sigmoids times their slope. Runs eagerly. Raises SpecError when sizes do not fit,
    and for a class that does not exist. Source: Redmon and Farhadi 2017; region_layer of Darknet, region_loss_layer.cpp
    of caffe-yolov2.
    """

    param_field = "region_loss_param"

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        self.check(shapes)
        self.require(len(self.anchors) >= p.num, "biases", f"needs biases for {p.num} boxes")
        self.require(p.coords == 4, "coords", f"coords can be 4 only, found {p.coords}")
        for name in ("softmax_tree", "class_map"):
            self.require(not getattr(p, name), name, "is not built; remove it")

    def forward(self, *bottoms: Tensor) -> Tensor:
        p, side, images = self.param, bottoms[0].shape[3], bottoms[0].shape[0]
        x = self.cells(bottoms[0])
        with torch.no_grad():
            shift, size, confidence, share = (
                x[..., :2].sigmoid(),
                x[..., 2:4],
                x[..., 4].sigmoid(),
                x[..., 5:].softmax(-1),
            )
            anchor_B2 = x.new_tensor(self.anchors[: p.num])
            box = torch.cat(
                ((corners(side, x) + shift) / side, size.exp() * anchor_B2[:, None] / side), -1
            )  # N, B, L, 4
            off = torch.zeros_like(x)
            slope = confidence * (1 - confidence)
            off[..., 4] = p.noobject_scale * confidence * slope
            for n, rows in enumerate(objects(bottoms[1].detach(), images)):
                if rows:
                    all_G4 = x.new_tensor([row[1:] for row in rows])
                    most_BL = overlap(box[n].unsqueeze(2), all_G4).amax(-1)
                    off[n, ..., 4] = torch.where(most_BL > p.thresh, 0.0, off[n, ..., 4])
                for row in rows:
                    truth = x.new_tensor(row[1:])
                    i, j = (min(max(int(v * side), 0), side - 1) for v in row[1:3])
                    cell = j * side + i
                    sides = anchor_B2 / side if p.bias_match else box[n, :, cell, 2:]
                    k = int(overlap(centred(sides), centred(truth[2:])).argmax())
                    move = shift[n, k, cell] - (truth[:2] * side - x.new_tensor([i, j]))
                    grow = size[n, k, cell] - (truth[2:] * side / anchor_B2[k]).log()
                    off[n, k, cell, :2] = p.coord_scale * move * shift[n, k, cell] * (1 - shift[n, k, cell])
                    off[n, k, cell, 2:4] = p.coord_scale * grow
                    aim = overlap(box[n, k, cell], truth) if p.rescore else 1.0
                    off[n, k, cell, 4] = p.object_scale * (confidence[n, k, cell] - aim) * slope[n, k, cell]
                    off[n, k, cell, 5:] = p.class_scale * share[n, k, cell]
                    off[n, k, cell, 5 + self.class_of(row)] -= p.class_scale
        return self.loss(x, off, off.square().sum())


@register("Yolov3")
class Yolov3(AnchorLoss):
    """YOLOv3: loss = sum of squared differences of the boxes, confidences and classes of one map, over N.

    Shapes: map (N, num (5 + num_class), H, H), objects as RegionLoss; top (). As RegionLoss, but: biases are pixels of
    a picture of H anchors_scale, of which `mask` names this map's; an object belongs to the bias, of all, that
    overlaps it most, and counts here if that is one of the map's; boxes are weighed by 2 less the object's area;
    confidences and classes are sigmoids compared with 1 and 0 (object_scale with use_logic_gradient only); a second
    object at a box adds its class. Gradient: the differences over N, with use_logic_gradient those of sigmoids times
    their slope (2nd objects' classes have the sign that lowers the loss; the original has the other). Runs eagerly.
    Raises SpecError when sizes do not fit, and for a class that does not exist. Source: Redmon and Farhadi 2018;
    yolov3_layer.cpp of MobileNet-YOLO.
    """

    param_field = "yolov3_param"

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        self.check(shapes)
        if len(p.mask) < p.num or max(p.mask, default=0) >= len(self.anchors):
            self.fail(f"needs {p.num} numbers below {len(self.anchors)}, found {list(p.mask)}", "mask")
        self.require(p.anchors_scale > 0, "anchors_scale", "must be > 0")

    def forward(self, *bottoms: Tensor) -> Tensor:
        p, side, images = self.param, bottoms[0].shape[3], bottoms[0].shape[0]
        x = self.cells(bottoms[0])
        mask = list(p.mask[: p.num])
        with torch.no_grad():
            y = torch.cat((x[..., :2].sigmoid(), x[..., 2:4], x[..., 4:].sigmoid()), -1)
            anchors_A2 = x.new_tensor(self.anchors) / (side * p.anchors_scale)
            box = torch.cat(
                ((corners(side, x) + y[..., :2]) / side, y[..., 2:4].exp() * anchors_A2[mask][:, None]), -1
            )
            off = torch.zeros_like(x)
            off[..., 4] = y[..., 4]
            for n, rows in enumerate(objects(bottoms[1].detach(), images)):
                if rows:
                    most_BL = overlap(box[n].unsqueeze(2), x.new_tensor([row[1:] for row in rows])).amax(-1)
                    off[n, ..., 4] = torch.where(most_BL > p.thresh, 0.0, off[n, ..., 4])
                for row in rows:
                    truth = x.new_tensor(row[1:])
                    best = int(overlap(centred(anchors_A2), centred(truth[2:])).argmax())
                    if best not in mask:
                        continue
                    k = mask.index(best)
                    i, j = (min(max(int(v * side), 0), side - 1) for v in row[1:3])
                    at = (n, k, j * side + i)
                    weight = p.coord_scale * (2 - truth[2] * truth[3])
                    off[at][:2] = weight * (y[at][:2] - (truth[:2] * side - x.new_tensor([i, j])))
                    off[at][2:4] = weight * (y[at][2:4] - (truth[2:] / anchors_A2[best]).log())
                    off[at][4] = (y[at][4] - 1) * (p.object_scale if p.use_logic_gradient else 1)
                    index = 5 + self.class_of(row)
                    if off[at][5] == 0:
                        off[at][5:] = p.class_scale * y[at][5:]
                        off[at][index] -= p.class_scale
                    else:
                        off[at][index] = y[at][index] - 1
            value = off.square().sum() / images
            if p.use_logic_gradient:
                slope = y * (1 - y)
                slope[..., 2:4] = 1
                off = off * slope
        return self.loss(x, off, value)
