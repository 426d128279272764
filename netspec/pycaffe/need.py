"""Which layers run backward, and into which of their bottoms: Caffe's rules (net.cpp, Net::Init)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class Need:
    """Whether a layer runs backward, and for each bottom whether it gets a gradient."""

    layer: bool
    bottoms: list[bool]


def needs(steps: Sequence[Any], force: bool) -> list[Need]:
    """The Need of every step (netspec.pycaffe.step.Step).

    A layer runs backward when it, or one before it, has a parameter with lr_mult other than 0, and when it
    contributes to a loss. With force_backward all layers do, into all their bottoms (labels get zeros).
    """
    per_step = _forward(steps)
    _backward(steps, per_step)
    if force:
        for need in per_step:
            need.layer = True
            need.bottoms = [True] * len(need.bottoms)
    for step, need in zip(steps, per_step, strict=True):
        if not step.kind.differentiable:
            need.bottoms = [False] * len(need.bottoms)
    return per_step


def _forward(steps: Sequence[Any]) -> list[Need]:
    """Whether something before or in each layer learns."""
    learns: dict[int, bool] = {}
    per_step = []
    for step in steps:
        written = list(step.layer.spec.message.propagate_down)
        own = [learns.get(id(blob), False) for blob in step.bottoms]
        down = [bool(written[i]) if i < len(written) else own[i] for i in range(len(own))]
        layer = any(own) or any(rate != 0 for rate in step.rates)
        learns.update({id(blob): layer for blob in step.tops})
        per_step.append(Need(layer, down))
    return per_step


def _backward(steps: Sequence[Any], per_step: list[Need]) -> None:
    """Clear the need of layers that contribute to no loss, and of those before a bottom where the gradient stops."""
    under_loss: set[int] = set()
    skipped: set[int] = set()
    for step, need in reversed(list(zip(steps, per_step, strict=True))):
        contributes, skip = False, True
        for top, weight in zip(step.tops, step.weights, strict=True):
            contributes |= bool(weight) or id(top) in under_loss
            skip &= id(top) in skipped
        if skip or not contributes:
            need.layer = False
            need.bottoms = [False] * len(need.bottoms)
        for i, blob in enumerate(step.bottoms):
            if contributes:
                under_loss.add(id(blob))
            else:
                need.bottoms[i] = False
            if not need.bottoms[i]:
                skipped.add(id(blob))
