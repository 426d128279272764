"""Diffusion nets run step by step from noise to data: samples, and completions of rows with missing values.

Such a net has a DiffusionForward, whose noisy rows its other layers turn into the means and variances of a
DiffusionReverse. A query is the net's own walk with another call at DiffusionForward. Draws come from torch's
generator of the device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from netspec.errors import SpecError
from netspec.layers.base import Layer, as_tuple
from netspec.layers.latent.diffusion import DiffusionForward, DiffusionReverse
from netspec.net.net import Net
from netspec.queries.backwards import backwards


class Diffusion:
    """A net as a diffusion probabilistic model of rows (n, ...) in the units of its input."""

    def __init__(self, net: Net):
        self.net = net
        self.forward_layer: DiffusionForward = self.only(DiffusionForward)
        self.reverse_layer: DiffusionReverse = self.only(DiffusionReverse)
        self.step = net.graph.steps[net.made.index(self.forward_layer)]
        self.steps = len(self.forward_layer.beta)
        self.shape = tuple(net.shapes[net.graph.inputs[0]][1:])

    def only(self, kind: type[Any]) -> Any:
        """The net's one layer of a kind; SpecError where it has none, or several."""
        layers = [layer for layer in self.net.made if isinstance(layer, kind)]
        if len(layers) != 1:
            raise SpecError(
                f"{self.net.graph.spec.file}: a diffusion net has one {kind.__name__}; this one has {len(layers)}"
            )
        return layers[0]

    def walk(self, call: Any, x: Tensor) -> None:
        """Walk the net from rows x (n, ...); inputs beside the first are 0."""
        others = [x.new_zeros((len(x), *self.net.shapes[slot][1:])) for slot in self.net.graph.inputs[1:]]
        self.net.run(call, x.reshape(len(x), *self.shape), *others)

    def enter(self, x: Tensor) -> Tensor:
        """Rows x in the input's units as DiffusionForward reads them, after the layers before it (which standardise);
        NaN stays NaN.
        """
        seen: list[Tensor] = []

        def call(layer: Layer, *bottoms: Tensor) -> tuple[Tensor, ...]:
            if layer is self.forward_layer:
                seen.append(bottoms[0])
            return as_tuple(layer(*bottoms))

        self.walk(call, x)
        return seen[0]

    def leave(self, inner: Tensor) -> Tensor:
        """The inverse of `enter`; SpecError where a layer before DiffusionForward has none."""
        return backwards(self.net, {self.step.reads[0]: inner})[self.net.graph.inputs[0]]

    def back(self, noisy: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of the rows at step t - 1 given those at t, 1 <= t < steps."""
        seen: list[Tensor] = []
        time = noisy.new_full((len(noisy),), float(t))

        def call(layer: Layer, *bottoms: Tensor) -> tuple[Tensor, ...]:
            if layer is self.forward_layer:  # the posterior's mean and variance only count in the loss
                variance = noisy.new_ones((len(noisy), *(1 for _ in noisy.shape[1:])))
                return (noisy, torch.zeros_like(noisy), variance, time)[: len(layer.spec.tops)]
            tops = as_tuple(layer(*bottoms))
            if layer is self.reverse_layer:
                seen.extend(tops)
            return tops

        self.walk(call, noisy.new_zeros((len(noisy), *self.shape)))
        return seen[0], seen[1]


def complete(diffusion: Diffusion, x: Tensor, renoised: bool = False) -> Tensor:
    """x (n, ...) with its missing values (NaN) drawn from noise, step by step; observed values are put back after each
    step.

    renoised: at each step observed values have that step's noise; without it they are the values themselves, as
    in the released program of Sohl-Dickstein et al. 2015. Everything missing: a sample of the model.
    """
    missing = x.isnan()
    holed = missing.flatten(1).any(1)
    if not bool(holed.all()):  # a row without holes costs no steps
        whole = x.clone()
        if bool(holed.any()):
            whole[holed] = complete(diffusion, x[holed], renoised)
        return whole
    with torch.no_grad():
        known = diffusion.enter(x)
        absent = known.isnan()
        noisy = torch.randn_like(known)
        left = diffusion.forward_layer.left.to(noisy.dtype)
        for t in range(diffusion.steps - 1, 0, -1):
            noisy = torch.where(absent, noisy, at_step(known, left[t]) if renoised else known)
            mean, variance = diffusion.back(noisy, t)
            noisy = mean + variance.sqrt() * torch.randn_like(mean)
        image = diffusion.leave(torch.where(absent, noisy, known.nan_to_num()))
    return torch.where(missing, image.reshape(x.shape), x)


def at_step(x: Tensor, left: Tensor) -> Tensor:
    """x with the noise of the step that leaves a share `left` of its variance."""
    return left.sqrt() * x + (1 - left).sqrt() * torch.randn_like(x)


def sample(diffusion: Diffusion, rows: int) -> Tensor:
    """(rows, ...): draws of the model."""
    like = next(diffusion.net.parameters())
    return complete(diffusion, like.new_full((rows, *diffusion.shape), torch.nan))
