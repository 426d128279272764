"""The vocabulary in which layer classes describe themselves to other rooms: families, roles of bottoms, receptive
fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

from netspec.errors import Problem
from netspec.schema.spec import LayerSpec

FAMILIES = (
    "data",
    "convolution, linear",
    "recurrent",
    "pooling",
    "pointwise",
    "normalisation",
    "similarity, MEX",
    "latent",
    "rendering",
    "shape",
    "detection",
    "loss",
    "accuracy",
    "other",
)
"""Families of layers, in the order of a drawing's legend."""

ROLES = {
    "values": "numbers of any meaning and shape",
    "image": "a picture or a map of features (N, C, H, W)",
    "features": "a row of numbers per item (N, D), in which classes lie apart",
    "scores": "a number per class along the axis of classes: logits, log likelihoods or probabilities",
    "label": "the number of a class for each place of the scores",
    "row label": "the number of a class for each row of the first bottom",
    "binary label": "0 or 1 for each value of the first bottom",
    "label rows": "a row of class numbers per sequence",
    "target": "what the first bottom is compared with, in its shape",
    "operand": "numbers that meet the first bottom along some of its axes",
    "weights": "a factor for each value of the first bottom",
    "gains": "a matrix with a number for each pair of classes",
    "mask": "1 where a value counts or is observed, 0 elsewhere",
    "regions": "rows (image, x1, y1, x2, y2), in pixels",
    "offsets": "shifts of boxes from their anchors",
    "boxes": "boxes with their labels, as annotated",
    "detections": "rows (image, label, confidence, x1, y1, x2, y2)",
    "priors": "corners of the boxes that offsets start from, and their variances",
    "picture size": "rows (height, width, scale) of the pictures in pixels",
    "index": "whole numbers that choose rows of a table",
    "row index": "a whole number for each item of the first bottom",
    "sequence": "(time, sequences, ...): a step of each sequence per row",
    "continuation": "(time, sequences): 0 where a sequence begins, 1 where it goes on",
    "lengths": "the number of steps of each sequence",
    "state": "what a recurrent layer hands from one step to the next",
    "static": "what all steps of a sequence share (sequences, D)",
    "switches": "where in its window each maximum came from",
    "flow": "a displacement (u, v) for each pixel, in pixels",
    "affine map": "the six numbers of a map of the plane, per item",
    "like": "a blob of which the shape alone is read",
    "ignored": "a blob that is read so that it is no output of the net",
}
"""Roles of bottoms: the words of `Layer.roles`."""


@dataclass(frozen=True)
class Field:
    """How much of the input one value of a blob sees, along each spatial axis, and where.

    Empty for constants. A step below 1 is that of an enlarged map.
    """

    size: tuple[float, ...]
    """Cells of the input that take part in one value."""
    stride: tuple[float, ...]
    """Cells of the input from one value to the next."""
    first: tuple[float, ...] = field(default=(), compare=False)
    """Offset of the middle of the first value's field, in cells of the input, from the centre of the input's first
    cell.
    """

    def grown(self, extent: Sequence[int], stride: Sequence[int], pad: Sequence[int] = ()) -> Field | None:
        """The field after a sliding window of `extent` cells with steps `stride`; None where the number of axes
        differs.

        pad: cells that the first window covers before the map's first cell (default 0).
        """
        if len(extent) != len(self.size):
            return None
        size = tuple(f + (e - 1) * s for f, e, s in zip(self.size, extent, self.stride, strict=True))
        steps = tuple(a * b for a, b in zip(self.stride, stride, strict=True))
        return Field(
            size,
            steps,
            self.at([(e - 1) / 2 - p for e, p in zip(extent, pad or [0] * len(extent), strict=True)]),
        )

    def enlarged(self, extent: Sequence[int], stride: Sequence[int], pad: Sequence[int] = ()) -> Field | None:
        """The field after a transposed window: a value gathers ceil(extent / stride) values below, and the step
        shrinks.
        """
        if len(extent) != len(self.size):
            return None
        size = tuple(
            f + (ceil(e / s) - 1) * j
            for f, e, s, j in zip(self.size, extent, stride, self.stride, strict=True)
        )
        steps = tuple(j / s for j, s in zip(self.stride, stride, strict=True))
        before = pad or [0] * len(extent)
        return Field(
            size,
            steps,
            self.at([(p - (e - 1) / 2) / s for e, s, p in zip(extent, stride, before, strict=True)]),
        )

    def at(self, place: Sequence[float]) -> tuple[float, ...]:
        """The part of the input that the value at `place`, in cells of this blob, sees; () where that is unknown."""
        return (
            tuple(f + j * x for f, j, x in zip(self.first, self.stride, place, strict=True))
            if self.first
            else ()
        )


NOTHING = Field((), ())
"""The field of a constant."""


class Lack(NamedTuple):
    """A thing outside the net file that a layer needs and that is missing on this machine."""

    need: str
    """A file, data set or module."""
    problem: Problem
    instead: LayerSpec | None = None
    """A replacement of the layer where only shapes matter; None: the layer itself."""


# What a blob holds of a latent tree (`Layer.tree_value`, netspec.queries.recognise)


@dataclass(frozen=True)
class Chain:
    """Activations at the top of these steps, from the leaf up, plus anything common to all states."""

    steps: tuple[int, ...]


@dataclass(frozen=True)
class Common:
    """A value for each position, the same in all channels."""


@dataclass(frozen=True)
class Constant:
    """One value everywhere: the masks, where they are not drawn."""

    value: float


@dataclass(frozen=True)
class Other:
    """The values of this slot; pixels among them."""

    slot: int


Value = Chain | Common | Constant | Other
