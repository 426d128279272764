"""Boxes as corners (xmin, ymin, xmax, ymax): areas, overlaps, codes relative to priors, suppression."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CORNER, CENTER_SIZE, CORNER_SIZE = 1, 2, 3
"""PriorBoxParameter.CodeType."""


def area(box: Tensor) -> Tensor:
    """Area of boxes (..., 4); 0 where the corners are in the wrong order."""
    width, height = box[..., 2] - box[..., 0], box[..., 3] - box[..., 1]
    return torch.where((width < 0) | (height < 0), 0.0, width * height)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes, broadcast over (..., 4); 0 where they do not meet."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    union = area(a) + area(b) - shared
    return torch.where(shared > 0, shared / torch.where(shared > 0, union, 1.0), 0.0)


def middle_and_size(box: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and sizes (..., 2) of boxes."""
    return (box[..., :2] + box[..., 2:]) / 2, box[..., 2:] - box[..., :2]


def decode(code: int, prior: Tensor, variance: Tensor | None, coded: Tensor) -> Tensor:
    """The boxes that `coded` stands for, relative to `prior`; all (..., 4). variance None: contained in the
    code."""
    scaled = coded if variance is None else coded * variance
    centre, size = middle_and_size(prior)
    if code == CORNER:
        return prior + scaled
    if code == CORNER_SIZE:
        return prior + scaled * torch.cat((size, size), -1)
    half = scaled[..., 2:].exp() * size / 2
    centre = centre + scaled[..., :2] * size
    return torch.cat((centre - half, centre + half), -1)


def encode(code: int, prior: Tensor, variance: Tensor | None, box: Tensor) -> Tensor:
    """The code of `box` relative to `prior`: decode's inverse."""
    centre, size = middle_and_size(prior)
    if code == CORNER:
        coded = box - prior
    elif code == CORNER_SIZE:
        coded = (box - prior) / torch.cat((size, size), -1)
    else:
        box_centre, box_size = middle_and_size(box)
        coded = torch.cat(((box_centre - centre) / size, (box_size / size).log()), -1)
    return coded if variance is None else coded / variance


def suppress(
    boxes: NDArray[np.floating],
    threshold: float,
    eta: float = 1.0,
    most: int | None = None,
    pixels: bool = False,
) -> list[int]:
    """Indices of the boxes that stay, of boxes (n, 4) in the order of falling score.

    A box stays when it overlaps no box kept before it by more than `threshold`. After each box kept, a
    threshold above 0.5 is multiplied by `eta` (when below 1). `most` ends the search. pixels: corners are
    pixels that belong to the box, so sides are one longer.
    """
    extra = 1.0 if pixels else 0.0
    width, height = boxes[:, 2] - boxes[:, 0] + extra, boxes[:, 3] - boxes[:, 1] + extra
    areas = np.where((width < 0) | (height < 0), 0.0, width * height)
    worst = np.full(len(boxes), -np.inf)  # a threshold of less than 0 keeps the first box too
    kept: list[int] = []
    for i in range(len(boxes)):
        if worst[i] > threshold:
            continue
        kept.append(i)
        if most is not None and len(kept) >= most:
            break
        rest = slice(i + 1, None)
        low, high = np.maximum(boxes[i, :2], boxes[rest, :2]), np.minimum(boxes[i, 2:], boxes[rest, 2:])
        shared = np.maximum(high - low + extra, 0).prod(1)
        union = areas[i] + areas[rest] - shared
        worst[rest] = np.fmax(
            worst[rest], np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
        )
        if eta < 1 and threshold > 0.5:
            threshold *= eta
    return kept
