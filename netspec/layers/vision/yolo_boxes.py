"""Boxes and labels of YOLO's losses and of their evaluation.

Shape suffixes: N = images, B = boxes of a cell, L = cells of an image, G = objects of an image.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from netspec.layers.base import Shape

FACTS = 7
"""Numbers of a cell in YOLOv1's labels: difficult, is there an object, its class, its box (4)."""
ROW, ANNOTATED = 5, 8
"""Numbers of an object: class, x, y, width, height; or image, class, instance, corners (4), difficult."""


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4) as (x, y, width, height), broadcast; 0 where they do not meet."""
    low = torch.maximum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    high = torch.minimum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    side = high - low
    shared = torch.where((side > 0).all(-1), side.prod(-1), 0.0)
    union = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - shared
    return torch.where(shared > 0, shared / torch.where(shared > 0, union, 1.0), 0.0)


def objects(labels: Tensor, images: int) -> list[list[list[float]]]:
    """(class from 0, x, y, width, height) of the objects of each image, from rows of AnnotatedData, classes from 1, or
    of (N, 5 G) numbers, up to a row of zeros.
    """
    per_image: list[list[list[float]]] = [[] for _ in range(images)]
    if labels.dim() == 4 and labels.shape[:2] == (1, 1) and labels.shape[3] == ANNOTATED:
        for row in labels.reshape(-1, ANNOTATED).tolist():
            x1, y1, x2, y2 = row[3:7]
            if 0 <= row[0] < images:
                per_image[int(row[0])].append([row[1] - 1, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
        return per_image
    for mine, rows in zip(per_image, labels.reshape(images, -1, ROW).tolist(), strict=True):
        for row in rows:
            if not row[1] or not row[3]:
                break
            mine.append(row)
    return per_image


def same_rows(images: int, shape: Shape) -> bool:
    """Whether a bottom has a row for each image."""
    return bool(shape) and shape[0] == images


def holds_objects(images: int, shape: Shape) -> bool:
    """Whether `objects` reads a bottom of this shape."""
    annotated = len(shape) == 4 and shape[:2] == (1, 1) and shape[3] == ANNOTATED
    return annotated or (same_rows(images, shape) and prod(shape[1:]) % ROW == 0)


def corners(side: int, like: Tensor) -> Tensor:
    """(column, row) of each cell, (L, 2)."""
    place = torch.arange(side, device=like.device, dtype=like.dtype)
    return torch.stack((place.repeat(side), place.repeat_interleave(side)), 1)


def centred(sides: Tensor) -> Tensor:
    """Boxes (..., 4) of these sides about the origin."""
    return torch.cat((torch.zeros_like(sides), sides), -1)
