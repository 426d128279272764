"""What losses and Accuracy share: labels as indices with a mask of the rows that count, normalisers, and
floors."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from netspec.layers import ranks
from netspec.layers.base import Layer, Shape

# Shape suffixes: O = product of the axes before the class axis, C = classes, I = product of the axes after
# it.


def rows(x: Tensor, axis: int) -> Tensor:
    """`x` as (O, C, I) around its class axis."""
    return x.reshape(prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1 :]))


def classes(label: Tensor, ignore: int | None = None) -> tuple[Tensor, Tensor]:
    """(index, valid): labels cut to integers, 0 where not valid; a label that is NaN or equals `ignore` is
    not valid."""
    label = label.detach()
    valid = ~label.isnan()
    index = torch.where(valid, label, 0).long()
    if ignore is not None:
        valid = valid & (index != ignore)
    return torch.where(valid, index, 0), valid


def from_start(index: Tensor, number: int) -> Tensor:
    """Indices of `number` classes, for which an indexed tensor raises IndexError where there is no such class: a
    negative one would count from the end.
    """
    return torch.where(index < 0, number, index)


def floor_through(x: Tensor, low: float) -> Tensor:
    """max(x, low) with the gradient of x itself, also below `low` (0 where x is infinite); NaN passes
    through.

    Caffe guards logarithms this way: the loss is bounded, the gradient is that of the unguarded formula.
    """
    return torch.where(x < low, low + only_gradient(x), x)


def only_gradient(x: Tensor) -> Tensor:
    """0 with the gradient of x (0 where x is infinite); NaN stays NaN."""
    finite = torch.where(x.isinf(), 0.0, x)
    return finite - finite.detach()


def value_with_gradient_of(value: Tensor, slope: Tensor) -> Tensor:
    """`value`, differentiated as if it were `slope` (for layers whose defined gradient is not the
    derivative)."""
    return value.detach() + only_gradient(slope)


@dataclass(frozen=True)
class Normalization:
    """What a loss is divided by: `mode` FULL, VALID, BATCH_SIZE or NONE, or PRE_FIXED for the number
    `fixed`."""

    mode: str
    fixed: float = 1.0

    def __call__(self, losses: Tensor, valid: Tensor, batch: int) -> Tensor:
        """The sum of `losses` over the chosen number, which is at least 1 (loss_layer.hpp, GetNormalizer).

        `valid` says which losses count, or how much each does. Among ranks with parts of one batch the mean of their
        values is that of the whole batch.
        """
        total, parts = losses.sum(), ranks.current().parts
        if self.mode == "VALID":
            counted = ranks.total(valid.sum()).clamp(min=1)
            return total / (counted if parts == 1 else counted / parts)
        numbers = {"FULL": valid.numel(), "BATCH_SIZE": batch, "PRE_FIXED": self.fixed, "NONE": 1}
        number = max(numbers[self.mode], 1)
        return total / (number / parts if self.mode in ("PRE_FIXED", "NONE") else number)


def normalization(layer: Layer, default: str) -> Normalization:
    """What loss_param says; `normalize` is the older spelling of VALID (true) and BATCH_SIZE (false)."""
    p: Any = layer.spec.message.loss_param
    if p.HasField("normalization"):
        return Normalization(type(p).NormalizationMode.Name(p.normalization), p.pre_fixed_normalizer)
    if p.HasField("normalize"):
        return Normalization("VALID" if p.normalize else "BATCH_SIZE")
    return Normalization(default)


def ignored(layer: Layer) -> int | None:
    """loss_param's ignore_label, None when not set."""
    p: Any = layer.spec.message.loss_param
    return int(p.ignore_label) if p.HasField("ignore_label") else None


def check_labels(layer: Layer, scores: Shape, label: Shape, axis: int) -> None:
    """Fail unless there is one label for every position of `scores` outside its class axis."""
    wanted = prod(scores[:axis]) * prod(scores[axis + 1 :])
    if prod(label) != wanted:
        expected = scores[:axis] + scores[axis + 1 :]
        layer.fail(
            f"needs one label for each of the {wanted} predictions of {scores} "
            f"with classes along axis {axis}, "
            f"such as shape {expected}; the label has shape {label}",
            "bottom",
            1,
        )


def check_same(layer: Layer, a: Shape, b: Shape, i: int = 1) -> None:
    """Fail unless bottom i holds as many values as bottom 0, row by row."""
    if prod(a) != prod(b) or a[:1] != b[:1]:
        layer.fail(f"bottoms 0 and {i} must have equal shapes, found {a} and {b}", "bottom", i)
