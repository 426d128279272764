"""How much each layer tells linearly about class and nuisances (Fig. 2, left): ridge regressions, tested on held-out
images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, affine_grid, grid_sample, one_hot

from netspec.rendering.levels import RenderingModel

NUISANCES = ("shift_x", "shift_y", "rotation", "scale", "brightness")


@dataclass(frozen=True)
class Transformed:
    """Images moved by known amounts: x (N, C, H, W), nuisances (N, 5) in the order of NUISANCES."""

    x: Tensor
    nuisances: Tensor


def transform(x: Tensor, generator: torch.Generator | None = None) -> Transformed:
    """Moves each image: shifts to 4 pixels, turns to 30 degrees, sizes 0.8 to 1.2, brightness 0.5 to 1.

    x may lie on any device; the generator is one of main memory.
    """
    n, _, height, width = x.shape
    draws = torch.rand((n, 5), generator=generator, dtype=x.dtype).to(x)
    shift = (draws[:, :2] * 2 - 1) * 4
    angle = (draws[:, 2] * 2 - 1) * np.pi / 6
    scale, brightness = 0.8 + 0.4 * draws[:, 3], 0.5 + 0.5 * draws[:, 4]
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    turn = torch.stack((torch.stack((cosine, sine), 1), torch.stack((-sine, cosine), 1)), 1)
    step = shift * 2 / draws.new_tensor([width, height])
    moves = torch.cat((turn, -turn @ step[:, :, None]), 2)  # from a place in the moved image to one in x
    moved = grid_sample(x, affine_grid(moves, list(x.shape), align_corners=False), align_corners=False)
    moved = moved * brightness.view(-1, 1, 1, 1)
    return Transformed(moved, torch.stack((shift[:, 0], shift[:, 1], angle, scale, brightness), 1))


@torch.no_grad()
def probe(
    model: RenderingModel, given: Transformed, labels: Tensor, cells: int = 4, ridge: float = 1e-2
) -> dict[str, list[float]]:
    """For the image and each level: accuracy of the class, and R^2 of each nuisance, on the second half.

    Features are a level's messages, averaged down to cells x cells per channel and standardised; a ridge regression
    (one-hot for classes) is fitted on the first half of the images.
    """
    measures: dict[str, list[float]] = {name: [] for name in ("class", *NUISANCES)}
    half = len(labels) // 2
    targets = torch.cat((one_hot(labels.long()).to(given.x.dtype), given.nuisances), 1).double()
    for message in model.up(given.x)[0]:
        pooled = adaptive_avg_pool2d(message, min(cells, message.shape[2])) if message.dim() == 4 else message
        fitted = regress(pooled.flatten(1).double(), targets, half, ridge)
        classes = targets.shape[1] - len(NUISANCES)
        hit = fitted[:, :classes].argmax(1) == labels[half:].long()
        measures["class"].append(float(hit.double().mean()))
        for i, name in enumerate(NUISANCES, classes):
            rest = (targets[half:, i] - fitted[:, i]).square().sum()
            spread = (targets[half:, i] - targets[half:, i].mean()).square().sum()
            measures[name].append(float(1 - rest / spread))
    return measures


def regress(features: Tensor, targets: Tensor, half: int, ridge: float) -> Tensor:
    """Predictions for the rows from `half` on, by a ridge regression on those before."""
    mean, spread = features[:half].mean(0), features[:half].std(0).clamp(min=1e-9)
    x, middle = (features - mean) / spread, targets[:half].mean(0)
    gram = x[:half].t() @ x[:half]
    gram.diagonal().add_(ridge * half)
    weights: Tensor = torch.linalg.solve(gram, x[:half].t() @ (targets[:half] - middle))
    return x[half:] @ weights + middle
