"""Nets run backwards: inputs from tops, where the layers on the way have an inverse (such as NICE)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from netspec.errors import SpecError
from netspec.layers.base import Layer, as_tuple
from netspec.layers.latent.flow import LogisticPriorLoss
from netspec.net.net import Net, explained


def backwards(net: Net, known: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Values of slots that follow from the `known` ones, the net's data input among them.

    Layers whose bottoms are known run forward, layers whose tops are known run backwards, until nothing new follows: so
    an additive coupling undoes itself. SpecError names a layer without an inverse where the data input does not follow.
    """
    values = dict(known)
    steps = [(s, layer) for s, layer in zip(net.graph.steps, net.made, strict=True) if not s.kind.is_source]
    rows = len(next(iter(values.values())))
    grew = True
    while grew:
        before = len(values)
        for step, layer in reversed(steps):
            if told(step, layer, values):
                undo(net, step, layer, values, rows)
            elif step.reads and all(slot in values for slot in step.reads):
                redo(step, layer, values)
        grew = len(values) > before
    if net.graph.inputs and net.graph.inputs[0] not in values:
        stuck = [step for step, layer in steps if told(step, layer, values)]
        stuck = [step for step in stuck if any(slot not in values for slot in step.reads)]
        where = stuck[-1] if stuck else steps[-1][0]
        raise SpecError([where.layer.problem("has no inverse: the net cannot be run backwards through it")])
    return values


def told(step: Any, layer: Layer, values: Mapping[int, Tensor]) -> bool:
    """Whether all tops that a layer's inverse reads are known."""
    needed = step.writes[: layer.undone_by]
    return bool(needed) and all(slot in values for slot in needed)


def undo(net: Net, step: Any, layer: Layer, values: dict[int, Tensor], rows: int) -> None:
    """Add the bottoms of a layer whose tops are known, if it has an inverse."""
    if all(slot in values for slot in step.reads):
        return
    shapes = [(rows, *net.shapes[slot][1:]) for slot in step.reads]
    bottoms = [values.get(slot) for slot in step.reads]
    inverted = layer.inverse([values[slot] for slot in step.writes[: layer.undone_by]], bottoms, shapes)
    for slot, value in zip(step.reads, inverted or (), strict=False):
        values.setdefault(slot, value)


def redo(step: Any, layer: Layer, values: dict[int, Tensor]) -> None:
    """Add the tops of a layer whose bottoms are known."""
    tops = explained(layer, *(values[slot] for slot in step.reads))
    for slot, value in zip(step.writes, tops, strict=True):
        values.setdefault(slot, value)


class Flow:
    """A net that turns data into independent logistic values, with the log determinant beside them."""

    def __init__(self, net: Net):
        self.net = net
        priors = [layer for layer in net.made if isinstance(layer, LogisticPriorLoss)]
        if len(priors) != 1:
            file = net.graph.spec.file
            raise SpecError(
                f"{file}: an invertible net has one LogisticPriorLoss; this one has {len(priors)}"
            )
        self.prior = priors[0]
        self.step = net.graph.steps[net.made.index(self.prior)]
        self.shape = tuple(net.shapes[net.graph.inputs[0]][1:])


def log_likelihood(flow: Flow, x: Tensor) -> Tensor:
    """log p of each row, (n,), nats: that of the prior and the log determinants."""
    seen: list[Tensor] = []

    def call(layer: Layer, *bottoms: Tensor) -> tuple[Tensor, ...]:
        if layer is flow.prior:
            seen.append(flow.prior.rows(*bottoms))
        return as_tuple(layer(*bottoms))

    others = [x.new_zeros((len(x), *flow.net.shapes[slot][1:])) for slot in flow.net.graph.inputs[1:]]
    flow.net.run(call, x.reshape(len(x), *flow.shape), *others)
    return seen[0]


def sample(flow: Flow, rows: int) -> Tensor:
    """(rows, ...): draws of the prior, run backwards."""
    slot = flow.step.reads[0]
    with torch.no_grad():
        z = flow.prior.draw(rows, tuple(flow.net.shapes[slot][1:]), next(flow.net.parameters()))
        return backwards(flow.net, {slot: z})[flow.net.graph.inputs[0]]


SHARE = 100
"""The released program of NICE takes the gradient of the mean log likelihood of 100 rows."""
STEPS = 500
"""Steps of `inpaint` by default."""


def inpaint(flow: Flow, x: Tensor, steps: int = STEPS) -> Tensor:
    """x (n, ...) with its missing values (NaN) drawn by noisy ascent on log p; observed values are kept in each step.

    Missing values begin at U[0, 1); x += rate (gradient of log p / 100 + N(0, 1)) with rate 1 / (10 + step / 10),
    as in the released program for rows of values in [0, 1], which takes 8,555 steps (Dinh, Krueger and Bengio
    2014, section 5.2). No value is clipped. A net's own noise is drawn anew in each step.
    """
    missing = x.isnan()
    image = torch.where(missing, torch.rand_like(x), x)
    for step in range(steps):
        with torch.enable_grad():
            leaf = image.detach().requires_grad_()
            (slope,) = torch.autograd.grad(log_likelihood(flow, leaf).sum() / SHARE, leaf)
        rate = 1 / (0.1 * step + 10)
        image = torch.where(missing, image.detach() + rate * (slope + torch.randn_like(x)), x)
    return image
