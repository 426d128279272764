"""The image that a class likes best: in closed form, patch by patch (appendix E), and by gradient ascent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from netspec.rendering.levels import RenderingModel


@dataclass(frozen=True)
class Activity:
    """Result of an activity maximisation: image (C, H, W), and the class score after each round.

    For the closed form `rounds` is (patches, rounds): the scores of the patches, each of unit norm.
    """

    image: Tensor
    rounds: Tensor


def patches(shape: tuple[int, int, int], size: int) -> Tensor:
    """Masks (P, 1, H, W) of size x size patches side by side that cover an image (C, H, W)."""
    _, height, width = shape
    rows, columns = torch.arange(height) // size, torch.arange(width) // size
    number = rows[:, None] * (columns[-1] + 1) + columns
    return torch.stack([(number == i).float() for i in range(int(number.max()) + 1)])[:, None]


@torch.no_grad()
def closed_form(
    model: RenderingModel,
    c: int,
    shape: tuple[int, int, int],
    patch: int = 7,
    rounds: int = 10,
    generator: torch.Generator | None = None,
) -> Activity:
    """I* = sum over patches P of mu(c, g*) on P, g* = argmax over g of |mu(c, g) on P| (equations 10 and 46).

    Alternates, for all patches at once from noise: switches of the patch bottom-up; the template of class c
    top-down, cut to the patch and normalised; each patch keeps its best round. In a nonnegative model without
    biases the score <mu(c, g), patch> never falls. A patch that switches no unit on stays empty.
    """
    masks = patches(shape, patch).to(model.levels[0].weight)
    noise = torch.randn((len(masks), *shape), generator=generator, dtype=masks.dtype)
    x = unit(noise.abs().to(masks.device) * masks)
    c_N = torch.full((len(masks),), c, device=masks.device)
    history: list[Tensor] = []
    best, best_score = torch.zeros_like(x), torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
    for _ in range(rounds + 1):
        messages, switches = model.up(x)
        history.append(model.scores(messages[-1])[:, c])
        rendered = model.down(model.template(c_N, messages[-1].shape), switches)[0] * masks
        better = history[-1] > best_score
        best = torch.where(better.view(-1, 1, 1, 1), rendered, best)
        best_score = torch.where(better, history[-1], best_score)
        x = unit(rendered)
    return Activity(best.sum(0), torch.stack(history, 1))


def gradient_ascent(
    model: RenderingModel,
    c: int,
    shape: tuple[int, int, int],
    rounds: int = 200,
    rate: float = 0.1,
    decay: float = 0.01,
    generator: torch.Generator | None = None,
) -> Activity:
    """Ascends score_c(I) - decay |I|^2 from small noise (Simonyan et al. 2013)."""
    like = model.levels[0].weight
    x = (torch.randn((1, *shape), generator=generator, dtype=like.dtype) * 0.01).to(like.device)
    history = []
    for _ in range(rounds):
        x = x.detach().requires_grad_(True)
        score = model.scores(model.up(x)[0][-1])[0, c]
        history.append(score.detach())
        (slope,) = torch.autograd.grad(score - decay * x.square().sum(), x)
        x = x + rate * slope
    return Activity(x.detach()[0], torch.stack(history))


def unit(x: Tensor) -> Tensor:
    """Each image with norm 1; empty ones stay empty."""
    norm = x.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return torch.where(norm > 0, x / torch.where(norm > 0, norm, 1.0), 0.0)
