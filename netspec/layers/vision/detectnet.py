"""DetectNet's pictures and what its grid should say, made from pictures and rows of boxes.

Shape suffixes: B = boxes of a picture. Source: NVIDIA's Caffe, detectnet_transform_layer.cpp and
detectnet_coverage_rectangular.cpp.
"""

from __future__ import annotations

from math import ceil, cos, floor, radians, sin
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from netspec.data.transform import Transformer
from netspec.errors import DataError
from netspec.layers.base import Layer, Shape, exactly, register
from netspec.schema.spec import TRAIN

COLUMNS = 16
"""A box: x, y, width, height, angle, class, scenario, rotation, truncation, occlusion, size, location."""
CLASS, TRUNCATED = 5, 8
EPSILON = 1.1920929e-07
BLACK = -0.5 * 255
"""What lies beyond a picture."""
FACTS = 8
"""Channels before the classes': foreground, corners from the cell's (4), 1 / width, 1 / height, obj_norm."""


@register("DetectNetTransformation")
class DetectNetTransformation(Layer):
    """pictures less their mean, changed at random in TRAIN, and the grid of what is in them.

    Shapes: pictures (N, 3, h, w) of 0..255 in the order B, G, R, labels (N, 1, rows, 16), the first row (number of
    boxes, 16), then a box each; tops (N, 3, image_size_y, image_size_x) and (N, 8 + classes, image_size_y / stride,
    image_size_x / stride). A cell that the box, shrunk by scale_cvg about its middle, touches holds 1, the corners of
    the box from the cell's in pixels, 1 / width, 1 / height, obj_norm (cells over the shrunk box's area; 1 at least
    without obj_norm), and 1 for its class; of several boxes the last counts. TEST: the picture is resized by cubic
    interpolation. TRAIN: hue, saturation, size, rotation, mirroring and crop by detectnet_augmentation_param, random
    numbers by torch's generator. No gradient; runs eagerly. Raises SpecError for shapes that do not fit, DataError for
    labels that are no such rows.
    """

    family, roles = "data", ("image", "boxes")
    products, mixes = 0, True
    bottoms, tops, differentiable = exactly(2), exactly(2), False
    param_field = "detectnet_groundtruth_param"

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        if len(shapes[0]) != 4 or shapes[0][1] != 3:
            self.fail(f"needs colour pictures (N, 3, H, W), found {shapes[0]}", "bottom", 0)
        if len(shapes[1]) < 2 or shapes[1][0] != shapes[0][0] or shapes[1][-1] != COLUMNS:
            self.fail(f"needs labels (N, 1, rows, {COLUMNS}), found {shapes[1]}", "bottom", 1)
        for name in ("stride", "image_size_x", "image_size_y"):
            self.require(getattr(p, name) > 0, name, f"{name} must be > 0")
        self.classes = {int(c.src): int(c.dst) for c in p.object_class} or {1: 0}
        self.grid = (round(p.image_size_y / p.stride), round(p.image_size_x / p.stride))
        self.augment: Any = self.spec.message.detectnet_augmentation_param

    @classmethod
    def needs(cls, spec: Any, i: int, known: Any, image: Shape) -> Shape | None:
        p = spec.message.detectnet_groundtruth_param
        return (image[0], 1, 17, COLUMNS) if i else (image[0], 3, int(p.image_size_y), int(p.image_size_x))

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        p, number = self.param, bottoms[0].shape[0]
        picture = bottoms[0].new_empty((number, 3, p.image_size_y, p.image_size_x))
        return picture, bottoms[0].new_empty((number, FACTS + max(self.classes.values()) + 1, *self.grid))

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        mean = self.mean(bottoms[0])
        pictures, grids = [], []
        for x, rows in zip(bottoms[0], bottoms[1].flatten(1, -2), strict=True):
            picture, boxes_B16 = self.made(x, self.boxes(rows), mean)
            pictures.append(picture)
            grids.append(self.covered(boxes_B16))
        return torch.stack(pictures), torch.stack(grids)

    def mean(self, x: Tensor) -> Tensor:
        """The mean in the pictures' shape, as transform_param gives it."""
        transform = Transformer(self.spec, self.phase, 0)
        values = torch.as_tensor(transform.values).to(x)
        if transform.mean is not None:
            return functional.interpolate(
                torch.as_tensor(transform.mean).to(x).reshape(1, 3, *transform.mean.shape[-2:]),
                x.shape[2:],
                mode="bicubic",
            )[0]
        return values.reshape(-1, 1, 1) if len(values) else x.new_zeros(3, 1, 1)

    def boxes(self, rows: Tensor) -> Tensor:
        """The boxes (B, 16) of a picture's label."""
        if not bool(rows[0, :2].isfinite().all()):
            raise DataError(
                f"{self.spec}: the label's first row, which says how many boxes there are, is not finite"
            )
        number, width = int(rows[0, 0]), int(rows[0, 1])
        if number == 0:
            return rows[:0].clone()
        if width != COLUMNS or not 0 <= number < len(rows):
            text = f"the label's first row says {number} boxes of {width} numbers"
            raise DataError(f"{self.spec}: {text}; needs at most {len(rows) - 1} of {COLUMNS}")
        return rows[1 : number + 1].clone()

    # The picture

    def made(self, x: Tensor, boxes: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """The picture in its final size, and its boxes."""
        p, a = self.param, self.augment
        if self.phase != TRAIN:
            return resized(x - mean, boxes, (int(p.image_size_y), int(p.image_size_x)))
        x = recoloured(x / 255, *self.colours()) * 255 - mean
        scale = uniform(a.scale_min, a.scale_max)
        if chance(a.scale_prob):
            x, boxes = resized(x, boxes, (round(x.shape[1] * scale), round(x.shape[2] * scale)))
        angle = uniform(-a.max_rotate_degree, a.max_rotate_degree)
        if chance(a.rotation_prob) and abs(angle) > EPSILON:
            x, boxes = rotated(x, boxes, angle)
        if chance(a.flip_prob):
            boxes[:, 0] = x.shape[2] - boxes[:, 0] - 1 - boxes[:, 2]
            x = x.flip(2)
        return self.cropped(x, boxes)

    def colours(self) -> tuple[float, float]:
        """(degrees by which hue turns, factor of the saturation)."""
        a = self.augment
        hue = max(min(uniform(-a.hue_rotation, a.hue_rotation), 180.0), -180.0) * chance(a.hue_rotation_prob)
        saturation = 1 - uniform(0, a.desaturation_max) * chance(a.desaturation_prob)
        return hue, saturation

    def cropped(self, x: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """A part of the picture in the size of the top, black beyond it."""
        p, a = self.param, self.augment
        size, shift = (int(p.image_size_y), int(p.image_size_x)), (int(a.shift_y), int(a.shift_x))
        room = [have - want for have, want in zip(x.shape[1:], size, strict=True)]
        offset = [int(r / 2) for r in room]
        if chance(a.crop_prob):
            offset = [round(uniform(0, 1) * (r + s)) - s // 2 for r, s in zip(room, shift, strict=True)]
        out = x.new_full((3, *size), BLACK)
        (y0, x0), (top, left) = ([max(0, o) for o in offset], [max(0, -o) for o in offset])
        height = max(min(x.shape[1] - y0, size[0] - top), 0)
        width = max(min(x.shape[2] - x0, size[1] - left), 0)
        out[:, top : top + height, left : left + width] = x[:, y0 : y0 + height, x0 : x0 + width]
        boxes[:, 0] += left - x0
        boxes[:, 1] += top - y0
        return out, boxes

    # The grid

    def covered(self, boxes_B16: Tensor) -> Tensor:
        """(8 + classes, rows, columns) of what the boxes cover."""
        p = self.param
        rows, columns = self.grid
        out = boxes_B16.new_zeros((FACTS + max(self.classes.values()) + 1, rows, columns))
        cell_y = torch.arange(rows, device=out.device, dtype=out.dtype)[:, None] * p.stride
        cell_x = torch.arange(columns, device=out.device, dtype=out.dtype) * p.stride
        for box in boxes_B16.tolist():
            x1, y1, width, height = box[:4]
            x2, y2 = x1 + width, y1 + height
            if p.crop_bboxes:
                x1, y1 = max(x1, 0.0), max(y1, 0.0)
                x2, y2 = min(x2, float(p.image_size_x)), min(y2, float(p.image_size_y))
            width, height = x2 - x1, y2 - y1
            if int(box[CLASS]) not in self.classes or width <= 0 or height <= 0 or width * height < EPSILON:
                continue
            wide, high = self.shrunk(width), self.shrunk(height)
            left, top = (x1 + x2 - wide) / 2, (y1 + y2 - high) / 2
            over_x = (cell_x + p.stride).clamp(max=left + wide) - cell_x.clamp(min=left)
            over_y = (cell_y + p.stride).clamp(max=top + high) - cell_y.clamp(min=top)
            touched = over_x.clamp(min=0) * over_y.clamp(min=0) / p.stride**2 > EPSILON
            norm = max(0.0 if p.obj_norm else 1.0, p.stride**2 / (wide * high))
            fill = out.new_zeros(out.shape)
            fill[0] = 1
            fill[1], fill[2], fill[3], fill[4] = x1 - cell_x, y1 - cell_y, x2 - cell_x, y2 - cell_y
            fill[5], fill[6], fill[7] = 1 / width, 1 / height, norm
            fill[FACTS + self.classes[int(box[CLASS])]] = 1
            out = torch.where(touched, fill, out)
        return out

    def shrunk(self, side: float) -> float:
        """The side of the part of a box that counts."""
        p = self.param
        part = side * p.scale_cvg
        if p.gridbox_type == p.GRIDBOX_MIN:
            return float(min(side, max(float(p.min_cvg_len), part)))
        return float(min(float(p.max_cvg_len), part))


def chance(share: float) -> bool:
    """Whether something of this probability happens, by torch's generator."""
    return bool(torch.rand(()) <= share)


def uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def resized(x: Tensor, boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The picture in another size by cubic interpolation, as OpenCV's, and its boxes."""
    if size == tuple(x.shape[1:]):
        return x, boxes
    factor = boxes.new_tensor([size[1] / x.shape[2], size[0] / x.shape[1]]).repeat(2)
    x = functional.interpolate(x[None], size, mode="bicubic", align_corners=False)[0]
    return x, torch.cat((boxes[:, :4] * factor, boxes[:, 4:]), 1)


def rotated(x: Tensor, boxes: Tensor, degrees: float) -> tuple[Tensor, Tensor]:
    """The picture turned about its middle in a frame that holds all of it, and its boxes, which keep their size."""
    height, width = x.shape[1:]
    turn = x.new_tensor(
        [[cos(radians(degrees)), -sin(radians(degrees))], [sin(radians(degrees)), cos(radians(degrees))]]
    )
    middle = x.new_tensor([width / 2, height / 2])
    corners = (
        x.new_tensor([[-width, height], [-width, -height], [width, -height], [width, height]]) / 2 @ turn.t()
        + middle
    )
    low, high = corners.amin(0).tolist(), corners.amax(0).tolist()
    first = x.new_tensor([floor(low[0]), floor(low[1])])
    columns, rows = (ceil(h) - floor(v) + 1 for h, v in zip(high, low, strict=True))
    there = middle - first
    place = torch.stack(
        torch.meshgrid(
            torch.arange(columns, dtype=x.dtype), torch.arange(rows, dtype=x.dtype), indexing="xy"
        ),
        -1,
    ).to(x)
    source = (place - there) @ turn + middle
    last = x.new_tensor([width - 1, height - 1])
    inside = ((source >= 0) & (source <= last)).all(-1)
    grid = 2 * source / last.clamp(min=1) - 1
    pixels = functional.grid_sample(x[None], grid[None], align_corners=True)[0]
    out = torch.where(inside, pixels, BLACK)
    centre = (boxes[:, :2] + boxes[:, 2:4] / 2 - middle) @ turn.t() + there
    return out, torch.cat((centre - boxes[:, 2:4] / 2, boxes[:, 2:]), 1)


def recoloured(x: Tensor, hue: float, saturation: float) -> Tensor:
    """A picture (3, H, W) in [0, 1] in the order B, G, R, its hue turned by degrees, its saturation multiplied."""
    if not hue and saturation == 1:
        return x
    blue, green, red = x
    value, least = x.amax(0), x.amin(0)
    span = value - least
    safe = torch.where(span > 0, span, 1.0)
    degrees = torch.where(
        value == red,
        60 * (green - blue) / safe,
        torch.where(value == green, 120 + 60 * (blue - red) / safe, 240 + 60 * (red - green) / safe),
    )
    degrees = torch.where(span > 0, degrees, 0.0) + hue
    share = torch.where(value > 0, span / torch.where(value > 0, value, 1.0), 0.0) * saturation
    parts = []
    for number in (1, 3, 5):  # blue, green, red: value - value * share * max(0, min(k, 4 - k, 1))
        k = (number + degrees / 60) % 6
        parts.append(
            value - value * share * torch.minimum(torch.minimum(k, 4 - k), torch.ones_like(k)).clamp(min=0)
        )
    return torch.stack(parts)
