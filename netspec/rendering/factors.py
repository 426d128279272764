"""The exact E-step of the rendering factor model: the Gaussian top factors given the switches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netspec.rendering.levels import RenderingModel, Switches


def posterior_mean(
    model: RenderingModel,
    x: Tensor,
    switches: Sequence[Switches],
    variance: float = 0.0,
    rounds: int = 50,
    tolerance: float = 1e-6,
) -> Tensor:
    """z = (Lambda' Lambda + variance 1)^-1 Lambda' x, by conjugate gradients; (N, C, h, w) of the top.

    Lambda renders z under the given switches. variance 0 is the noise-free limit: least squares. Stops when
    every image's residual is below `tolerance` times its right side, or after `rounds`.
    """
    shape = model.up(x[:1])[0][-1].shape[1:]

    def render(z: Tensor) -> Tensor:
        return model.down(z, switches)[0]

    start = torch.zeros((len(x), *shape), dtype=x.dtype, device=x.device, requires_grad=True)
    with torch.enable_grad():
        image = render(start)

    def transposed(y: Tensor) -> Tensor:
        """Lambda' y: the gradient of <Lambda z, y>."""
        return torch.autograd.grad(image, start, y, retain_graph=True)[0]

    with torch.no_grad():
        z = torch.zeros_like(start)
        residual = transposed(x)
        direction, square = residual, dots(residual, residual)
        enough = tolerance**2 * square
        for _ in range(rounds):
            if bool((square <= enough).all()):
                break
            image_of = render(direction)
            bent = transposed(image_of) + variance * direction
            curve = dots(direction, bent)
            step = torch.where(curve > 0, square / torch.where(curve > 0, curve, 1.0), 0.0)
            z = z + step * direction
            residual = residual - step * bent
            fresh = dots(residual, residual)
            ratio = torch.where(square > 0, fresh / torch.where(square > 0, square, 1.0), 0.0)
            direction, square = residual + ratio * direction, fresh
    return z


def dots(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> of each image, (N, 1, 1, 1)."""
    return (a * b).flatten(1).sum(1).view(-1, 1, 1, 1)
